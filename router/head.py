"""The heads: each tier's members, how they are combined, and P(this tier suffices)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router.calibration import Calibration
from router.forest import Forest
from router.ngrams import BUCKETS

MEMBERS: Final = ("linear", "forest", "neighbours", "encoder")  # the last where there is one


@dataclass(frozen=True, slots=True)
class Linear:
    """A regularised linear model on the dense vector and on all n-grams (see `router.panel`).

    Attributes:
        weights: float64[dim], log-odds per unit of the raw feature.
        terms: float32[BUCKETS], log-odds per unit of a term's TF-IDF weight.
        bias: log-odds at zero.
        low: float32[dim], smallest value seen in training.
        high: float32[dim], largest; values outside are clipped to this range.
    """

    weights: NDArray[np.float64]
    terms: NDArray[np.float32]
    bias: float
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def check(self, dim: int) -> None:
        """Raise ValueError where shapes do not fit `dim` or a value is not finite."""
        shapes = {"weights": (dim,), "low": (dim,), "high": (dim,), "terms": (BUCKETS,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"linear: {name} must be finite, of shape {shape}")
        if not np.isfinite(self.bias) or (self.low > self.high).any():
            raise ValueError("linear: the bias is not finite, or low is above high")


@dataclass(frozen=True, slots=True)
class Head:
    """One tier's own members and calibration; neighbours and encoder are shared by the tiers.

    Attributes:
        linear, forest: members.
        calibration: combined margin → probability.
    """

    linear: Linear
    forest: Forest
    calibration: Calibration

    def check(self, dim: int) -> None:
        """Raise ValueError where a member does not fit vectors of length `dim`."""
        self.linear.check(dim)
        self.forest.check(dim)


@dataclass(frozen=True, slots=True)
class Constant:
    """A tier whose scores do not vary, or that is assumed to suffice.

    Attributes:
        probability: what is answered for every prompt.
    """

    probability: float

    def check(self, dim: int) -> None:
        """Raise ValueError where the number is not a probability."""
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"head: constant {self.probability!r} is not a probability")


@dataclass(frozen=True, slots=True)
class Blend:
    """How much each member counts, for the level and for the gaps between tiers.

    A member that knows how hard a prompt is need not know which tiers differ on it, and routing
    depends on the difference. So a tier's margin is a weighted mean of all tiers' margins plus a
    separately weighted deviation of this tier's margins from that mean:
    ``sum_m level[m] · mean_j margin[m, j] + gap[m] · (margin[m, k] − mean_j margin[m, j])``.

    Attributes:
        level: float64[members], not negative.
        gap: float64[members], not negative.
    """

    level: NDArray[np.float64]
    gap: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Raise ValueError for weights that are negative, not finite, or not one per member."""
        for weights in (self.level, self.gap):
            if weights.ndim != 1 or not 1 <= len(weights) == len(self.level) <= len(MEMBERS):
                raise ValueError("blend: level and gap need a weight for each member")
            if not np.isfinite(weights).all():
                raise ValueError("blend: a weight is not finite")
            if (weights < 0).any():
                raise ValueError("blend: a weight is negative")

    def combine(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Combine members.

        Args:
            margins: float64[members, ..., tiers], log-odds.

        Returns:
            float64[..., tiers].
        """
        return blended(self.level, self.gap, margins)

    def combine_one(self, margins: Sequence[Sequence[float]]) -> list[float]:
        """`combine` for one prompt, [members][tiers], in plain floats: a tenth of its time."""
        shared, own = 0.0, [0.0] * len(margins[0])
        for level, gap, row in zip(self.level.tolist(), self.gap.tolist(), margins, strict=True):
            shared += (level - gap) * (sum(row) / len(row))
            own = [total + gap * margin for total, margin in zip(own, row, strict=True)]
        return [shared + total for total in own]


def blended(
    level: NDArray[np.float64], gap: NDArray[np.float64], margins: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """`Blend.combine` of any number of members, so of one member's fits, too.

    Args:
        level, gap: float64[members].
        margins: [members, ..., tiers], log-odds, or anything linear in them, such as weights.

    Returns:
        float64[..., tiers].
    """
    mean = margins.mean(axis=-1, keepdims=True)
    return np.asarray(np.tensordot(level, mean, axes=1) + np.tensordot(gap, margins - mean, axes=1))
