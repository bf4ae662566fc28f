"""The linear members and the forests of all tiers, evaluated side by side.

Of each head alone a prompt costs a dozen calls of numpy, which take longer than the arithmetic, and
a cache miss in each tier's table for each n-gram. Here it is one dozen, and one row of a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from router.forest import Forest
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
        level: what each forest adds to its trees.
    """

    weights: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    terms: NDArray[np.float32]
    bias: NDArray[np.float64]
    forest: Forest
    trees: tuple[tuple[int, int], ...]
    level: tuple[float, ...]

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
            forest=_joined(forests),
            trees=tuple(pairwise(ends)),
            level=tuple(forest.bias for forest in forests),
        )

    def linear_margins(self, vector: Vector) -> list[float]:
        """Log-odds of one prompt by each head's linear member."""
        inside = np.minimum(np.maximum(vector.dense, self.low), self.high).astype(np.float64)
        margins = np.vecdot(inside, self.weights) + vector.weights @ self.terms[vector.terms]
        found: list[float] = (margins + self.bias).tolist()
        return found

    def forest_margins(self, row: NDArray[np.float32]) -> list[float]:
        """Log-odds of one row, float32[dim], by each head's forest."""
        leaves = self.forest.leaves(row)
        ends = zip(self.trees, self.level, strict=True)
        return [float(leaves[first:last].sum()) + level for (first, last), level in ends]


def _joined(forests: Sequence[Forest]) -> Forest:
    """The trees of all forests as one, in their order."""
    nodes = np.cumsum([0, *(len(forest.feature) for forest in forests)])
    leaves = np.cumsum([0, *(len(forest.leaf) for forest in forests)])
    own = ("feature", "threshold", "nan_right", "mask", "leaf")
    arrays = {name: np.concatenate([getattr(one, name) for one in forests]) for name in own}
    for name, starts in (("first_node", nodes), ("first_leaf", leaves)):
        moved = [getattr(one, name) + start for one, start in zip(forests, starts, strict=False)]
        arrays[name] = np.concatenate(moved)
    arrays["feature"] = arrays["feature"].astype(np.intp)  # numpy would do so for each prompt
    return replace(forests[0], bias=0.0, **arrays)
