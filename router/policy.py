"""One dial: how much quality a dollar saved is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Promise:
    """What an operating point was chosen to hold, and how surely.

    Attributes:
        rule: ``"min_quality"`` (at least `target` of the top tier's mean quality) or
            ``"max_bad_downgrade"`` (at most `target` of all requests go to a tier that fails where
            the top tier suffices).
        target: the rule's value, e.g. 0.99 or 0.02.
        confidence: one-sided, e.g. 0.95.
        n: independent units (sessions, else requests) that it was certified on.
        estimate: the rate on those rows, in the rule's unit, a session counting once.
        bound: its confidence limit, same unit: a lower one for ``min_quality``, else an upper one.
        certified: whether the promise holds.
        test: what the limit rests on, e.g. ``"exact binomial"`` or ``"betting"``.
    """

    rule: str
    target: float
    confidence: float
    n: int
    estimate: float
    bound: float
    certified: bool
    test: str = "betting"

    def __post_init__(self) -> None:
        """Raise ValueError for a value of another type or outside its range."""
        numbers = (self.target, self.confidence, self.estimate, self.bound)
        if not all(type(number) in (float, int) and isfinite(number) for number in numbers):
            raise ValueError(f"promise: finite numbers are needed, got {numbers}")
        if not (0.0 <= self.target <= 1.0 and 0.0 < self.confidence < 1.0):
            raise ValueError(
                f"promise: target {self.target!r} or confidence {self.confidence!r} out of range"
            )
        if type(self.n) is not int or self.n < 0:
            raise ValueError(f"promise: n must be a count, got {self.n!r}")
        if type(self.certified) is not bool:
            raise ValueError(f"promise: certified must be true or false, got {self.certified!r}")
        if type(self.rule) is not str or type(self.test) is not str:
            raise ValueError("promise: rule and test must be texts")


@dataclass(frozen=True, slots=True)
class Policy:
    """Which tier a prompt goes to: argmax over tiers of P(suffices) − mu · expected USD.

    With two tiers that is expected gain per expected extra dollar against a threshold; with more it
    needs no ladder, and dominated tiers drop out by themselves.

    Attributes:
        mu: quality (a probability) given up per dollar; unused with `constant`. A negative dial
            rewards spending; it lies between argmax p (at 0) and always-top, and downgrades only
            where a cheaper tier is clearly likelier to suffice.
        constant: index of the one tier that every prompt gets, or None.
        promise: what the chosen point promises, or None.
        why: in words, how the point was chosen.
    """

    mu: float
    constant: int | None = None
    promise: Promise | None = None
    why: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a dial that is not finite."""
        if not isfinite(self.mu):
            raise ValueError(f"policy: mu must be finite, got {self.mu!r}")

    def choose(self, p: NDArray[np.float64], usd: NDArray[np.float64]) -> NDArray[np.int64]:
        """Tiers of many prompts at once.

        Args:
            p: float64[n, tiers] probabilities.
            usd: float64[n, tiers] expected costs, USD.

        Returns:
            int64[n], indices of tiers; where several are equally good, the cheapest of them.
        """
        if self.constant is not None:
            return np.full(len(p), self.constant, dtype=np.int64)
        return np.asarray(np.argmax(p - self.mu * usd, axis=1), dtype=np.int64)

    def choose_one(self, p: Sequence[float], usd: Sequence[float]) -> int:
        """The tier of one prompt: exactly what `choose` says."""
        if self.constant is not None:
            return self.constant
        worth = [chance - self.mu * cost for chance, cost in zip(p, usd, strict=True)]
        return worth.index(max(worth))

    def choose_among(self, p: Sequence[float], usd: Sequence[float], allowed: Sequence[int]) -> int:
        """The best of the `allowed` tiers, indices in ascending order.

        Where the policy is one constant tier: the lowest of them from that tier up, else the
        highest.
        """
        if self.constant is not None:
            above = [tier for tier in allowed if tier >= self.constant]
            return above[0] if above else allowed[-1]
        return max(allowed, key=lambda tier: (p[tier] - self.mu * usd[tier], -tier))

    def to_dict(self) -> dict[str, Any]:
        """The policy as JSON values, as kept in the manifest."""
        promise = self.promise
        return {
            "mu": self.mu,
            "constant": self.constant,
            "why": self.why,
            "promise": None
            if promise is None
            else {name: getattr(promise, name) for name in Promise.__dataclass_fields__},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], tiers: int) -> "Policy":
        """Read what `to_dict` wrote.

        Raises:
            ValueError, KeyError, TypeError: a key is missing or a value is not what it should be.
        """
        constant, promise = values["constant"], values["promise"]
        if constant is not None and not (type(constant) is int and 0 <= constant < tiers):
            raise ValueError(f"policy: constant {constant!r} is not one of {tiers} tiers")
        mu, why = values["mu"], values["why"]
        if type(mu) not in (float, int) or type(why) is not str:
            raise ValueError(f"policy: mu must be a number and why a text, got {mu!r}, {why!r}")
        if not (promise is None or isinstance(promise, dict)):
            raise ValueError(f"policy: promise must be an object or null, got {promise!r}")
        read = None if promise is None else Promise(**promise)
        return cls(float(mu), constant, read, why)
