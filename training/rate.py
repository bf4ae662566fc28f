"""A share of some rows, and how sure it is."""

from dataclasses import dataclass
from math import nan

from scipy.stats import binomtest


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of n rows with its 95 % limits (Wilson, 1927); NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, hits: int, n: int) -> "Rate":
        """The share that so many hits are."""
        if n == 0:
            return cls(nan, nan, nan, 0)
        limits = binomtest(hits, n).proportion_ci(0.95, "wilson")
        return cls(hits / n, float(limits.low), float(limits.high), n)

    def as_json(self) -> dict[str, float]:
        """The share and its limits."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        """For people."""
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"
