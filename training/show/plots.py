"""Pictures: the cost–quality curve, the reliability of each tier, figures of many methods.

Figures are built through matplotlib's object interface: no pyplot, no global state, no display.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.files import whole
from training.measure.curve import Curve, Floats, Point
from training.measure.intervals import Interval
from training.measure.reliability import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patheffects import AbstractPathEffect
    from matplotlib.text import Annotation
    from matplotlib.transforms import BboxBase

INK, SOFT, FAINT = "#1b1f24", "#5b6570", "#c9d0d6"
OURS, STAR, RANDOM = "#0b6e69", "#d1495b", "#8a939c"
BASELINES = ("#c98a1b", "#6a5fb0", "#7a9a3c", "#a86a4a", "#3f7cac", "#b05f8e", "#4d4d4d")
_PER_THOUSAND = 1000.0
PANELS = 4  # in a row
_LINE = 13.0  # points from one line of text to the next


@dataclass(frozen=True, slots=True)
class Dot:
    """One method's figure with its interval; ours stands out."""

    label: str
    interval: Interval
    ours: bool


@dataclass(frozen=True, slots=True)
class Band:
    """Shaded limits of the router's curve: float64[g] each, mean USD per request and quality."""

    cost_usd: Floats
    low: Floats
    high: Floats


def cost_quality_curve(
    router: Curve,
    constants: Sequence[Point],
    *,
    chosen: Point | None = None,
    band: Band | None = None,
    baselines: Mapping[str, Curve] | None = None,
    oracle: Curve | None = None,
    title: str = "",
    subtitle: str = "",
) -> "Figure":
    """Mean quality against mean USD per 1,000 requests: our router, and what it has to beat.

    constants: one point per tier, cheapest first, the top last; the matched-random line joins the
    first and the last. chosen: the operating point, a star whose label says what it saves.
    Without a title the chosen point writes it, so that it cannot claim more than the picture shows.
    """
    figure, axes = _canvas(title or finding(constants, chosen), subtitle, (9.2, 5.6))
    axes.plot(*_line(router), color=OURS, linewidth=2.8, label="Suffice", zorder=5)
    if band is not None:
        axes.fill_between(
            _thousand(band.cost_usd), band.low, band.high, color=OURS, alpha=0.14, linewidth=0
        )
    for colour, (name, curve) in zip(cycle(BASELINES), (baselines or {}).items(), strict=False):
        axes.plot(*_line(curve), color=colour, linewidth=1.4, alpha=0.9, label=name, zorder=3)
    axes.plot(
        [_thousand(end.cost_usd) for end in (constants[0], constants[-1])],
        [end.quality for end in (constants[0], constants[-1])],
        color=RANDOM,
        linestyle=(0, (5, 3)),
        linewidth=1.5,
        label="random, same share",
        zorder=2,
    )
    if oracle is not None:
        cost, quality = _line(oracle)
        best = int(quality.argmax()) + 1  # beyond its best point an oracle only wastes money
        axes.plot(
            cost[:best],
            quality[:best],
            color=FAINT,
            linewidth=1.6,
            label="oracle (knows the outcomes)",
            zorder=1,
        )
    labels = [_mark_constant(axes, one, place == 0) for place, one in enumerate(constants)]
    axes.set_xlabel("mean cost, USD per 1,000 requests")
    axes.set_ylabel("mean quality")
    _frame(axes, constants, router)
    if chosen is not None:
        labels.insert(0, _mark_chosen(axes, chosen))
    _set_apart(figure, axes, labels)
    axes.legend(loc="lower right", frameon=False, fontsize=10, labelcolor=INK, handlelength=2.2)
    return figure


def finding(constants: Sequence[Point], chosen: Point | None) -> str:
    """The chosen point in words, against always-top (the last constant)."""
    top = constants[-1]
    if chosen is None or not top.quality > 0 or not top.cost_usd > 0:
        return "What quality costs on this traffic"
    quality = f"{100 * chosen.quality / top.quality:.1f}".removesuffix(".0")
    return (
        f"{quality} % of the top tier’s quality"
        f" for {100 * chosen.cost_usd / top.cost_usd:.0f} % of its cost"
    )


def reliability(tables: Mapping[str, Reliability]) -> "Figure":
    """One panel per tier, PANELS a row: mean outcome against mean probability by bin, and counts.

    tables: {tier: `measure.reliability.reliability_table`}. Bars are 95 % intervals; on the
    diagonal a probability means what it says.
    """
    from matplotlib.figure import Figure

    columns = min(len(tables), PANELS)
    rows = math.ceil(len(tables) / columns)
    size = (max(4.8, 0.6 + 3.7 * columns), 5.0 * rows)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.suptitle(
        "Of the requests given probability p, how many sufficed?",
        x=0.01,
        ha="left",
        color=INK,
        fontsize=13,
        fontweight="bold",
    )
    grid = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True, sharey="row", height_ratios=(4.5, 1) * rows
    )
    for place, (tier, table) in enumerate(tables.items()):
        row, column = divmod(place, columns)
        upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
        upper.plot([0, 1], [0, 1], color=FAINT, linewidth=1.4, zorder=1)
        spread = np.abs(np.stack([table.mean_outcome - table.low, table.high - table.mean_outcome]))
        upper.errorbar(
            table.mean_p,
            table.mean_outcome,
            yerr=spread,
            fmt="o-",
            color=OURS,
            ecolor=OURS,
            elinewidth=1.1,
            linewidth=1.2,
            markersize=4.5,
        )
        upper.set_title(tier, loc="left", fontsize=11, color=INK)
        upper.set_xlim(-0.02, 1.02)
        upper.set_ylim(-0.02, 1.02)
        lower.bar(table.mean_p, table.count, width=0.02, color=OURS, alpha=0.55)
        lower.set_xlabel("predicted P(suffices)")
        lower.tick_params(labelbottom=True)
        bare(upper)
        bare(lower)
    for upper, lower in zip(grid[::2, 0], grid[1::2, 0], strict=True):
        upper.set_ylabel("observed")
        lower.set_ylabel("requests")
    for spare in range(len(tables), rows * columns):
        for half in (0, 1):
            grid[-2 + half, spare % columns].remove()
    return figure


def dots(
    methods: Sequence[Dot], chance: float, *, label: str, title: str, dashed: str = "at random"
) -> "Figure":
    """One line per method, the last on top: its figure and 95 % interval, beside that of chance.

    dashed: what `chance` is the figure of.
    """
    height = 1.4 + 0.42 * len(methods)
    figure, axes = _canvas("", "", (9.2, height))
    figure.text(0.02, 1 - 0.4 / height, title, fontsize=15, fontweight="bold", color=INK)
    axes.set_position((0.24, 0.65 / height, 0.72, (height - 1.25) / height))
    axes.axvline(chance, color=RANDOM, linestyle=(0, (5, 3)), linewidth=1.5)
    for place, method in enumerate(methods):
        found, colour = method.interval, OURS if method.ours else INK
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=1.8, alpha=0.7)
        axes.plot(found.value, place, "o", color=colour, markersize=8, markeredgecolor="white")
    axes.set_yticks(range(len(methods)), [method.label for method in methods])
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.set_xlabel(f"{label}; dashed: {dashed}")
    return figure


def save(figure: "Figure", path: Path, dpi: int = 160) -> Path:
    """Write the figure as PNG at `path`, whole or not at all; gives back the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with whole(path) as beside:
        figure.savefig(beside, format="png", dpi=dpi, metadata={"Software": None})
    return path


def _canvas(title: str, subtitle: str, size: tuple[float, float]) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="white")
    axes = figure.add_axes((0.085, 0.115, 0.885, 0.735))
    figure.text(0.02, 0.945, title, fontsize=15, fontweight="bold", color=INK)
    figure.text(0.02, 0.898, subtitle, fontsize=10.5, color=SOFT)
    bare(axes)
    return figure, axes


def bare(axes: "Axes") -> None:
    """Take from axes what is not the data: two of four spines, strong ticks, dark grid lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=SOFT, labelsize=9.5, length=3)
    axes.xaxis.label.set(color=SOFT, fontsize=10.5)
    axes.yaxis.label.set(color=SOFT, fontsize=10.5)
    axes.grid(color="#eef1f3", linewidth=0.9)
    axes.set_axisbelow(True)


def _mark_constant(axes: "Axes", point: Point, leftmost: bool) -> "Annotation":
    axes.plot(*_at(point), "o", color=INK, markersize=7, markeredgecolor="white", zorder=6)
    return axes.annotate(
        point.label,
        _at(point),
        xytext=(9, -4) if leftmost else (0, 13),
        textcoords="offset points",
        ha="left" if leftmost else "center",
        va="top" if leftmost else "bottom",
        fontsize=10,
        color=INK,
        zorder=6,
        path_effects=_halo(),
    )


def _set_apart(figure: "Figure", axes: "Axes", labels: "Sequence[Annotation]") -> None:
    """Keep labels inside the picture, and move each down until it stands on none before it."""
    figure.draw_without_rendering()
    taken: list[BboxBase] = []
    for label in labels:
        box = label.get_window_extent()
        if box.x0 < axes.bbox.x0:
            label.set_horizontalalignment("left")
        elif box.x1 > figure.bbox.x1:
            label.set_horizontalalignment("right")
        while any(label.get_window_extent().overlaps(other) for other in taken):
            right, up = label.xyann
            label.xyann = (right, up - _LINE)
        taken.append(label.get_window_extent())


def _mark_chosen(axes: "Axes", point: Point) -> "Annotation":
    axes.plot(*_at(point), "*", color=STAR, markersize=21, markeredgecolor="white", zorder=8)
    left, right = axes.get_xlim()
    near_left = _at(point)[0] < left + 0.35 * (right - left)
    return axes.annotate(
        point.label,
        _at(point),
        xytext=(-6, 24) if near_left else (6, 24),
        textcoords="offset points",
        ha="left" if near_left else "right",
        va="bottom",
        fontsize=11.5,
        fontweight="bold",
        color=STAR,
        zorder=8,
        path_effects=_halo(),
    )


def _halo() -> "list[AbstractPathEffect]":
    """A white rim, so that words stay legible across lines."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3.5, foreground="white")]


def _frame(axes: "Axes", constants: Sequence[Point], router: Curve) -> None:
    """Limits from the tiers and our curve, so that a far oracle does not squeeze the finding."""
    costs = np.concatenate([[_at(c)[0] for c in constants], _thousand(router.cost_usd)])
    heights = np.concatenate([[c.quality for c in constants], router.quality])
    room = float(np.ptp(heights)) or 0.1
    wide = float(np.ptp(costs)) or 1.0
    axes.set_xlim(float(costs.min()) - 0.03 * wide, float(costs.max()) + 0.07 * wide)
    axes.set_ylim(float(heights.min()) - 0.14 * room, float(heights.max()) + 0.28 * room)
    decimals = max(0, 1 - math.floor(math.log10(wide)))
    axes.xaxis.set_major_formatter(f"${{x:,.{decimals}f}}")


def _at(point: Point) -> tuple[float, float]:
    return float(_thousand(point.cost_usd)), point.quality


def _line(curve: Curve) -> tuple[Floats, Floats]:
    return _thousand(curve.cost_usd), curve.quality


def _thousand(usd: Floats | float) -> Floats:
    return np.asarray(usd, dtype=np.float64) * _PER_THOUSAND
