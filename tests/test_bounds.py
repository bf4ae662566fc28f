"""Bounds: exact where losses are 0 or 1, and never more than the stated risk of error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from training.decide.bounds import per_unit, shown_above_zero, units_needed, upper_rate


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0.001, 0.5))
@settings(max_examples=200)
def test_the_upper_limit_is_clopper_and_pearsons(n, share, risk):
    losses = round(share * n)
    stated = binomtest(losses, n, alternative="less").proportion_ci(1 - risk).high
    assert upper_rate(np.array(losses), n, risk) == pytest.approx(stated, abs=1e-9)


@given(st.integers(1, 500), st.floats(0.002, 0.5), st.floats(0.01, 0.3))
@settings(max_examples=100)
def test_it_is_below_the_rate_in_at_most_the_risk(n, rate, risk):
    """Exactly, by the sum over all counts of losses, not by draws."""
    losses = np.arange(n + 1)
    wrong = upper_rate(losses, n, risk) < rate
    assert binom.pmf(losses[wrong], n, rate).sum() <= risk + 1e-9


@pytest.mark.parametrize(
    ("rate", "risk", "least"), [(0.05, 0.05, 59), (0.02, 0.05, 149), (0.01, 0.05, 299)]
)
def test_how_many_units_no_loss_needs(rate, risk, least):
    assert units_needed(rate, risk) == least
    assert upper_rate(np.array(0), least, risk) <= rate < upper_rate(np.array(0), least - 1, risk)
    some = units_needed(rate, risk, rate / 2)
    assert least < some
    assert upper_rate(np.array(int(np.ceil(some * rate / 2))), some, risk) <= rate


def test_many_tests_at_once_are_each_as_if_alone():
    rng = np.random.default_rng(0)
    values = rng.choice([-0.5, 0.5], (300, 6), p=[0.44, 0.56])
    together = shown_above_zero(values, -1.0, 1.0, 0.05)
    alone = [shown_above_zero(values[:, [k]], -1.0, 1.0, 0.05)[0] for k in range(6)]
    assert together.tolist() == alone
    assert 0 < together.sum() < 6


@pytest.mark.parametrize("high", [1.0, 5.0, 50.0])
def test_wide_ranges_as_of_pseudo_outcomes(high):
    """Mean exactly 0 in [−high, high], mostly small: certified in at most 5 % of draws."""
    rng = np.random.default_rng(int(high))
    draws = 1000
    size = 0.5 * rng.random((400, draws))
    rare = rng.random((400, draws)) < 0.5 / high
    values = np.where(rare, high, size) * rng.choice([-1.0, 1.0], (400, draws))
    passed = shown_above_zero(values, -high, high, 0.05).mean()
    assert passed <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)


def test_it_needs_fewer_errors_than_a_bet_fixed_in_advance():
    """At 2.3 standard errors above 0, where a fixed bet passes in fewer than half of draws."""
    rng = np.random.default_rng(1)
    values = rng.normal(2.3 * 0.2 / np.sqrt(1000), 0.2, (1000, 400)).clip(-1, 1)
    assert shown_above_zero(values, -1.0, 1.0, 0.05).mean() > 0.6


@given(st.integers(1, 60), st.floats(-5, -1e-3), st.floats(1e-3, 5), st.integers(0, 99))
@settings(max_examples=100)
def test_extreme_values_are_no_trouble(n, low, high, seed):
    values = np.random.default_rng(seed).choice([low, high], (n, 2))
    with np.errstate(all="raise", under="ignore"):
        shown = shown_above_zero(values, low, high, 0.05)
        assert not shown_above_zero(np.full((n, 1), low), low, high, 0.05).any()
    assert shown.dtype == bool


def test_a_session_counts_once_and_a_unit_as_many_sessions_as_it_ties():
    values = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    session = np.array([0, 0, 1, 2, 3, 3])
    unit = np.array([4, 4, 4, 4, 7, 7])  # three sessions (means 1/2, 1 and 0) and one (1/2)
    found = per_unit(values, session, unit)
    np.testing.assert_allclose(found, [1.5 / 2, 0.5 / 2])  # two sessions a unit, on average
    assert found.mean() == pytest.approx((0.5 + 1.0 + 0.0 + 0.5) / 4)
    np.testing.assert_allclose(per_unit(values, session, session), [0.5, 1.0, 0.0, 0.5])
