"""Heads and token models from the fit rows, of each stage."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy
from router.predictor import Estimates
from training.decide.evidence import served
from training.features import Features
from training.ground import Ground
from training.learn.costs import expected
from training.learn.heads import probabilities
from training.learn.members import Recipe
from training.learn.stages import Stages
from training.learned import Learned, join, learn
from training.measure.members import Worth, worth


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a job knows once it has learned.

    Attributes:
        ground: requests and splits.
        features: of all requests, as the heads read them.
        learned: heads and token models, from the fit rows.
    """

    ground: Ground
    features: Features
    learned: Learned

    def stages(self, rows: NDArray[np.int64]) -> Stages | None:
        """What a second stage says of some requests, int64[m]; None where there is one only."""
        x, second = self.features.x.take(rows), self.features.second
        prompts = list(self.ground.requests.prompts[rows])
        return self.learned.stages(x, None if second is None else second.x.take(rows), prompts)

    def estimates(self, rows: NDArray[np.int64], policy: Policy) -> Estimates:
        """As they are served under a policy, of requests that were not fitted on, int64[m]."""
        x = self.features.x.take(rows)
        usd = expected(x, self.learned.predictor.tokens, self.learned.tiers)
        p = probabilities(self.learned.heads, x)
        return Estimates(served(p, usd, self.stages(rows), policy), usd)


def fit(ground: Ground, features: Features, seed: int, recipe: Recipe) -> Fitted:
    """Learn heads and token models, of each stage, from the fit rows.

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
        second = fit(ground, features.second, seed, recipe).learned
        learned = join(learned, second, features.x.take(rows), ground.fit_rows)
    return Fitted(ground, features, learned)


def worth_of(ground: Ground, learned: Learned) -> tuple[Worth, ...]:
    """What each member adds, on the fit rows."""
    rows = ground.fit_rows
    return worth(learned.heads, rows.score, rows.weight, rows.trusted, learned.usd, rows.sessions)
