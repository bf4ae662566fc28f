"""Two stages: which prompts are worth a second, slower reading, and what both then say."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, log1p
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SURE: Final = 1e-12  # a probability of 0 or 1 has no log-odds


@dataclass(frozen=True, slots=True)
class Gate:
    """Opens where the second stage's answer is expected to be worth its time.

    Where the second stage is asked, its log-odds are averaged with the first stage's. By the first
    stage alone, the best tier leads the next by some amount of ``p − mu · usd``; the second stage
    will change that lead by an error of scale s, which is predicted from the first stage's vector.
    If the error is logistic, asking gains ``s · log(1 + exp(−lead / s))`` of quality on average
    (the expected maximum of 0 and the rival's lead). A transformer's time is proportional to the
    tokens it reads, so the gate opens where that gain per token is above a floor.

    Attributes:
        weights: float64[dim], of log s on the first stage's dense vector.
        bias: of log s.
        low, high: bounds of s.
        share: weight of the second stage's log-odds, in (0, 1]; the first's have the rest.
        limit: number of tokens that the second stage reads at most.
        dials: float64[m], ascending.
        floors: float64[m], not negative, gain per token at each dial; between dials it is linear,
            beyond them constant.
    """

    weights: Floats
    bias: float
    low: float
    high: float
    share: float
    limit: float
    dials: Floats
    floors: Floats

    def check(self, dim: int) -> None:
        """Raise ValueError where a value does not fit `dim`, is not finite or out of order."""
        if self.weights.shape != (dim,) or not np.isfinite(self.weights).all():
            raise ValueError(f"gate: weights must be finite, of shape ({dim},)")
        if not (np.isfinite(self.bias) and 0.0 < self.low <= self.high < np.inf):
            raise ValueError("gate: the bias must be finite, and 0 < low ≤ high")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"gate: share {self.share!r} is not in (0, 1]")
        if not 1 <= self.limit < np.inf:
            raise ValueError(f"gate: limit {self.limit!r} is no number of tokens")
        if self.dials.ndim != 1 or not len(self.dials) or self.dials.shape != self.floors.shape:
            raise ValueError("gate: as many floors as dials, at least one")
        if not (np.isfinite(self.dials).all() and np.isfinite(self.floors).all()):
            raise ValueError("gate: a dial or a floor is not finite")
        if (np.diff(self.dials) <= 0).any() or (self.floors < 0).any():
            raise ValueError("gate: dials must rise, and no floor be below 0")

    def floor(self, mu: float) -> float:
        """The floor at a dial."""
        return float(np.interp(mu, self.dials, self.floors))

    def spread(self, dense: NDArray[np.float32]) -> float:
        """The scale s of one prompt, float32[dim]."""
        return min(
            max(exp(min(float(dense @ self.weights) + self.bias, 30.0)), self.low), self.high
        )

    def opens(
        self, value: Sequence[float], dense: NDArray[np.float32], tokens: float, floor: float
    ) -> bool:
        """Whether the second stage is to read a prompt.

        Args:
            value: p − mu · usd of each tier, by the first stage.
            dense: float32[dim], its vector.
            tokens: of the text.
            floor: at the dial, see `floor`.
        """
        first, second = sorted(value)[-1:-3:-1]
        return gain(first - second, self.spread(dense)) > floor * min(max(tokens, 1.0), self.limit)


def both(first: Sequence[float], second: Sequence[float], share: float) -> list[float]:
    """P(tier suffices) by both stages: their log-odds averaged, the second's with weight share."""
    pairs = zip(first, second, strict=True)
    odds = [(1.0 - share) * _log_odds(one) + share * _log_odds(other) for one, other in pairs]
    return [1.0 / (1.0 + exp(-value)) for value in odds]


def _log_odds(p: float) -> float:
    p = min(max(p, _SURE), 1.0 - _SURE)  # NaN stays NaN
    return log(p / (1.0 - p))


def gain(lead: float, spread: float) -> float:
    """Expected gain of asking: the mean of max(0, x) for x logistic around −lead, scale spread."""
    return spread * log1p(exp(-lead / spread))
