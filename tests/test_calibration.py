"""Calibration keeps the order of margins, everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.calibration import Calibration
from tests.builders import make_calibration

STEPS = st.lists(st.floats(0.01, 3.0), min_size=1, max_size=8)


def rising(start: float, steps: list[float]) -> np.ndarray:
    return start + np.concatenate([[0.0], np.cumsum(steps)])


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    margin = rising(draw(st.floats(-5, 5)), draw(STEPS))
    count = len(margin) - 1
    steps = draw(st.lists(st.floats(0.01, 2.0), min_size=count, max_size=count))
    return Calibration(margin, rising(draw(st.floats(-5, 5)), steps))


@given(calibrations(), st.lists(st.floats(-40, 40), min_size=2, max_size=30))
def test_strictly_rising_wherever_a_float_can_tell(
    found: Calibration, margins: list[float]
) -> None:
    z = np.unique(np.round(np.concatenate([margins, found.margin]), 3))
    p = found.probability(z)
    assert ((p > 0) & (p < 1)).all()
    assert (np.diff(p) >= 0).all()
    inside = (p > 1e-9) & (p < 1 - 1e-9)
    assert (np.diff(p[inside]) > 0).all()


@given(calibrations())
def test_knots_are_met_and_the_ends_go_on(found: Calibration) -> None:
    def logit(z: float) -> float:
        p = found.probability(np.array([z]))[0]
        return float(np.log(p) - np.log1p(-p))

    expected = 1 / (1 + np.exp(-np.clip(found.logit, -30, 30)))
    assert found.probability(found.margin) == pytest.approx(expected)
    for end, beside, way in ((0, 1, -1.0), (-1, -2, 1.0)):
        slope = (found.logit[end] - found.logit[beside]) / (
            found.margin[end] - found.margin[beside]
        )
        step = way * min(1.0, 5.0 / slope)
        beyond = found.logit[end] + slope * step
        if abs(beyond) < 25:
            assert logit(found.margin[end] + step) == pytest.approx(beyond, abs=1e-4)


def test_between_knots_log_odds_are_a_straight_line() -> None:
    found = Calibration(np.array([0.0, 2.0, 3.0]), np.array([-1.0, 0.0, 4.0]))
    p = found.probability(np.array([1.0, 2.5, 4.0, -2.0]))
    assert np.log(p / (1 - p)) == pytest.approx([-0.5, 2.0, 8.0, -2.0])


def test_extreme_margins_stay_probabilities() -> None:
    with np.errstate(over="ignore"):
        p = make_calibration().probability(np.array([-1e308, -1e6, 1e6, 1e308]))
    assert ((p > 0) & (p < 1)).all()


ONE, TWO = np.array([0.0]), np.array([0.0, 1.0])


@pytest.mark.parametrize(
    ("margin", "logit"),
    [
        (ONE, ONE),
        (TWO, ONE),
        (TWO[::-1], TWO),
        (TWO, np.array([1.0, 1.0])),
        (TWO, np.array([0.0, np.inf])),
        (np.array([np.nan, 1.0]), TWO),
        (TWO.astype(np.float32), TWO),
        (TWO[None], TWO[None]),
    ],
)
def test_knots_that_do_not_rise_are_refused(margin: np.ndarray, logit: np.ndarray) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(margin, logit)


@given(calibrations(), st.floats(-60, 60))
def test_one_margin_is_calibrated_as_many_are(found: Calibration, margin: float) -> None:
    for z in (margin, *found.margin.tolist()):
        together = found.probability(np.array([z]))[0]
        assert found.probability_of(z) == pytest.approx(together, rel=1e-12)


def test_a_margin_that_is_no_number_has_no_probability() -> None:
    assert np.isnan(make_calibration().probability_of(float("nan")))
