"""Pictures for notebooks; those of a report are in `show.plots`.

Tables come in as pandas frames whose index names the rows; only positions are computed here.
Figures are built as there: no pyplot, no global state.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from router.policy import Policy
from training.decide.operating import Step
from training.measure.hindsight import BAD, LOST, NEEDED, NEEDLESS, SAVED
from training.show.plots import BASELINES, INK, OURS, RANDOM, SOFT, STAR, bare

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALE, SAND = "#a9c7c5", "#e3c27e"
COLOURS = (OURS, *BASELINES, STAR, RANDOM)
CASE_COLOURS = {SAVED: OURS, LOST: RANDOM, BAD: STAR, NEEDLESS: SAND, NEEDED: PALE}
WIDTH = 9.2  # inches, of every picture
LINE = 0.31  # inches, of a row of names
MOST_LABELS = 14  # along an axis of bars


def dots(
    series: Mapping[str, pd.DataFrame],
    *,
    title: str,
    x_label: str,
    percent: bool = False,
    line: tuple[float, str] | None = None,
) -> "Figure":
    """Named values with their intervals, one per row.

    Args:
        series: {label: frame with `value`, and `low` and `high` where there are intervals}, all
            with the first one's index; its column `rows`, if any, is told on the right.
        title: what is shown.
        x_label: of the values.
        percent: the values are shares.
        line: a value to compare with, and its name.
    """
    first = next(iter(series.values()))
    figure, [axes] = _page(title, 1.45 + LINE * len(first) * (1 + 0.35 * (len(series) - 1)))
    if line is not None:
        axes.axvline(line[0], color=SOFT, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            line[1],
            (line[0], 1.0),
            xytext=(4, 3),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            color=SOFT,
            fontsize=9.5,
        )
    for place, (label, table) in enumerate(series.items()):
        table = table.loc[first.index]
        y = np.arange(len(table)) + (place - (len(series) - 1) / 2) * 0.24
        _whiskers(axes, table, y, COLOURS[place % len(COLOURS)], label)
    axes.set_yticks(np.arange(len(first)), [str(name) for name in first.index])
    axes.set_ylim(len(first) - 0.4, -0.6)
    axes.tick_params(axis="y", labelsize=10.5, labelcolor=INK, length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(x_label)
    if percent:
        axes.xaxis.set_major_formatter(_percent())
    if "rows" in first:
        beside = axes.get_yaxis_transform()
        for row, count in enumerate(first["rows"]):
            axes.text(1.01, row, f"n = {count:,}", transform=beside, va="center", color=SOFT)
    if len(series) > 1:
        _legend(figure, axes)
    return figure


def stacked(
    tables: Mapping[str, pd.DataFrame],
    *,
    title: str,
    x_label: str,
    y_label: str,
    colours: Mapping[str, str] | None = None,
    percent: bool = False,
) -> "Figure":
    """Stacked bars on one scale, one panel per table.

    Args:
        tables: {panel's name: frame with one bar per row, its parts in columns}.
        title: what is shown.
        x_label: of the bars.
        y_label: of their heights.
        colours: of the parts; by default in their order.
        percent: the heights are shares.
    """
    figure, panels = _page(title, 4.4, len(tables))
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        at, floor = np.arange(len(table)), np.zeros(len(table))
        for place, part in enumerate(table.columns):
            colour = (colours or {}).get(str(part), COLOURS[place % len(COLOURS)])
            heights = table[part].to_numpy(np.float64)
            axes.bar(at, heights, 0.86, floor, color=colour, label=str(part), linewidth=0)
            floor = floor + heights
        every = -(-len(table) // MOST_LABELS)
        axes.set_xticks(at[::every], _names(table.index)[::every])
        axes.set_xlabel(x_label)
        axes.grid(visible=False, axis="x")
        if name:
            axes.set_title(name, loc="left", fontsize=11, color=INK)
        if percent:
            axes.yaxis.set_major_formatter(_percent())
    panels[0].set_ylabel(y_label)
    _legend(figure, *panels)
    return figure


def bars(values: pd.Series, *, title: str, x_label: str) -> "Figure":
    """Named pushes to either side of 0, one per row, each with its size."""
    sizes = values.to_numpy(np.float64)
    figure, [axes] = _page(title, 1.3 + LINE * len(values))
    at = np.arange(len(values))
    axes.barh(at, sizes, 0.72, color=np.where(sizes < 0, STAR, OURS).tolist(), linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    for y, size in zip(at, sizes, strict=True):
        side = -1 if size < 0 else 1
        axes.annotate(
            f"{size:+.1f}",
            (size, y),
            xytext=(4 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            color=INK,
            fontsize=10,
        )
    axes.set_yticks(at, [str(name) for name in values.index])
    axes.tick_params(axis="y", labelsize=10.5, labelcolor=INK, length=0)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(x_label)
    return figure


def differences(table: pd.DataFrame, *, title: str, names: tuple[str, str]) -> "Figure":
    """Paired differences of two routers, each figure on its own scale, 0 in the middle.

    Args:
        table: one row per figure, with `first`, `second`, and `value`, `low`, `high` of their
            difference.
        title: what is shown.
        names: of the first and the second.
    """
    figure, panels = _page(title, 1.1 + 0.62 * len(table), 1, len(table))
    for axes, (name, row) in zip(panels, table.iterrows(), strict=True):
        reach = 1.15 * max(float(np.nanmax(np.abs(row[["value", "low", "high"]]))), 1e-12)
        axes.axvline(0, color=SOFT, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        _whiskers(axes, row.to_frame().T, np.zeros(1), OURS, "")
        axes.set_xlim(-reach, reach)
        axes.set_yticks([0], [str(name)])
        axes.tick_params(axis="y", labelsize=10.5, labelcolor=INK, length=0)
        axes.grid(visible=False, axis="y")
        axes.text(
            1.02,
            0.5,
            f"{row['first']:.4g} → {row['second']:.4g}",
            transform=axes.transAxes,
            va="center",
            color=INK,
        )
    panels[-1].set_xlabel(f"{names[1]} minus {names[0]}, with 95 % intervals")
    return figure


def certificate(steps: Sequence[Step], chosen: Policy, *, title: str) -> "Figure":
    """What can be promised along the course: estimate and limit of every step, and the target.

    Args:
        steps: of the course (`decide.operating.walk_steps`).
        chosen: the operating point, of the same course, or one of the constants at its ends.
        title: what is shown.
    """
    figure, [axes] = _page(title, 4.6)
    told = steps[0].promise
    ceiling = told.rule == "max_bad_downgrade"
    cost = np.array([1000 * step.cost_usd for step in steps])
    estimate = np.array([step.promise.estimate for step in steps])
    limit = np.array([step.promise.bound for step in steps])
    axes.fill_between(cost, limit, estimate, color=OURS, alpha=0.12, linewidth=0)
    axes.plot(cost, estimate, color=OURS, linewidth=2.4, label="estimate")
    sure = f"{'at most' if ceiling else 'at least'}, {told.confidence:.0%} sure"
    axes.plot(cost, limit, color=OURS, linewidth=1.4, linestyle=(0, (4, 2)), label=sure)
    axes.axhline(told.target, color=SOFT, linewidth=1.2, linestyle=(0, (5, 3)), label="target")
    for step in steps:
        if (step.policy.mu, step.policy.constant) == (chosen.mu, chosen.constant):
            at = 1000 * step.cost_usd
            axes.plot(at, step.promise.bound, "*", color=STAR, markersize=19, label="chosen",
                      markeredgecolor="white", linestyle="none", zorder=5)  # fmt: skip
    axes.set_xlabel("mean cost, USD per 1,000 requests: the course begins on the right")
    axes.set_ylabel("bad downgrades" if ceiling else "quality, of the top tier's")
    axes.xaxis.set_major_formatter("${x:,.3g}")
    axes.yaxis.set_major_formatter(_percent())
    axes.legend(loc="upper left" if ceiling else "lower right", frameon=False, fontsize=10)
    return figure


def _page(
    title: str, height: float, columns: int = 1, rows: int = 1
) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=13, fontweight="bold")
    shared = columns > 1
    panels = figure.subplots(rows, columns, squeeze=False, sharey=shared).ravel().tolist()
    for axes in panels:
        bare(axes)
    return figure, panels


def _whiskers(
    axes: "Axes", table: pd.DataFrame, y: np.ndarray[Any, Any], colour: str, label: str
) -> None:
    value = table["value"].to_numpy(np.float64)
    if {"low", "high"} <= set(table.columns):
        low, high = (table[end].to_numpy(np.float64) for end in ("low", "high"))
        axes.hlines(y, low, high, color=colour, linewidth=1.6, alpha=0.75)
    axes.plot(value, y, "o", color=colour, markersize=6.5, markeredgecolor="white", label=label)


def _legend(figure: "Figure", *panels: "Axes") -> None:
    """What is in the panels, each name once, under them."""
    marks: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        marks |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(marks.values()),
        list(marks),
        loc="outside lower left",
        ncols=min(len(marks), 3),
        frameon=False,
        fontsize=10,
        labelcolor=INK,
    )


def _names(index: pd.Index) -> list[str]:
    if isinstance(index, pd.DatetimeIndex):
        return [f"{day.day} {day:%b}" for day in index]
    return [str(name) for name in index]


def _percent() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda share, _: f"{100 * share:.4g} %")
