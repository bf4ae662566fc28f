"""Fitting a calibration: the right line, and always a rising one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from training.learn.calibrate import fit_calibrations, log_loss, moved


def fit_calibration(margin, score, weight):
    """Of one tier."""
    [found] = fit_calibrations(margin[:, None], score[:, None], weight[:, None])
    return found


@pytest.mark.parametrize(("shift", "slope"), [(0.0, 1.0), (1.5, 1.0), (-0.7, 0.4), (0.3, 2.5)])
def test_recovers_a_known_miscalibration(shift, slope):
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 1.5, 6000)
    true = expit(shift + slope * margin)
    outcome = (rng.random(6000) < true).astype(float)
    fitted = fit_calibration(margin, outcome, np.ones(6000))
    error = np.abs(fitted.probability(margin) - true)
    assert error.mean() < 0.02
    assert error.max() < 0.12


def test_bends_where_much_data_says_so():
    """A broken line in log-odds, which Platt's scaling cannot follow."""
    rng = np.random.default_rng(1)
    margin = rng.normal(0, 1.5, 20_000)
    true = expit(np.where(margin > 0, 0.3 * margin, 2.0 * margin))
    outcome = (rng.random(20_000) < true).astype(float)
    fitted = fit_calibration(margin, outcome, np.ones(20_000))
    assert np.abs(fitted.probability(margin) - true).mean() < 0.02


def test_weights_count_rows():
    rng = np.random.default_rng(2)
    margin = rng.normal(size=400)
    outcome = (rng.random(400) < expit(margin)).astype(float)
    weight = rng.integers(1, 4, 400)
    twice = np.repeat(np.arange(400), weight)
    few, many = np.ones(len(twice)), weight.astype(float)
    one = fit_calibration(margin, outcome, many).probability(margin)
    other = fit_calibration(margin[twice], outcome[twice], few).probability(margin)
    assert np.abs(one - other).max() < 0.03


def test_graded_scores_are_expectations():
    rng = np.random.default_rng(3)
    margin = rng.normal(size=4000)
    true = expit(0.5 * margin - 0.4)
    score = rng.beta(5 * true, 5 * (1 - true))
    fitted = fit_calibration(margin, score, np.ones(4000))
    assert np.abs(fitted.probability(margin) - true).mean() < 0.015


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 1600),
    st.sampled_from(["random", "ones", "zeros", "backwards", "tied", "wide"]),
)
def test_always_rises_strictly(seed, n, kind):
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=n)
    if kind == "tied":
        margin = np.round(margin) * 0.0
    if kind == "wide":
        margin *= 30.0
    outcome = {"ones": np.ones(n), "zeros": np.zeros(n), "backwards": (margin < 0) * 1.0}.get(
        kind, (rng.random(n) < 0.5) * 1.0
    )
    fitted = fit_calibration(margin, outcome, np.ones(n))
    assert (np.diff(fitted.logit) > 0).all()
    p = fitted.probability(np.sort(margin))
    assert ((p > 0) & (p < 1)).all()
    assert (np.diff(p) >= 0).all()


def test_tiers_share_a_slope_unless_much_data_tells_them_apart():
    """At each tier's level; chance does not tilt a small log's tiers, a large log has its say."""
    true = np.array([0.7, 1.4])  # slopes
    for n, apart in ((200, (0.0, 0.5)), (40_000, (0.55, 0.8))):
        rng = np.random.default_rng(6)
        margins = rng.normal(0, 1.5, (n, 2))
        score = (rng.random((n, 2)) < expit(true * margins + (-1.0, 1.0))) * 1.0
        score[rng.random((n, 2)) < 0.2] = np.nan
        fitted = fit_calibrations(margins, score, np.ones((n, 2)))
        tilt = [np.polyfit(c.margin, c.logit, 1)[0] for c in fitted]
        assert apart[0] <= np.log(tilt[1] / tilt[0]) <= apart[1]
        for k, calibration in enumerate(fitted):
            seen = ~np.isnan(score[:, k])
            told = calibration.probability(margins[seen, k]).mean()
            assert told == pytest.approx(score[seen, k].mean(), abs=0.02)


def test_log_loss_by_hand():
    margin = np.array([0.0, np.log(3.0)])
    found = log_loss(margin, np.array([1.0, 0.25]), np.array([1.0, 2.0]))
    by_hand = np.log(2) + 2 * (-0.25 * np.log(0.75) - 0.75 * np.log(0.25))
    assert found == pytest.approx(by_hand)


def test_a_moved_line_has_the_level_of_its_rows_and_the_slope_of_before():
    rng = np.random.default_rng(3)
    margin = rng.normal(0, 1.5, 4000)
    line = fit_calibration(margin, (rng.random(4000) < expit(margin)) * 1.0, np.ones(4000))
    some, weight = margin[:300], rng.random(300)
    score = (rng.random(300) < expit(some - 1.0)) * 1.0
    lower = moved(line, some, score, weight)
    assert lower.probability(some) @ weight == pytest.approx(score @ weight)
    np.testing.assert_allclose(np.diff(lower.logit), np.diff(line.logit), atol=1e-12)
    np.testing.assert_array_equal(lower.margin, line.margin)
