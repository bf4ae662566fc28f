"""Why a prompt goes to a tier, and what would change that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact, read_artifact
from router.assembly import SECOND
from router.embedder import cut_tokens
from router.features import NAMES
from router.gate import both
from router.head import Head
from router.ngrams import buckets_of
from router.policy import Policy
from router.predictor import Predictor
from router.prompt import Messages, Prompt
from router.vectorizer import Vector
from training.learn.reference import read_references
from training.show.changes import Rival, flipping, rivals
from training.show.contributions import Contributions, contribute

MOST_PROTOTYPES = 3


@dataclass(frozen=True, slots=True)
class Explanation:
    """One decision, taken apart.

    Arrays over tiers are in the artifact's order; those over `learned` have no column for tiers
    whose probability is a constant.

    Attributes:
        artifact: what decided.
        chosen: index of the tier.
        p, usd: float64[tiers], P(suffices) and expected cost of a call.
        p_reference: float64[tiers], P(suffices) of the reference.
        reference: what the contributions compare with, in words.
        contributions: of the learned tiers; None where no tier has learned heads.
        points: float64[learned], probability for each unit of log-odds: the difference between the
            prompt's probability and the reference's, shared out in proportion to log-odds.
        surface: float32[·], the surface features' values.
        tokens: the prompt's own tokens and pairs of tokens, strongest first, float64[learned] each.
        near: the prototypes nearest to the prompt: likeness, weight, rows and rate by tier.
        near_rows, near_rate: float64[learned], weighted rows behind the neighbours, their rate.
        stage: which of two stages decided, and is taken apart; None where there is one only.
        rivals: for every other tier, what would make it win; none under a constant policy.
        alone, together: the parts that carry the decision, see `training.show.changes.flipping`.
    """

    artifact: Artifact
    chosen: int
    p: NDArray[np.float64]
    usd: NDArray[np.float64]
    p_reference: NDArray[np.float64]
    reference: str
    contributions: Contributions | None
    points: NDArray[np.float64]
    surface: NDArray[np.float32]
    tokens: tuple[tuple[str, NDArray[np.float64]], ...]
    near: tuple[dict[str, Any], ...]
    near_rows: NDArray[np.float64]
    near_rate: NDArray[np.float64]
    stage: int | None
    rivals: tuple[Rival, ...]
    alone: tuple[str, ...]
    together: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The tiers' names."""
        return [tier.name for tier in self.artifact.predictor.tiers]

    @property
    def learned(self) -> list[str]:
        """Names of the tiers whose probability is learned."""
        return [self.names[k] for k in self.artifact.predictor.learned]


def explain(path: Path, prompt: str | Messages, tools: Sequence[Any] | None = None) -> Explanation:
    """Explain what an artifact decides for a prompt.

    Raises:
        ArtifactError: the artifact is refused.
    """
    artifact, arrays = read_artifact(path)
    predictor, policy = artifact.predictor, artifact.policy
    asked = Prompt.of(prompt, tools)
    said, costs, stage = predictor.estimate_one(asked)
    p, usd = np.array(said), np.array(costs)
    answer = partial(_probabilities, predictor)
    if stage == 2 and predictor.second is not None:
        answer = partial(_with_first, predictor, asked)
        predictor = predictor.second.predictor
        arrays = {
            name.removeprefix(SECOND): a for name, a in arrays.items() if name.startswith(SECOND)
        }
    vector = predictor.vectorizer.vector(asked)
    chosen = int(policy.choose(p[None], usd[None])[0])
    references, words = read_references(arrays, predictor)
    contributions, points, p_reference = None, np.zeros(0), p
    alone: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    if predictor.learned:
        contributions = contribute(predictor, references, vector)
        p_reference = answer(contributions.base)
        points = _points(answer, predictor.learned, contributions)
        alone, together = _carriers(answer, contributions, policy, usd, chosen)
    near, near_rows, near_rate = _near(predictor, vector)
    return Explanation(
        artifact=artifact,
        chosen=chosen,
        p=p,
        usd=usd,
        p_reference=p_reference,
        reference=words,
        contributions=contributions,
        points=points,
        surface=vector.dense[: len(NAMES)],
        tokens=_tokens(predictor, asked.text, vector, contributions),
        near=near,
        near_rows=near_rows,
        near_rate=near_rate,
        stage=stage if artifact.predictor.second is not None else None,
        rivals=rivals(p, usd, policy) if policy.constant is None else (),
        alone=alone,
        together=together,
    )


def _probabilities(predictor: Predictor, margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of all tiers, float64[tiers], from margins of the learned ones."""
    left = iter(margins)
    return np.array(
        [
            float(head.calibration.probability(np.array([next(left)]))[0])
            if isinstance(head, Head)
            else head.probability
            for head in predictor.heads
        ]
    )


def _with_first(
    predictor: Predictor, asked: Prompt, margins: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The same of a second stage's margins, averaged with what the first says of the prompt."""
    assert predictor.second is not None
    first = predictor.probabilities(predictor.vectorizer.vector(asked))
    second = _probabilities(predictor.second.predictor, margins).tolist()
    return np.array(both(first, second, predictor.second.gate.share))


def _carriers(
    answer: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    contributions: Contributions,
    policy: Policy,
    usd: NDArray[np.float64],
    chosen: int,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts that carry the decision, alone or together; none under a constant policy."""
    if policy.constant is not None:
        return (), ()

    def lead(moved: NDArray[np.float64]) -> float:
        value = answer(contributions.margin + moved) - policy.mu * usd
        return float(value[chosen] - np.delete(value, chosen).max())

    pushes = {name: part.sum(axis=0) for name, part in contributions.by_group.items()}
    return flipping(pushes, lead)


def _points(
    answer: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    learned: list[int],
    contributions: Contributions,
) -> NDArray[np.float64]:
    """Slope of each learned tier's probability between the reference and the prompt."""
    low, high = contributions.base, contributions.margin
    high = np.where(np.abs(high - low) < 1e-6, low + 1e-6, high)
    return np.asarray((answer(high) - answer(low))[learned] / (high - low))


def _tokens(
    predictor: Predictor, text: str, vector: Vector, contributions: Contributions | None
) -> tuple[tuple[str, NDArray[np.float64]], ...]:
    """The known n-grams of the prompt in its own words, strongest first."""
    if contributions is None:
        return ()
    embedder = predictor.vectorizer.embedder
    ids = embedder.tokenize(text)
    kept = cut_tokens(np.arange(len(ids)))
    places = np.array(embedder.places(text), dtype=np.int64).reshape(-1, 2)[kept]
    single = [text[start:end] for start, end in places]
    pairs = [
        text[a[0] : b[1]] if b[0] - a[1] <= 1 else f"{text[a[0] : a[1]]} {text[b[0] : b[1]]}"
        for a, b in pairwise(places)
    ]
    named: dict[int, str] = {}
    for bucket, name in zip(buckets_of(ids[kept]).tolist(), [*single, *pairs], strict=True):
        named.setdefault(bucket, name)
    order = np.argsort(-np.abs(contributions.terms).max(axis=1), kind="stable")
    return tuple((named[int(vector.terms[i])], contributions.terms[i]) for i in order)


def _near(
    predictor: Predictor, vector: Vector
) -> tuple[tuple[dict[str, Any], ...], NDArray[np.float64], NDArray[np.float64]]:
    """The nearest prototypes, and all of them together by their weight."""
    near = predictor.neighbours
    names = [predictor.tiers[k].name for k in predictor.learned]
    kernel = near.kernel(vector.dense)
    likeness = near.centroids @ near.place(vector.dense)
    found = [
        {
            "likeness": float(likeness[i]),
            "weight": float(kernel[i]),
            "tiers": {
                name: {
                    "rows": float(near.rows[j, i]),
                    "mean_score": float(near.successes[j, i] / near.rows[j, i])
                    if near.rows[j, i]
                    else None,
                }
                for j, name in enumerate(names)
            },
        }
        for i in np.argsort(-kernel, kind="stable")[:MOST_PROTOTYPES]
    ]
    rows = near.rows @ kernel
    rate = (near.successes @ kernel + near.prior * near.mean) / (rows + near.prior)
    return tuple(found), rows, rate
