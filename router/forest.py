"""A boosted forest as flat arrays, evaluated without LightGBM.

QuickScorer (Lucchese et al., SIGIR 2015, doi 10.1145/2766462.2767733): every node whose test fails
(the row goes right) takes the leaves of its left side out of the running. Number a tree's leaves
from left to right, one bit each: the AND of the masks of all failed nodes leaves the exit leaf as
its lowest bit. All tests of all trees are one comparison; the ANDs are one `bitwise_and.reduceat`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_LEAVES: Final = 64
_ONE: Final = np.uint64(1)
# LightGBM's kZeroThreshold, a float32 constant: values this small are read as 0.
_ZERO: Final = float(np.float32(1e-35))


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees of at most 64 leaves, their nodes laid end to end, tree by tree.

    Attributes:
        feature: int32[nodes], the column a node tests.
        threshold: float64[nodes]; the row goes left where value <= threshold.
        nan_right: bool[nodes], where a missing value goes.
        mask: uint64[nodes], the leaves left in the running when the row goes right.
        first_node: int64[trees], ascending; the first node of each tree (no tree is empty).
        first_leaf: int64[trees], ascending; the first leaf of each tree.
        leaf: float64[leaves], log-odds.
        bias: log-odds of trees that are a single leaf, added up.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    nan_right: NDArray[np.bool_]
    mask: NDArray[np.uint64]
    first_node: NDArray[np.int64]
    first_leaf: NDArray[np.int64]
    leaf: NDArray[np.float64]
    bias: float

    def check(self, columns: int) -> None:
        """Hold the arrays to what `Trees` relies on.

        Args:
            columns: length of the rows it will get.

        Raises:
            ValueError: wrong dtype or shape, an index out of range, a value that is not finite.
        """
        expected = {
            "feature": np.int32,
            "threshold": np.float64,
            "nan_right": np.bool_,
            "mask": np.uint64,
            "first_node": np.int64,
            "first_leaf": np.int64,
            "leaf": np.float64,
        }
        for name, dtype in expected.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1:
                raise ValueError(f"forest: {name} must be {np.dtype(dtype)}[·]")
        nodes, trees, leaves = len(self.feature), len(self.first_node), len(self.leaf)
        if not (len(self.threshold) == len(self.nan_right) == len(self.mask) == nodes):
            raise ValueError("forest: node arrays differ in length")
        if len(self.first_leaf) != trees or (trees == 0) != (nodes == 0):
            raise ValueError("forest: tree arrays do not fit the nodes")
        if nodes and (self.feature.min() < 0 or self.feature.max() >= columns):
            raise ValueError(f"forest: a node tests a column outside 0…{columns - 1}")
        if (
            not (np.isfinite(self.leaf).all() and np.isfinite(self.bias))
            or np.isnan(self.threshold).any()
        ):
            raise ValueError("forest: a value is not finite")
        self._check_trees(nodes, leaves)

    def _check_trees(self, nodes: int, leaves: int) -> None:
        if not len(self.first_node):
            return
        node_counts = np.diff(self.first_node, append=nodes)
        leaf_counts = np.diff(self.first_leaf, append=leaves)
        if self.first_node[0] != 0 or self.first_leaf[0] != 0:
            raise ValueError("forest: the first tree does not start at 0")
        if (node_counts < 1).any() or (leaf_counts != node_counts + 1).any():
            raise ValueError("forest: a tree's leaves are not its nodes plus one")
        if (leaf_counts > MAX_LEAVES).any():
            raise ValueError(f"forest: a tree has more than {MAX_LEAVES} leaves")
        # The last leaf of a tree must survive every mask, or no bit would be left.
        last = _ONE << (np.repeat(leaf_counts, node_counts) - 1).astype(np.uint64)
        if not (self.mask & last).all():
            raise ValueError("forest: a mask takes a tree's last leaf out")


@dataclass(frozen=True, slots=True)
class Trees:
    """Forests laid end to end, to be evaluated in few calls of numpy: it is calls that take time.

    LightGBM reads values up to 1e-35 as 0. So that values need not be checked for that, thresholds
    within that range are moved to its edge, where they separate the same values. Attributes are
    those of `Forest`, but:

    Attributes:
        feature: intp[nodes].
        last_leaf: int64[trees], one before the first leaf of each tree.
    """

    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    nan_right: NDArray[np.bool_]
    mask: NDArray[np.uint64]
    first_node: NDArray[np.int64]
    last_leaf: NDArray[np.int64]
    leaf: NDArray[np.float64]

    @classmethod
    def of(cls, forests: Sequence[Forest]) -> "Trees":
        """The trees of one or more forests, in their order."""

        def joined(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(forest, name) for forest in forests])

        nodes, leaves = ([len(getattr(f, name)) for f in forests] for name in ("feature", "leaf"))
        trees = [len(forest.first_node) for forest in forests]
        threshold = joined("threshold")
        below = (threshold < 0.0) & (threshold >= -_ZERO)
        threshold[(threshold >= 0.0) & (threshold < _ZERO)] = _ZERO
        threshold[below] = np.nextafter(-_ZERO, -np.inf)
        return cls(
            feature=joined("feature").astype(np.intp),
            threshold=threshold,
            nan_right=joined("nan_right"),
            mask=joined("mask"),
            first_node=joined("first_node") + np.repeat(np.cumsum([0, *nodes[:-1]]), trees),
            last_leaf=joined("first_leaf") + np.repeat(np.cumsum([0, *leaves[:-1]]), trees) - 1,
            leaf=joined("leaf"),
        )

    def leaves(self, row: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
        """The exit leaf of each tree: with the forest's bias they add up to a row's log-odds.

        Args:
            row: float32/64[columns]; NaN counts as missing, infinities are ordered.

        Returns:
            float64[trees], log-odds.
        """
        if not len(self.first_node):
            return self.leaf[:0]
        values = row.astype(np.float64)
        tested = values[self.feature]
        right = tested > self.threshold
        if isnan(values.dot(values)):  # true only if a value is NaN, and quicker than np.isnan
            right = np.where(np.isnan(tested), self.nan_right, right)
        # Right is 1 − 1, no bit; left is 0 − 1, all bits. np.where would mispredict its branches.
        kept = self.mask | (right.astype(np.uint64) - _ONE)
        left_over = np.bitwise_and.reduceat(kept, self.first_node)
        exits = np.bitwise_count(left_over ^ (left_over - _ONE))  # bits up to the lowest, with it
        found: NDArray[np.float64] = self.leaf[self.last_leaf + exits]
        return found
