"""The features of a job: vectors of all its requests, and what makes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from router.embedder import Embedder
from router.vectorizer import Vectorizer
from training.console import step
from training.ground import Ground
from training.learn.embedders import resolve_stages, resolve_tuning
from training.learn.finetune import Tuning, finetune
from training.learn.members import Matrix
from training.learn.vectorize import fit_ngrams, vectorize


@dataclass(frozen=True, slots=True)
class Features:
    """Vectors of all n requests, and what makes them.

    Attributes:
        vectorizer: the embedder, as exported, and the n-grams of the fit rows.
        x: n rows, those of `Ground.requests`.
        second: of two stages the second's; the other attributes are the first's then.
        notes: of fine-tuning, in words.
    """

    vectorizer: Vectorizer
    x: Matrix
    second: "Features | None" = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """What `--embedder` and `--finetune` name, read once.

    Attributes:
        embedders: of one stage or of two.
        base: folder of the model that is fine-tuned beside them, if any.
        tuning: for how long.
    """

    embedders: tuple[Embedder, ...]
    base: Path | None = None
    tuning: Tuning | None = None


def resolve_sources(name: str, tuning: Tuning | None = None) -> Sources:
    """What `--embedder NAME` means, with `tuning` beside --finetune.

    Raises:
        BadInput, EnvironmentProblem: there is no such embedder, or it cannot be fine-tuned.
    """
    if tuning is None:
        return Sources(resolve_stages(name))
    embedder, base = resolve_tuning(name)
    return Sources((embedder,), base, tuning)


def prepare(ground: Ground, sources: Sources, seed: int) -> Features:
    """The features of every request; a fine-tuned encoder's margins beside them, if asked for.

    Raises:
        BadInput, EnvironmentProblem: the encoder cannot be fine-tuned.
    """
    with step("features"):
        features = featurize(ground, sources.embedders, seed)
    if sources.tuning is None or sources.base is None:
        return features
    rows, group = ground.splits.fit, ground.splits.group
    names = tuple(tier.name for tier in ground.tiers)
    minutes = sources.tuning.max_minutes
    made = finetune(sources.base, ground.requests, rows, group, names, seed, minutes)
    return replace(
        features,
        vectorizer=replace(features.vectorizer, encoder=made.encoder),
        x=replace(features.x, read=made.read),
        notes=made.notes,
    )


def featurize(ground: Ground, embedders: Sequence[Embedder], seed: int) -> Features:
    """Vectors of every request; the n-grams' projection is fitted on the fit rows.

    Args:
        ground: requests and splits.
        embedders: of one stage or of two.
        seed: of the projection.
    """
    embedder, *more = embedders
    ngrams = fit_ngrams(embedder, list(ground.fit_rows.prompts), seed)
    vectorizer = Vectorizer(embedder, ngrams)
    x = vectorize(vectorizer, list(ground.requests.prompts))
    return Features(vectorizer, x, featurize(ground, more, seed) if more else None)
