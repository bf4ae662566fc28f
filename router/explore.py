"""Trying another tier now and then, so that the log can tell what it would have answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Final

_DRAW: Final = SystemRandom().random  # the system's, so that no seed or fork repeats a draw


@dataclass(frozen=True, slots=True)
class Exploration:
    """How often to try, and where.

    Attributes:
        rate: share of the requests with another tier to try that try one, in [0, 1).
        down: whether cheaper tiers are tried, too; without it only dearer ones are.
    """

    rate: float
    down: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a rate outside [0, 1): at 1 the chosen tier would have no chance."""
        number = isinstance(self.rate, int | float) and not isinstance(self.rate, bool)
        if not (number and 0.0 <= self.rate < 1.0):
            raise ValueError(f"explore: a share in [0, 1) is needed, got {self.rate!r}")

    def try_another(self, chosen: int, allowed: Sequence[int]) -> tuple[int, float]:
        """The tier to serve, and the probability with which this tier is served.

        Args:
            chosen: what rules and policy say.
            allowed: the tiers that no rule took out; the others are never tried.
        """
        others = [tier for tier in allowed if tier > chosen or (self.down and tier < chosen)]
        if not others or not self.rate:
            return chosen, 1.0
        drawn = _DRAW()
        if drawn >= self.rate:
            return chosen, 1.0 - self.rate
        return others[int(drawn / self.rate * len(others))], self.rate / len(others)
