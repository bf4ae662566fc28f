"""What the page says of a one-sided log, on which only the tier that served was observed."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from router.policy import Policy
from training.measure.compare import AT_POINT, Comparison
from training.measure.intervals import Interval
from training.measure.valuation import CHOSEN, LOGGING, Valuation
from training.show.page import charts
from training.show.page.views import answered
from training.show.page.volume import Volume
from training.show.page.words import NONE, count, dollars, limits, percent, plain


def headline(found: Valuation, policy: Policy) -> dict[str, str]:
    """The estimated value of the chosen point, and what it changes against what the log did."""
    figures, against = found.figures[CHOSEN], found.against[LOGGING]
    quality, cost = figures["quality"], figures["cost_usd"]
    change, extra = against["quality"], against["cost_usd"]
    answer = f"{percent(quality.value)} mean quality for {dollars(1000 * cost.value)} per 1,000."
    sure = [
        count(found.rows, "one-sided request"),
        f"{found.effective[CHOSEN]:,.0f} effective",
        f"quality {limits(quality, 'percent')}",
        f"against what the log did: {100 * change.value:+.1f} points of quality "
        f"({100 * change.low:+.1f} to {100 * change.high:+.1f}), "
        f"{dollars(1000 * extra.value)} per 1,000",
    ]
    return {"answer": answer, "sure": " · ".join(sure), "why": policy.why}


def promise(policy: Policy) -> str:
    """What was promised when the point was chosen."""
    made = policy.promise
    if made is None:
        return "The policy carries no promise."
    what = made.rule.replace("_", " ")
    held = "was certified" if made.certified else "could NOT be certified"
    return (
        f"The promise ({what} {percent(made.target)}) {held} at {percent(made.confidence, 0)} "
        f"confidence on {count(made.n, 'independent request')} kept aside for that choice."
    )


def policies(found: Valuation, volume: Volume) -> list[dict[str, Any]]:
    """One row per policy, with a whisker of its quality on one scale."""
    known = [one["quality"] for one in found.figures.values() if "quality" in one]
    ends = [x for one in known for x in (one.low, one.value, one.high) if isfinite(x)]
    span = (min(ends) - 0.005, max(ends) + 0.005)
    return [_policy(found, name, span, volume) for name in found.figures]


def answers(found: Valuation) -> list[dict[str, str]]:
    """The chosen point against every other policy, in quality and in cost."""
    return answered(list(_comparisons(found)))


def overlap(found: Valuation) -> dict[str, Any]:
    """Who was tried where: one row of texts per part of the requests."""
    tried = found.overlap
    rows = []
    for d, many in enumerate(tried.rows):
        shares = zip(tried.share[d], tried.effective[d], strict=True)
        edges = f"{tried.gain[d]:+.3f} to {tried.gain[d + 1]:+.3f}".replace("-", "−")
        cells = [f"{percent(float(share))} ({rows_:,.0f})" for share, rows_ in shares]
        rows.append([edges, f"{many:,}", *cells, plain(float(tried.smallest[d]))])
    return {"tiers": [f"{name} (effective)" for name in found.names], "rows": rows}


def _comparisons(found: Valuation) -> Iterator[Comparison]:
    for rival, metrics in found.against.items():
        for metric, measure in AT_POINT.items():
            if metric in metrics:
                yield Comparison(rival, measure, metrics[metric])


def _policy(
    found: Valuation, name: str, span: tuple[float, float], volume: Volume
) -> dict[str, Any]:
    figures = found.figures[name]
    cost = figures["cost_usd"]
    thousand = Interval(0.0, 0.0, 1000 * cost.low, 1000 * cost.high, 0.0)
    told = {
        "name": "Suffice, chosen point" if name == CHOSEN else name,
        "us": name == CHOSEN,
        "missing": found.missing.get(name, ""),
        "cost": dollars(1000 * cost.value),
        "cost_limits": limits(thousand, "dollars"),
        "month": dollars(volume.unit * cost.value),
        "effective": f"{found.effective[name]:,.0f}" if name in found.effective else NONE,
    }
    if "quality" in figures:
        told |= {
            "quality": percent(figures["quality"].value),
            "limits": limits(figures["quality"], "percent"),
            "whisker": charts.whisker(figures["quality"], span),
        }
        told |= {
            other: percent(figures[other].value) if other in figures else NONE
            for other in ("snips", "ips")
        }
    return told
