"""Where marks go: scales, ticks and SVG paths. The template draws; nothing here knows colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from training.measure.curve import Curve, Point
from training.measure.intervals import Interval
from training.measure.reliability import Reliability
from training.measure.report import DOLLAR, GAIN, Report

PER = 1000.0
PATH_POINTS = 300
LINE, LABEL = 16.0, 140.0  # height of a line of text, and a width that names keep within
STRIP = 150  # width of the strips in the templates
_DOT = ("x", "y", "low", "high")


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's rectangle in pixels and the values at its edges."""

    left: float
    right: float
    top: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, values: ArrayLike) -> NDArray[np.float64]:
        """Pixels from the left."""
        return _scaled(values, self.x_range, (self.left, self.right))

    def y(self, values: ArrayLike) -> NDArray[np.float64]:
        """Pixels from the top."""
        return _scaled(values, self.y_range, (self.bottom, self.top))

    def path(self, x: ArrayLike, y: ArrayLike) -> str:
        """A line through points."""
        return "M" + "L".join(self._points(x, y))

    def area(self, x: ArrayLike, low: ArrayLike, high: ArrayLike) -> str:
        """The surface between two lines over the same x."""
        there, back = self._points(x, high), self._points(x, low)
        return "M" + "L".join([*there, *reversed(back)]) + "Z"

    def ticks(self) -> dict[str, list[tuple[float, str]]]:
        """Places and labels: USD along x, shares along y."""
        across = _nice(self.x_range)
        upwards = _nice(self.y_range)
        return {
            "x": list(
                zip(self.x(across).round(1).tolist(), [f"${v:g}" for v in across], strict=True)
            ),
            "y": [
                (place, f"{100 * value:g}\u202f%")
                for place, value in zip(self.y(upwards).round(1).tolist(), upwards, strict=True)
            ],
        }

    def _points(self, x: ArrayLike, y: ArrayLike) -> list[str]:
        pairs = zip(self.x(x).tolist(), self.y(y).tolist(), strict=True)
        return [f"{a:.1f} {b:.1f}" for a, b in pairs]


def curve_chart(report: Report, names: Sequence[str]) -> dict[str, Any]:
    """The cost–quality curve: paths, dots and ticks, in a box of 720 × 400."""
    curves, dial = report.curves, report.dial
    low, high = dial.limits["quality"]
    tall = [dial.quality, low, high, [p.quality for p in report.constants], [report.chosen.quality]]
    y = _padded(np.concatenate([np.asarray(part, dtype=float) for part in tall]))
    dear = [p.cost_usd * PER for p in report.constants] + (dial.cost_usd * PER).tolist()
    frame = Frame(52, 704, 22, 356, _padded(np.array(dear), 0.03, floor=True), y)
    ends = (report.constants[0], report.constants[-1])
    rivals = [name for name in curves if name not in (DOLLAR, GAIN, "oracle", "prompt length")]
    oracle = curves["oracle"]
    best = int(oracle.quality.argmax()) + 1  # beyond its best point an oracle only wastes money
    return {
        "frame": frame,
        "ticks": frame.ticks(),
        "ours": _line(frame, curves[DOLLAR]),
        "band": frame.area(dial.cost_usd * PER, low, high),
        "rivals": [{"name": name, "path": _line(frame, curves[name])} for name in rivals],
        "random": frame.path([p.cost_usd * PER for p in ends], [p.quality for p in ends]),
        "oracle": _line(frame, oracle, best),
        "constants": _apart([_dot(frame, *p) for p in zip(report.constants, names, strict=True)]),
        "chosen": _dot(frame, report.chosen, "chosen"),
        "positions": [
            [round(a, 1), round(b, 1)]
            for a, b in zip(
                frame.x(dial.cost_usd * PER).tolist(), frame.y(dial.quality).tolist(), strict=True
            )
        ],
    }


def reliability_chart(table: Reliability) -> dict[str, Any]:
    """One tier's bins of equal size with their intervals, in a box of 240 × 216."""
    frame = Frame(34, 232, 10, 190, (0.0, 1.0), (0.0, 1.0))
    at = (frame.x(table.mean_p), *map(frame.y, (table.mean_outcome, table.low, table.high)))
    places = [[f"{value:.1f}" for value in values] for values in at]
    return {
        "frame": frame,
        "path": frame.path(table.mean_p, table.mean_outcome),
        "dots": [dict(zip(_DOT, dot, strict=True)) for dot in zip(*places, strict=True)],
        "ticks": [(float(frame.x(v)), float(frame.y(v)), f"{v:g}") for v in (0, 0.5, 1)],
    }


def whisker(found: Interval, span: tuple[float, float]) -> dict[str, str] | None:
    """A dot with its interval on a scale that all rows of a table share; None if unknown."""
    if not np.isfinite([found.value, found.low, found.high]).all():
        return None
    low, value, high = (
        f"{np.clip(_scaled(v, span, (4, STRIP - 4)), 1, STRIP - 1):.1f}"
        for v in (found.low, found.value, found.high)
    )
    return {"low": low, "value": value, "high": high}


def place(value: float, span: tuple[float, float]) -> str:
    """Where a line goes on that scale."""
    return f"{float(_scaled(value, span, (4, STRIP - 4))):.1f}"


def _line(frame: Frame, curve: Curve, until: int | None = None) -> str:
    n = len(curve.quality[:until])
    at = np.unique(np.linspace(0, n - 1, min(n, PATH_POINTS)).astype(np.int64))
    return frame.path(curve.cost_usd[at] * PER, curve.quality[at])


def _dot(frame: Frame, point: Point, name: str) -> dict[str, Any]:
    x = float(frame.x(point.cost_usd * PER))
    y = float(frame.y(point.quality))
    middle = (frame.left + frame.right) / 2
    return {"x": f"{x:.1f}", "y": f"{y:.1f}", "name": name, "left": x > middle}


def _apart(dots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each dot's label a place, moved down where it would stand on one before it."""
    taken: list[tuple[float, float]] = []
    for dot in dots:
        x, y = float(dot["x"]), float(dot["y"]) + LINE + 4
        while any(abs(x - other) < LABEL and abs(y - at) < LINE for other, at in taken):
            y += LINE
        taken.append((x, y))
        dot["label"] = f"{y:.1f}"
    return dots


def _scaled(
    values: ArrayLike, source: tuple[float, float], target: tuple[float, float]
) -> NDArray[np.float64]:
    share = (np.asarray(values, dtype=np.float64) - source[0]) / (source[1] - source[0])
    return target[0] + share * (target[1] - target[0])


def _padded(
    values: NDArray[np.float64], by: float = 0.06, floor: bool = False
) -> tuple[float, float]:
    """A range with room at both ends; with `floor` it begins at 0."""
    low, high = (0.0 if floor else float(np.nanmin(values))), float(np.nanmax(values))
    room = by * (high - low) or max(abs(high) * by, 1e-6)
    return (low if floor else low - room, high + room)


def _nice(span: tuple[float, float]) -> list[float]:
    """Round values inside a range, some six of them, for ticks."""
    found = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(*span)
    return [float(v) for v in np.round(found, 12) if span[0] <= v <= span[1]]
