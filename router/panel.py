"""The linear members and the forests of all tiers, evaluated side by side.

Evaluated head by head, a prompt would cost a dozen calls of numpy per head, which take longer than
the arithmetic, and for each n-gram a cache miss in each tier's table. Side by side it costs a dozen
calls in all, and each n-gram is one row of one table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from router.forest import Trees
from router.head import Head
from router.vectorizer import Vector


@dataclass(frozen=True, slots=True)
class Panel:
    """Members of k heads.

    Attributes:
        weights: float64[k, dim]; low, high: float32[k, dim]; bias: float64[k]; terms:
            float32[BUCKETS, k]: as of `router.head.Linear`.
        forest: all trees, head by head.
        trees: where in it each head's trees begin and end.
        forest_bias: what each head's forest adds to its trees, log-odds.
    """

    weights: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    terms: NDArray[np.float32]
    bias: NDArray[np.float64]
    forest: Trees
    trees: tuple[tuple[int, int], ...]
    forest_bias: tuple[float, ...]

    @classmethod
    def of(cls, heads: Sequence[Head]) -> "Panel":
        """Put the members of one or more heads side by side."""
        linears, forests = [head.linear for head in heads], [head.forest for head in heads]
        ends = np.cumsum([0, *(len(forest.first_node) for forest in forests)]).tolist()
        return cls(
            weights=np.stack([linear.weights for linear in linears]),
            low=np.stack([linear.low for linear in linears]),
            high=np.stack([linear.high for linear in linears]),
            terms=np.stack([linear.terms for linear in linears], axis=1),
            bias=np.array([linear.bias for linear in linears]),
            forest=Trees.of(forests),
            trees=tuple(pairwise(ends)),
            forest_bias=tuple(forest.bias for forest in forests),
        )

    def linear_margins(self, vector: Vector) -> list[float]:
        """Log-odds of one prompt by each head's linear member."""
        inside = np.minimum(np.maximum(vector.dense, self.low), self.high).astype(np.float64)
        margins = np.vecdot(inside, self.weights)
        margins += vector.weights.dot(self.terms.take(vector.terms, axis=0))
        found: list[float] = (margins + self.bias).tolist()
        return found

    def forest_margins(self, row: NDArray[np.float32]) -> list[float]:
        """Log-odds of one row, float32[dim], by each head's forest."""
        leaves = self.forest.leaves(row)
        ends = zip(self.trees, self.forest_bias, strict=True)
        return [float(leaves[first:last].sum()) + bias for (first, last), bias in ends]
