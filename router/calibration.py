"""From a head's margin to a probability: a monotone, piecewise linear map in log-odds."""

from bisect import bisect_left
from dataclasses import dataclass
from math import exp

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Calibration:
    """A rising broken line from margin to log-odds, extended beyond its ends.

    Knots are joined in log-odds, not in probability, so that no two margins share a probability and
    calibration never undoes the order that a head has found.

    Attributes:
        margin: float64[knots], strictly rising, two or more.
        logit: float64[knots], strictly rising.
    """

    margin: NDArray[np.float64]
    logit: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check the knots.

        Raises:
            ValueError: fewer than two knots, not finite, or not strictly rising.
        """
        if self.margin.ndim != 1 or self.margin.shape != self.logit.shape or len(self.margin) < 2:
            raise ValueError("calibration: two or more knots, as many margins as log-odds")
        if self.margin.dtype != np.float64 or self.logit.dtype != np.float64:
            raise ValueError("calibration: knots must be float64")
        if not (np.isfinite(self.margin).all() and np.isfinite(self.logit).all()):
            raise ValueError("calibration: a knot is not finite")
        if (np.diff(self.margin) <= 0).any() or (np.diff(self.logit) <= 0).any():
            raise ValueError("calibration: knots must rise strictly")

    def probability(self, margin: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities.

        Args:
            margin: float64[n], log-odds of the members combined.

        Returns:
            float64[n] in (0, 1).
        """
        segment = np.clip(np.searchsorted(self.margin, margin) - 1, 0, len(self.margin) - 2)
        slope = np.diff(self.logit) / np.diff(self.margin)
        logit = self.logit[segment] + slope[segment] * (margin - self.margin[segment])
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0))))

    def probability_of(self, margin: float) -> float:
        """`probability` of one margin, in plain floats: a tenth of its time. NaN stays NaN."""
        x, y = self.margin.tolist(), self.logit.tolist()
        i = min(max(bisect_left(x, margin) - 1, 0), len(x) - 2)
        logit = y[i] + (y[i + 1] - y[i]) / (x[i + 1] - x[i]) * (margin - x[i])
        return 1.0 / (1.0 + exp(-min(max(logit, -30.0), 30.0)))
