"""Is the router better than what it has to beat: by how much, and how sure?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Final

from training.measure.intervals import Interval

YES, NO, OPEN, SAME, UNDEFINED = "yes", "no", "not shown", "the same", "does not exist"


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure that methods are compared by.

    Attributes:
        words: what it is called.
        more_is_better: whether a larger one is.
        form: the format specification that prints it.
        factor: what it is multiplied by before it is printed.
    """

    words: str
    more_is_better: bool
    form: str
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The router against one rival in one measure; `difference` is router minus rival."""

    rival: str
    measure: Measure
    difference: Interval

    @property
    def answer(self) -> str:
        """Whether the router is better, as far as the 95 % interval shows."""
        low, high = self.difference.low, self.difference.high
        if not isfinite(self.difference.value):
            return UNDEFINED
        if isnan(low) or isnan(high):
            return OPEN
        if low == high == 0.0:
            return SAME
        if not self.measure.more_is_better:
            low, high = -high, -low
        if low > 0:
            return YES
        return NO if high < 0 else OPEN

    @property
    def shown(self) -> tuple[str, str]:
        """The difference and its 95 % limits, as texts."""
        found, scale, form = self.difference, self.measure.factor, self.measure.form
        value, low, high = (f"{scale * x:{form}}" for x in (found.value, found.low, found.high))
        known = not (isnan(found.low) or isnan(found.high))
        return "–" if isnan(found.value) else value, f"{low} to {high}" if known else "unknown"


AT_POINT: Final = {
    "quality": Measure("quality at the chosen point", True, "+.4f"),
    "cost_usd": Measure("USD per 1,000 at the chosen point", False, "+.4f", 1000.0),
}
ALONG_CURVE: Final = {
    "apgr": Measure("APGR", True, "+.3f"),
    "apgr_cost": Measure("APGR by cost", True, "+.3f"),
    "saving_99": Measure("saving at 99 % of the quality", True, "+.2f"),
    "aiq": Measure("AIQ", True, "+.4f"),
}
MATCHED: Final = Measure("quality, same share to each tier", True, "+.4f")


def comparisons(
    policy: Mapping[str, Interval], against: Mapping[str, Mapping[str, Interval]]
) -> tuple[Comparison, ...]:
    """All comparisons of a report: the chosen point with fixed choices, the curve with curves.

    policy: figures of the chosen point. against: {rival: {metric: Interval}}, router minus rival.
    """
    return tuple(_all(policy, against))


def _all(
    policy: Mapping[str, Interval], against: Mapping[str, Mapping[str, Interval]]
) -> Iterator[Comparison]:
    yield Comparison("matched random", MATCHED, policy["above_random"])
    for measures in (AT_POINT, ALONG_CURVE):
        for rival, metrics in against.items():
            for metric, measure in measures.items():
                if metric in metrics and isfinite(metrics[metric].value):
                    name = "random, along the curve" if rival == "random" else rival
                    yield Comparison(name, measure, metrics[metric])
