"""A LightGBM booster as the flat arrays that `router.forest` evaluates."""

from typing import Any

import lightgbm as lgb
import numpy as np

from router.forest import MAX_LEAVES, Forest


class _Nodes:
    """Collects the nodes and leaves of all trees, in order."""

    def __init__(self) -> None:
        self.feature: list[int] = []
        self.threshold: list[float] = []
        self.nan_right: list[bool] = []
        self.mask: list[int] = []
        self.leaf: list[float] = []

    def walk(self, node: dict[str, Any], thresholds: list[float], leaves_before: int) -> int:
        """Add a subtree whose leftmost leaf has number `leaves_before`; return its leaves."""
        if "leaf_value" in node:
            self.leaf.append(float(node["leaf_value"]))
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
        left = self.walk(node["left_child"], thresholds, leaves_before)
        self.mask[place] = ((1 << 64) - 1) ^ (((1 << left) - 1) << leaves_before)
        return left + self.walk(node["right_child"], thresholds, leaves_before + left)


def flatten_booster(booster: lgb.Booster) -> Forest:
    """Flatten a booster of numerical splits.

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
    return Forest(
        feature=np.array(nodes.feature, dtype=np.int32),
        threshold=np.array(nodes.threshold, dtype=np.float64),
        nan_right=np.array(nodes.nan_right, dtype=np.bool_),
        mask=np.array(nodes.mask, dtype=np.uint64),
        first_node=np.array(first_node, dtype=np.int64),
        first_leaf=np.array(first_leaf, dtype=np.int64),
        leaf=np.array(nodes.leaf, dtype=np.float64),
        bias=bias,
    )


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
