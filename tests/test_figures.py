"""Pictures of notebooks: every row, bar and line is where its number says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from router.policy import Policy, Promise
from training.decide.operating import Step
from training.measure.intervals import Interval
from training.retrain.versus import Figure, SideBySide
from training.show.figures import bars, certificate, differences, dots, stacked
from training.show.plots import save

RATES = pd.DataFrame(
    {"value": [0.9, 0.5], "low": [0.8, 0.3], "high": [0.95, 0.7], "rows": [1200, 7]},
    index=["capitals", "sums"],
)


def _names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_dots_shows_every_series_with_its_intervals_and_counts(tmp_path: Path) -> None:
    other = pd.DataFrame({"value": [0.4, 0.6]}, index=["sums", "capitals"])  # no interval
    figure = dots(
        {"log": RATES, "other": other},
        title="Rates",
        x_label="share right",
        percent=True,
        line=(0.7, "all"),
    )
    [axes] = figure.axes
    assert _names(axes) == ["capitals", "sums"]
    assert axes.get_xlabel() == "share right"
    marks = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(marks["log"].get_xdata(), RATES["value"])
    np.testing.assert_allclose(marks["other"].get_xdata(), [0.6, 0.4])  # by name, not by place
    [spans] = [c.get_segments() for c in axes.collections]
    np.testing.assert_allclose([span[:, 0] for span in spans], RATES[["low", "high"]])
    said = [text.get_text() for text in axes.texts]
    assert said == ["all", "n = 1,200", "n = 7"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["log", "other"]
    assert save(figure, tmp_path / "dots.png").read_bytes().startswith(b"\x89PNG")


def test_stacked_bars_add_up_and_every_part_is_in_the_legend(tmp_path: Path) -> None:
    first = pd.DataFrame({"a": [1, 2], "b": [3, 4]}, index=pd.date_range("2026-10-05", periods=2))
    second = pd.DataFrame({"a": [5], "c": [6]}, index=[1])
    figure = stacked(
        {"one": first, "two": second},
        title="Bars",
        x_label="day",
        y_label="calls",
        colours={"c": "#123456"},
    )
    left, right = figure.axes
    tops = [[bar.get_y() + bar.get_height() for bar in box] for box in left.containers]
    assert tops == [[1, 2], [4, 6]]
    assert [label.get_text() for label in left.get_xticklabels()] == ["5 Oct", "6 Oct"]
    assert right.get_title(loc="left") == "two"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    save(figure, tmp_path / "stacked.png")


def test_many_bars_get_few_labels(tmp_path: Path) -> None:
    table = pd.DataFrame({"calls": np.arange(90)})
    figure = stacked({"": table}, title="", x_label="", y_label="")
    assert len(figure.axes[0].get_xticklabels()) <= 14


def test_bars_point_to_their_side(tmp_path: Path) -> None:
    figure = bars(pd.Series({"wording": 12.5, "length": -3.0}), title="Parts", x_label="points")
    [axes] = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [12.5, -3.0]
    assert len({bar.get_facecolor() for bar in axes.patches}) == 2
    assert [text.get_text() for text in axes.texts] == ["+12.5", "-3.0"]
    assert _names(axes) == ["wording", "length"]
    save(figure, tmp_path / "bars.png")


def test_differences_have_a_scale_each_with_zero_in_the_middle(tmp_path: Path) -> None:
    rows = (
        Figure("quality", 0.90, 0.91, Interval(0.01, 0.01, -0.02, 0.04, 0.0)),
        Figure("USD per request", 1e-4, 8e-5, Interval(-2e-5, -2e-5, -3e-5, -1e-5, 0.0)),
    )
    found = SideBySide(("old", "new"), "paired", 100, rows, ())
    figure = differences(found.as_frame(), title="Second against first", names=found.names)
    told = [_names(axes) for axes in figure.axes]
    assert told == [["quality, points"], ["USD per 1,000 requests"]]
    dots_at = [float(axes.lines[-1].get_xdata()[0]) for axes in figure.axes]
    np.testing.assert_allclose(dots_at, [1.0, -0.02])
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low == pytest.approx(-high)
    assert "90 → 91" in [text.get_text() for text in figure.axes[0].texts]
    assert "new minus old" in figure.axes[-1].get_xlabel()
    save(figure, tmp_path / "differences.png")


def _step(mu: float, cost: float, kept: float, rule: str) -> Step:
    told = Promise(rule, 0.9, 0.95, 100, kept, kept - 0.05, kept - 0.05 >= 0.9, "betting")
    return Step(Policy(mu), cost, 0.5, told)


@pytest.mark.parametrize("rule", ["min_quality", "max_bad_downgrade"])
def test_the_certificate_stars_the_chosen_step(rule: str, tmp_path: Path) -> None:
    steps = [_step(mu, 0.003 - 0.001 * mu, 0.99 - 0.04 * mu, rule) for mu in range(3)]
    figure = certificate(steps, Policy(1.0), title="Walk")
    [axes] = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["estimate"].get_xdata(), [3, 2, 1])
    np.testing.assert_allclose(lines["estimate"].get_ydata(), [0.99, 0.95, 0.91])
    np.testing.assert_allclose(lines["target"].get_ydata(), 0.9)
    assert lines["chosen"].get_xdata() == [2]
    words = "at least" if rule == "min_quality" else "at most"
    assert any(str(name).startswith(words) for name in lines)
    save(figure, tmp_path / "certificate.png")


def test_a_constant_that_no_step_is_has_no_star() -> None:
    steps = [_step(0.0, 0.002, 0.95, "min_quality")]
    figure = certificate(steps, Policy(0.0, constant=1), title="")
    assert "chosen" not in {line.get_label() for line in figure.axes[0].lines}
