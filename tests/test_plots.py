"""The pictures say what the numbers say, and are written whole or not at all."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from training.measure.curve import Point, oracle_walk, order_walk, trace
from training.measure.reliability import reliability_table
from training.show.plots import (
    Band,
    cost_quality_curve,
    finding,
    reliability,
    save,
)

CONSTANTS = [Point(0.001, 0.6, "always small"), Point(0.004, 0.8, "always large")]


def curves(n=60):
    rng = np.random.default_rng(0)
    quality = (rng.random((n, 2)) < [[0.6, 0.8]]).astype(float)
    cost = np.full((n, 2), [[0.001, 0.004]])
    return trace(order_walk(rng.random(n)), quality, cost), trace(
        oracle_walk(quality, cost), quality, cost
    )


def words(figure):
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        texts += [text.get_text() for text in axes.texts]
        legend = axes.get_legend()
        texts += [text.get_text() for text in legend.get_texts()] if legend else []
    return texts


def test_the_chosen_point_writes_the_title():
    assert finding(CONSTANTS, Point(0.001, 0.792, "")) == (
        "99 % of the top tier’s quality for 25 % of its cost"
    )
    assert "%" not in finding(CONSTANTS, None)
    assert "%" not in finding([Point(0, 0.5, "a"), Point(0, 0.5, "b")], Point(0, 0.5, "c"))


def test_the_curve_shows_every_competitor_and_our_numbers(tmp_path):
    ours, oracle = curves()
    baselines = {f"baseline {i}": ours for i in range(6)}
    figure = cost_quality_curve(
        ours,
        CONSTANTS,
        chosen=Point(0.002, 0.79, "saves 50 %"),
        band=Band(ours.cost_usd, ours.quality - 0.05, ours.quality + 0.05),
        baselines=baselines,
        oracle=oracle,
        subtitle="60 requests",
    )
    said = " | ".join(words(figure))
    for expected in ("Suffice", *baselines, "random", "oracle", "saves 50 %", "60 requests"):
        assert expected in said
    assert all(point.label in said for point in CONSTANTS)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["Suffice"].get_xdata(), 1000 * ours.cost_usd)
    np.testing.assert_allclose(lines["Suffice"].get_ydata(), ours.quality)
    assert save(figure, tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]


def test_free_tiers_of_equal_quality_can_be_drawn(tmp_path):
    flat = trace(order_walk([1.0, 1.0]), np.full((2, 2), 0.5), np.zeros((2, 2)))
    points = [Point(0, 0.5, "a"), Point(0, 0.5, "b")]
    save(cost_quality_curve(flat, points, chosen=points[0]), tmp_path / "flat.png")


def test_labels_of_eleven_tiers_stand_apart_and_inside_the_picture():
    ours, _ = curves()
    many = [
        Point(0.003 * (k / 10) ** 4, 0.5 + 0.03 * k, f"always a-long-name-of-vendor-{k}")
        for k in range(11)
    ]
    figure = cost_quality_curve(ours, many, chosen=replace(many[9], label="always chosen"))
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if text.get_text().startswith("always")]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == 12
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_reliability_of_eleven_tiers_is_a_page_and_no_ribbon():
    p = np.linspace(0.0, 1.0, 60)
    table = reliability_table(p, np.round(p))
    figure = reliability({f"tier {t}": table for t in range(11)})
    assert len(figure.axes) == 22
    assert max(figure.get_size_inches()) < 16
    named = [axes.get_title(loc="left") for axes in figure.axes]
    assert [name for name in named if name] == [f"tier {t}" for t in range(11)]


@pytest.mark.parametrize("tiers", [1, 4])
def test_reliability_has_a_panel_with_counts_for_each_tier(tiers, tmp_path):
    rng = np.random.default_rng(1)
    p = rng.random(300)
    table = reliability_table(p, (rng.random(300) < p).astype(float))
    figure = reliability({f"tier {t}": table for t in range(tiers)})
    assert len(figure.axes) == 2 * tiers
    assert [axes.get_title(loc="left") for axes in figure.axes[:tiers]] == [
        f"tier {t}" for t in range(tiers)
    ]
    assert sum(bar.get_height() for bar in figure.axes[-1].patches) == 300
    save(figure, tmp_path / "reliability.png")


def test_a_failed_save_leaves_the_old_picture(tmp_path, monkeypatch):
    target = tmp_path / "curve.png"
    target.write_bytes(b"old")
    figure = cost_quality_curve(curves()[0], CONSTANTS)

    def fail(beside, **_):
        beside.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(figure, target)
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]


def test_neither_import_nor_drawing_touches_pyplot():
    code = (
        "import sys, training.show.plots as p; assert 'matplotlib' not in sys.modules;"
        "from training.measure.reliability import reliability_table as t; import pathlib, tempfile;"
        "p.save(p.reliability({'a': t([0.2, 0.8], [0, 1])}),"
        " pathlib.Path(tempfile.mkdtemp()) / 'r.png');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
