"""Heads and token models from the fit rows, of each stage."""

from dataclasses import replace

from training.features import Features
from training.ground import Ground
from training.learn.members import Recipe
from training.learned import Learned, join, learn
from training.measure.members import Worth, worth


def fit(ground: Ground, features: Features, seed: int, recipe: Recipe) -> tuple[Features, Learned]:
    """Heads and token models, of each stage, from the fit rows, and the features that they read.

    A fine-tuned encoder that does not lower the heads' loss on the rows kept for weighing it is
    left out: it would cost milliseconds for nothing.
    """
    rows = ground.splits.fit
    group = ground.splits.group[rows]

    def learned_from(given: Features) -> Learned:
        return learn(
            given.x.take(rows),
            ground.fit_rows,
            group,
            ground.tiers,
            given.embedder,
            given.vectorizer,
            seed,
            recipe,
        )

    learned = learned_from(features)
    if features.vectorizer.encoder is not None:
        members = worth_of(ground, learned)
        encoder = members[-1:]  # none, where its rows are of one session
        if any(member.nats.value > 0 for member in encoder):
            learned = replace(learned, members=members)
        else:
            shown = [member.describe() for member in encoder] or ["nothing shows what it adds"]
            told = f"the fine-tuned encoder is left out: {shown[0]}"
            features = replace(
                features,
                vectorizer=replace(features.vectorizer, encoder=None),
                x=replace(features.x, read=features.x.read[:, :0]),
                notes=(*features.notes, told),
            )
            learned = learned_from(features)
    if features.second is not None:
        _, second = fit(ground, features.second, seed, recipe)
        learned = join(learned, second, features.x.take(rows), ground.fit_rows)
    return features, learned


def worth_of(ground: Ground, learned: Learned) -> tuple[Worth, ...]:
    """What each member adds, on the fit rows."""
    rows = ground.fit_rows
    return worth(learned.heads, rows.score, rows.weight, rows.trusted, learned.usd, rows.sessions)
