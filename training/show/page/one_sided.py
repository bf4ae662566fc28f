"""The tables of the page of a one-sided log, on which only the tier that served was observed."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from training.measure.compare import AT_POINT, Comparison
from training.measure.valuation import CHOSEN, Valuation
from training.show.page import charts
from training.show.page.views import answered
from training.show.page.volume import Volume
from training.show.words import NONE, dollars, limits, percent, plain


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
    thousand = cost.times(1000)
    told = {
        "name": "Suffice, chosen point" if name == CHOSEN else name,
        "us": name == CHOSEN,
        "missing": found.missing.get(name, ""),
        "cost": dollars(thousand.value),
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
