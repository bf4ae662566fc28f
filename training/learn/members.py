"""What the members of a head share: the vectors they are fitted on and the recipe they follow.

Each has its file: `linear`, `trees`, `prototypes`. Their `*_margins` give the margins that `router`
serves for many rows at once, for cross-fitting.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from router.vectorizer import Vector


@dataclass(frozen=True, slots=True)
class Matrix:
    """Vectors of n prompts.

    Attributes:
        dense: float32[n, dim].
        terms: sparse float64[n, BUCKETS], TF-IDF weights.
        tokens: float64[n], counted input tokens.
        read: float32[n, learned tiers], margins by the fine-tuned encoder, NaN for rows that it
            was trained on; float32[n, 0] where there is no encoder.
    """

    dense: NDArray[np.float32]
    terms: sparse.csr_matrix
    tokens: NDArray[np.float64]
    read: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> "Matrix":
        """The vectors at `rows`, int64[m]."""
        return Matrix(self.dense[rows], self.terms[rows], self.tokens[rows], self.read[rows])

    def vectors(self) -> Iterator[Vector]:
        """The rows as serving sees them."""
        starts = self.terms.indptr
        rows = zip(self.dense, self.tokens, self.read, strict=True)
        for i, (dense, tokens, read) in enumerate(rows):
            known = slice(starts[i], starts[i + 1])
            terms = self.terms.indices[known], self.terms.data[known]
            yield Vector(dense, *terms, float(tokens), read)


@dataclass(frozen=True, slots=True)
class Ridge:
    """The linear member's penalty.

    Attributes:
        c: inverse strength for the n-grams, whose rows have length one.
        dense: factor on the standardised dense features. Below 1 it penalises them more than the
            n-grams, so that a few broad directions do not outweigh these.
    """

    c: float
    dense: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a search may change: the labels learned from, LightGBM's parameters, the ridges.

    Attributes:
        learning_rate, num_leaves, feature_fraction, lambda_l2: LightGBM's.
        ridges: the linear member's penalties for the level that tiers share; one is chosen.
        gap_ridges: those of them that are averaged for the tiers' deviations from it.
        firm_only: weak labels (what users did next) are not learned from.
        sufficed_at: members learn whether the score is at least this instead of the score; their
            weights and the calibration remain the score's, so a head estimates the same.
    """

    learning_rate: float = 0.06
    num_leaves: int = 15
    feature_fraction: float = 0.3
    lambda_l2: float = 5.0
    ridges: tuple[Ridge, ...] = (
        Ridge(0.3, 1 / 40),
        Ridge(1.0, 1 / 40),
        Ridge(3.0, 1 / 40),
        Ridge(1.0, 1 / 80),
    )
    gap_ridges: tuple[Ridge, ...] = (
        Ridge(0.3, 1 / 40),
        Ridge(1.0, 1 / 40),
        Ridge(1.0, 1 / 80),
    )
    firm_only: bool = False
    sufficed_at: float | None = None

    @property
    def forest(self) -> dict[str, float]:
        """The parameters that LightGBM takes."""
        names = ("learning_rate", "num_leaves", "feature_fraction", "lambda_l2")
        return {name: getattr(self, name) for name in names}

    def target(self, score: NDArray[np.float64], firm: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What members learn, float64[n, k]; weak scores, which are chances, stay as they are."""
        if self.sufficed_at is None:
            return score
        sure = firm & ~np.isnan(score)
        return np.where(sure, score >= self.sufficed_at, score)


STANDARD = Recipe()
