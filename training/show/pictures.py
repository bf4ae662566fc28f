"""A report's pictures as PNG files."""

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from training.measure.report import DOLLAR, GAIN, Report
from training.measure.slice_report import FAILS, SliceReport
from training.measure.valuation import CHOSEN, Valuation
from training.show import plots
from training.show.plots import Band, Dot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 30  # slices in a picture


def save_plots(report: Report | Valuation, folder: Path) -> list[Path]:
    """Draw a report into `folder`: curve, reliability and slices, or the policies' values."""
    drawn = _paired(report) if isinstance(report, Report) else _one_sided(report)
    return [plots.save(figure, folder / name) for name, figure in drawn]


def curve_figure(report: Report) -> "Figure":
    """The cost–quality curve of a report beside its rivals, with the chosen point."""
    curves = dict(report.curves)
    oracle = curves.pop("oracle")
    ours = curves.pop(DOLLAR)
    curves.pop(GAIN, None)
    curves.pop("prompt length", None)
    return plots.cost_quality_curve(
        ours,
        report.constants,
        chosen=report.chosen,
        band=Band(report.dial.cost_usd, *report.dial.limits["quality"]),
        baselines=curves,
        oracle=oracle,
        subtitle=f"{report.rows:,} requests the router has not seen; band: 95 % interval",
    )


def _paired(report: Report) -> Iterator[tuple[str, "Figure"]]:
    yield "cost_quality.png", curve_figure(report)
    yield "reliability.png", plots.reliability(report.reliability)
    if parts := _slices(report.slices):
        whole = report.figures["policy"]["quality_of_top"]
        yield (
            "slices.png",
            plots.dots(
                [*parts, Dot(f"all traffic ({report.rows:,})", whole, True)],
                whole.value,
                label="mean quality over that of the top tier",
                title="Quality kept, by slice of the traffic",
                dashed="all traffic",
            ),
        )


def _one_sided(report: Valuation) -> Iterator[tuple[str, "Figure"]]:
    known = {name: one["quality"] for name, one in report.figures.items() if "quality" in one}
    chosen = known.pop(CHOSEN, None)
    if chosen is not None:
        parts = [Dot(name, one, False) for name, one in reversed(known.items())]
        yield (
            "values.png",
            plots.dots(
                [*parts, Dot("Suffice, chosen point", chosen, True)],
                chosen.value,
                label="mean quality, doubly robust",
                title="What policies are worth",
                dashed="the chosen point",
            ),
        )


def _slices(slices: Sequence[SliceReport]) -> list[Dot]:
    """The slices that have figures, those that keep least of the top tier's quality last."""
    known = [(part, part.metrics["quality_of_top"]) for part in slices if part.metrics]
    finite = [(part, kept) for part, kept in known if isfinite(kept.value)]
    worst = sorted(finite, key=lambda pair: pair[1].value)[:MOST]
    return [
        Dot(
            f"{part.name} ({part.rows:,}){f', {FAILS}' if part.verdict == FAILS else ''}",
            kept,
            False,
        )
        for part, kept in reversed(worst)
    ]
