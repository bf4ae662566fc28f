"""A LightGBM booster as the flat arrays that `router.forest` evaluates, and back again.

What serving does not need, but people who ask why do (how many rows reached a leaf, how much a
split gained), stays beside the arrays as a `Growth`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from router.forest import MAX_LEAVES, Forest


@dataclass(frozen=True, slots=True)
class Growth:
    """How a forest grew, for explanations; nothing that a decision needs.

    Attributes:
        rows: int64[leaves], fitting rows that reached each leaf.
        gain: float32[nodes], loss that each split took off.
    """

    rows: NDArray[np.int64]
    gain: NDArray[np.float32]

    @classmethod
    def unknown(cls, forest: Forest) -> "Growth":
        """Where nobody kept it: every leaf alike, no gain."""
        return cls(np.ones(len(forest.leaf), np.int64), np.zeros(len(forest.feature), np.float32))

    def check(self, forest: Forest) -> None:
        """Raise ValueError where the arrays are not of this forest."""
        if self.rows.shape != forest.leaf.shape or self.gain.shape != forest.feature.shape:
            raise ValueError("growth: the arrays do not fit the forest")
        if self.rows.dtype != np.int64 or (self.rows < 1).any() or not np.isfinite(self.gain).all():
            raise ValueError("growth: rows must be int64, 1 or more, and gains finite")


class _Nodes:
    """Collects the nodes and leaves of all trees, in order."""

    def __init__(self) -> None:
        self.feature: list[int] = []
        self.threshold: list[float] = []
        self.nan_right: list[bool] = []
        self.mask: list[int] = []
        self.leaf: list[float] = []
        self.rows: list[int] = []
        self.gain: list[float] = []

    def walk(self, node: dict[str, Any], thresholds: list[float], leaves_before: int) -> int:
        """Add a subtree whose leftmost leaf has number `leaves_before`; return its leaves."""
        if "leaf_value" in node:
            self.leaf.append(float(node["leaf_value"]))
            self.rows.append(int(node["leaf_count"]))
            return 1
        if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            raise ValueError(f"forest: cannot export a {node['decision_type']} node")
        place = len(self.feature)
        threshold = thresholds[node["split_index"]]
        self.feature.append(int(node["split_feature"]))
        self.threshold.append(threshold)
        keeps_missing = node["missing_type"] == "NaN"
        self.nan_right.append(not node["default_left"] if keeps_missing else threshold < 0.0)
        self.mask.append(0)
        self.gain.append(float(node["split_gain"]))
        left = self.walk(node["left_child"], thresholds, leaves_before)
        self.mask[place] = ((1 << 64) - 1) ^ (((1 << left) - 1) << leaves_before)
        return left + self.walk(node["right_child"], thresholds, leaves_before + left)


def flatten(booster: lgb.Booster) -> tuple[Forest, Growth]:
    """Flatten a booster of numerical splits for `router`, and keep how it grew.

    Raises:
        ValueError: a categorical split, zero as missing, or a tree of more than 64 leaves.
    """
    nodes, first_node, first_leaf, bias = _Nodes(), [], [], 0.0
    thresholds = _thresholds(booster)
    for tree in booster.dump_model(num_iteration=-1)["tree_info"]:
        root, exact = tree["tree_structure"], thresholds[tree["tree_index"]]
        if "leaf_value" in root:
            bias += float(root["leaf_value"])
            continue
        if tree["num_leaves"] > MAX_LEAVES:
            raise ValueError(f"forest: a tree has {tree['num_leaves']} leaves, {MAX_LEAVES} fit")
        first_node.append(len(nodes.feature))
        first_leaf.append(len(nodes.leaf))
        nodes.walk(root, exact, 0)
    forest = Forest(
        feature=np.array(nodes.feature, dtype=np.int32),
        threshold=np.array(nodes.threshold, dtype=np.float64),
        nan_right=np.array(nodes.nan_right, dtype=np.bool_),
        mask=np.array(nodes.mask, dtype=np.uint64),
        first_node=np.array(first_node, dtype=np.int64),
        first_leaf=np.array(first_leaf, dtype=np.int64),
        leaf=np.array(nodes.leaf, dtype=np.float64),
        bias=bias,
    )
    rows, gain = np.array(nodes.rows, dtype=np.int64), np.array(nodes.gain, dtype=np.float32)
    return forest, Growth(rows, gain)


def restore_booster(forest: Forest, growth: Growth, columns: int) -> lgb.Booster:
    """The inverse of `flatten`: a booster that predicts the same margins and knows `pred_contrib`.

    Its gains and its path-dependent SHAP values (Lundberg et al. 2018, arXiv:1802.03888) are those
    of the original: TreeSHAP weighs branches by the fitting rows that took them.

    Args:
        columns: length of the rows it will get.

    Raises:
        ValueError: `growth` is not of this forest.
    """
    growth.check(forest)
    header = {
        "version": "v4",
        "num_class": 1,
        "num_tree_per_iteration": 1,
        "label_index": 0,
        "max_feature_idx": columns - 1,
        "objective": "regression",
        "feature_names": " ".join(f"Column_{i}" for i in range(columns)),
        "feature_infos": " ".join(["[-inf:inf]"] * columns),
    }
    trees = [*_trees(forest, growth), {"num_leaves": 1, "leaf_value": forest.bias}]
    blocks = [header, *({"Tree": i, **tree, "num_cat": 0} for i, tree in enumerate(trees))]
    text = "\n\n".join(map(_text, blocks))
    return lgb.Booster(model_str=f"tree\n{text}\n\nend of trees\n")


def _trees(forest: Forest, growth: Growth) -> Iterator[dict[str, Any]]:
    """LightGBM's fields of each tree."""
    edges = np.append(forest.first_node, len(forest.feature)).tolist()
    trees = zip(edges[:-1], edges[1:], forest.first_leaf.tolist(), strict=True)
    for first, end, leaf in trees:
        nodes, leaves = slice(first, end), slice(leaf, leaf + end - first + 1)
        left, right, counts = _shape(forest.mask[nodes], growth.rows[leaves])
        yield {
            "num_leaves": end - first + 1,
            "split_feature": forest.feature[nodes],
            "split_gain": growth.gain[nodes],
            "threshold": forest.threshold[nodes],
            # 8: a missing value goes the node's default way; 2: which is left.
            "decision_type": np.where(forest.nan_right[nodes], 8, 10),
            "left_child": left,
            "right_child": right,
            "leaf_value": forest.leaf[leaves],
            "leaf_count": growth.rows[leaves],
            "internal_count": counts,
        }


def _shape(
    mask: NDArray[np.uint64], rows: NDArray[np.int64]
) -> tuple[list[int], list[int], list[int]]:
    """Left child, right child (leaf i as ~i) and rows of each node of one tree.

    Nodes stand in preorder and leaves from left to right, so how many leaves a node has on its left
    side (the bits that its mask takes out) says where everything is.
    """
    left: list[int] = []
    right: list[int] = []
    counts: list[int] = []
    below = {0: (0, len(rows))}  # the leaves under a node
    for node, on_left in enumerate(np.bitwise_count(~mask).tolist()):
        start, end = below[node]
        middle = start + on_left
        if not start < middle < end:
            raise ValueError("forest: the masks are not those of a tree")
        if on_left > 1:
            below[node + 1] = (start, middle)
        if end - middle > 1:
            below[node + on_left] = (middle, end)
        left.append(node + 1 if on_left > 1 else ~start)
        right.append(node + on_left if end - middle > 1 else ~middle)
        counts.append(int(rows[start:end].sum()))
    return left, right, counts


def _text(fields: Mapping[str, Any]) -> str:
    """Lines of LightGBM's text format, numbers with all their digits."""
    return "\n".join(f"{name}={_joined(value)}" for name, value in fields.items())


def _joined(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(map(repr, np.ravel(value).tolist()))


def _thresholds(booster: lgb.Booster) -> list[list[float]]:
    """Thresholds of each tree, by split index, as LightGBM's own text format keeps them.

    `dump_model` moves what lies beyond ±1e300 to there: +inf and −1.8e308 are thresholds that
    infinite and missing values in the training rows lead to.
    """
    found: list[list[float]] = []
    for line in booster.model_to_string(num_iteration=-1).splitlines():
        if line.startswith("Tree="):
            found.append([])
        elif line.startswith("threshold="):
            found[-1] = [float(text) for text in line.removeprefix("threshold=").split()]
    return found
