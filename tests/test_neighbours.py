"""Neighbours against the formula, written out; and the blend of members."""

from dataclasses import replace
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from router.head import Blend
from tests.builders import make_neighbours

DIM, TIERS = 12, 3
NEAR = make_neighbours(DIM, TIERS)
ROWS = arrays(np.float32, DIM, elements=st.floats(-10, 10, width=32))


def by_hand(row: np.ndarray) -> list[float]:
    """Nadaraya–Watson with a Gaussian of squared chords, the nearest prototype weighing 1."""
    small = [
        sum(float(row[i]) * float(NEAR.projection[i, j]) for i in range(DIM))
        - float(NEAR.offset[j])
        for j in range(NEAR.projection.shape[1])
    ]
    length = sqrt(sum(value * value for value in small)) or 1.0
    place = [value / length for value in small]
    squared = [
        2 - 2 * sum(a * float(b) for a, b in zip(place, centroid, strict=True))
        for centroid in NEAR.centroids
    ]
    kernel = [exp(-(s - min(squared)) / NEAR.width) for s in squared]
    margins = []
    for k in range(TIERS):
        hits = sum(w * s for w, s in zip(kernel, NEAR.successes[k], strict=True))
        rows = sum(w * n for w, n in zip(kernel, NEAR.rows[k], strict=True))
        rate = (hits + NEAR.prior * NEAR.mean[k]) / (rows + NEAR.prior)
        margins.append(log(rate / (1 - rate)))
    return margins


@given(ROWS)
def test_margins_equal_the_formula(row: np.ndarray) -> None:
    projected = row.astype(np.float64) @ NEAR.projection.astype(np.float64)
    # What is left after cancellation or underflow is float32 noise, and so is its direction.
    assume(np.abs(projected).max() >= max(1e-3 * np.abs(row).max(), 1e-15) or not row.any())
    assert NEAR.margins(row) == pytest.approx(by_hand(row), abs=1e-3)


def test_a_row_of_zeros_has_no_direction_and_still_an_answer() -> None:
    margins = NEAR.margins(np.zeros(DIM, dtype=np.float32))
    pooled = (NEAR.successes.sum(axis=1) + 10 * NEAR.mean) / (NEAR.rows.sum(axis=1) + 10)
    assert margins == pytest.approx(np.log(pooled / (1 - pooled)).tolist())


def test_a_tier_without_rows_keeps_its_mean() -> None:
    empty = replace(NEAR, rows=NEAR.rows * 0, successes=NEAR.successes * 0)
    margins = empty.margins(np.ones(DIM, dtype=np.float32))
    assert margins == pytest.approx(np.log(NEAR.mean / (1 - NEAR.mean)).tolist())


def test_certain_outcomes_stay_finite() -> None:
    sure = replace(NEAR, rows=NEAR.rows * 1e12, successes=NEAR.rows * 1e12)
    assert np.isfinite(sure.margins(np.ones(DIM, dtype=np.float32))).all()


@pytest.mark.parametrize(
    "change",
    [
        {"projection": NEAR.projection[:-1]},
        {"offset": NEAR.offset * np.float32("nan")},
        {"offset": NEAR.offset[:, None]},
        {"centroids": NEAR.centroids[:, :-1]},
        {"centroids": NEAR.centroids[:0]},
        {"centroids": NEAR.centroids * np.float32("nan")},
        {"rows": NEAR.rows[:-1]},
        {"rows": -NEAR.rows},
        {"successes": NEAR.rows + 1},
        {"mean": NEAR.mean * 0},
        {"mean": NEAR.mean * 0 + 1},
        {"width": 0.0},
        {"width": float("nan")},
        {"prior": float("inf")},
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any]) -> None:
    NEAR.check(DIM, TIERS)
    with pytest.raises(ValueError, match="neighbours"):
        replace(NEAR, **change).check(DIM, TIERS)


WEIGHTS = arrays(np.float64, 3, elements=st.floats(0, 2))
MARGINS = arrays(np.float64, (3, 4), elements=st.floats(-20, 20))


@given(WEIGHTS, WEIGHTS, MARGINS)
def test_blend_equals_its_formula(level: np.ndarray, gap: np.ndarray, margins: np.ndarray) -> None:
    combined = Blend(level, gap).combine(margins)
    for k in range(4):
        by_hand = sum(
            level[m] * margins[m].mean() + gap[m] * (margins[m, k] - margins[m].mean())
            for m in range(3)
        )
        assert combined[k] == pytest.approx(by_hand, abs=1e-9)
    assert Blend(level, gap).combine_one(margins.tolist()) == pytest.approx(combined, abs=1e-12)


@given(WEIGHTS, MARGINS)
def test_equal_weights_for_level_and_gap_blend_each_tier_alone(
    weights: np.ndarray, margins: np.ndarray
) -> None:
    assert Blend(weights, weights).combine(margins) == pytest.approx(weights @ margins, abs=1e-9)


@pytest.mark.parametrize("wrong", [[0.1, 0.2], [0.1, 0.2, -0.1], [0.1, 0.2, np.nan]])
def test_blend_refuses_weights_that_are_none(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="blend"):
        Blend(np.array(wrong), np.ones(3))
    with pytest.raises(ValueError, match="blend"):
        Blend(np.ones(3), np.array(wrong))
