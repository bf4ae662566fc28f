"""Goals: what an operating point is to achieve; a job is given exactly one.

Two carry a promise that the choose rows must certify (`MinQuality`, `MaxBadDowngrade`); the others
say what to spend (`MaxCost`, `TopShare`) or what quality is worth (`Value`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from router.hints import hint
from training.errors import BadInput


@dataclass(frozen=True, slots=True)
class MinQuality:
    """Keep mean quality at `share` of the top tier's, shown with `confidence` (one-sided)."""

    share: float = 0.99
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Raise BadInput for a share or a confidence that no policy can mean."""
        _check("min_quality", self.share, 0.0 < self.share <= 1.0, "(0, 1]")
        _check_confidence(self.confidence)


@dataclass(frozen=True, slots=True)
class MaxBadDowngrade:
    """Keep the rate of bad downgrades at most `rate`, shown with `confidence` (one-sided).

    Bad: sent to a cheaper tier, that tier failed, and the top tier would have sufficed; the rate is
    over all traffic. With `or_constant` a constant tier that is as good on average and not dearer
    is taken although it breaks the limit.
    """

    rate: float
    confidence: float = 0.95
    or_constant: bool = False

    def __post_init__(self) -> None:
        """Raise BadInput for a rate or a confidence that no policy can mean."""
        _check("max_bad_downgrade", self.rate, 0.0 < self.rate < 1.0, "(0, 1)")
        _check_confidence(self.confidence)


@dataclass(frozen=True, slots=True)
class MaxCost:
    """Spend at most this many USD per 1,000 requests, as well as the router can."""

    usd_per_1k: float

    def __post_init__(self) -> None:
        """Raise BadInput for an amount that is not above 0."""
        _check("max_cost_usd_per_1k", self.usd_per_1k, self.usd_per_1k > 0.0, "(0, ∞)")


@dataclass(frozen=True, slots=True)
class TopShare:
    """Send at most this share of requests to the top tier, those where it gains the most."""

    share: float

    def __post_init__(self) -> None:
        """Raise BadInput for a share outside [0, 1]."""
        _check("top_share", self.share, 0.0 <= self.share <= 1.0, "[0, 1]")


@dataclass(frozen=True, slots=True)
class Value:
    """Maximise value − cost, with no threshold at all.

    Attributes:
        usd_per_point: what a score higher by 0.01 is worth on one request, USD; an answer that is
            right instead of wrong (score 1 instead of 0) is worth 100 times that.
    """

    usd_per_point: float

    def __post_init__(self) -> None:
        """Raise BadInput for an amount that is not above 0, or of which nothing is left."""
        _check("value_usd_per_point", self.usd_per_point, self.usd_per_point >= 1e-12, "[1e-12, ∞)")

    @property
    def mu(self) -> float:
        """The dial: quality (a score) for a dollar."""
        return 1.0 / (100.0 * self.usd_per_point)


Goal = MinQuality | MaxBadDowngrade | MaxCost | TopShare | Value

# name in files and on the command line → goal and its first attribute
_GOALS: dict[str, tuple[type[Goal], str]] = {
    "min_quality": (MinQuality, "share"),
    "max_bad_downgrade": (MaxBadDowngrade, "rate"),
    "max_cost_usd_per_1k": (MaxCost, "usd_per_1k"),
    "top_share": (TopShare, "share"),
    "value_usd_per_point": (Value, "usd_per_point"),
}
NAMES = tuple(_GOALS)
KEYS = (*NAMES, "confidence", "or_constant")


def parse_goal(values: Mapping[str, Any], place: str) -> Goal:
    """The one goal that `values` name, ``min_quality`` where they name none.

    Args:
        values: numbers (and ``or_constant``, a boolean) under `KEYS`.
        place: where they come from, for messages, e.g. ``--policy``.

    Raises:
        BadInput: an unknown key (with the nearest known one), more than one goal, a key that its
            goal does not take, or a value outside its range.
    """
    for key, value in values.items():
        if key not in KEYS:
            raise BadInput(f"{place}: unknown key {key!r}{hint(key, KEYS)}")
        wanted, kinds = ("true or false", bool) if key == "or_constant" else ("a number", float)
        fits = isinstance(value, bool) if kinds is bool else _is_number(value)
        if not fits:
            raise BadInput(f"{place}: {key} must be {wanted}, got {value!r}")
    named = [key for key in values if key in _GOALS]
    if len(named) > 1:
        raise BadInput(f"{place}: {' and '.join(named)}: choose one goal")
    kind, attribute = _GOALS[named[0]] if named else (MinQuality, "share")
    given = {attribute if key in _GOALS else key: value for key, value in values.items()}
    extra = sorted(set(given) - set(kind.__dataclass_fields__))
    if extra:
        raise BadInput(f"{place}: {_goal_name(kind)} takes no {' and no '.join(extra)}")
    return kind(**given)


def goal_as_dict(goal: Goal) -> dict[str, Any]:
    """The goal as `parse_goal` reads it, for the manifest."""
    kind, attribute = _GOALS[_goal_name(type(goal))]
    values = asdict(goal)
    return {_goal_name(kind): values.pop(attribute), **values}


def _goal_name(kind: type[Goal]) -> str:
    """What files and the command line call a goal."""
    return next(name for name, (known, _) in _GOALS.items() if known is kind)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(name: str, value: float, fits: bool, interval: str) -> None:
    if not (fits and isfinite(value)):
        raise BadInput(f"policy {name} must be in {interval}, got {value}")


def _check_confidence(value: float) -> None:
    _check("confidence", value, 0.5 <= value < 1.0, "[0.5, 1)")
