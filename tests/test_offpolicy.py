"""Off-policy values: unbiased by enumeration, equal where they must be, covering the truth."""

from itertools import product

import numpy as np
import pytest

from training.measure import offpolicy as op
from training.measure.offpolicy import Logged

SCORE = np.array([[0.2, 0.9], [1.0, 0.6], [0.0, 0.4]])
CHANCE = np.array([[0.7, 0.3], [0.1, 0.9], [0.5, 0.5]])
POLICIES = {
    "fixed": op.fixed(np.array([0, 1, 1]), 2),
    "always top": op.always(1, 3, 2),
    "coin": np.tile([0.25, 0.75], (3, 1)),
}


def observe(answered, score=SCORE, chance=CHANCE):
    """The log in which tier `answered[i]` answered request i."""
    rows = np.arange(len(score))
    seen, asked = np.full_like(score, np.nan), np.full_like(score, np.nan)
    seen[rows, answered] = score[rows, answered]
    asked[rows, answered] = chance[rows, answered]
    return Logged(seen, asked, rows)


def enumerate_logs():
    """Every log that the logging policy can write, with its probability."""
    for answered in product(range(2), repeat=3):
        yield CHANCE[np.arange(3), answered].prod(), observe(np.array(answered))


def draw(n, rng, explore=0.1, wrong=0.2):
    """A log of n requests, the heads' estimates, and a policy that cuts at their gain."""
    p = np.stack([rng.beta(2, 1.5, n), rng.beta(5, 1, n)], axis=1)
    score = (rng.random((n, 2)) < p).astype(float)
    guess = np.clip(p + rng.normal(0, wrong, p.shape), 0, 1)
    policy = op.fixed((guess[:, 1] - guess[:, 0] > 0.2).astype(np.int64), 2)
    chance = np.tile([explore, 1 - explore], (n, 1))
    answered = (rng.random(n) >= explore).astype(np.int64)
    return observe(answered, score, chance), guess, policy, float((policy * p).sum(axis=1).mean())


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_ips_and_doubly_robust_are_unbiased_over_every_log(policy):
    truth = (policy * SCORE).sum(axis=1).mean()
    p = np.random.default_rng(0).random((3, 2))
    ips = sum(chance * op.ips_terms(log, policy).mean() for chance, log in enumerate_logs())
    robust = sum(
        chance * op.doubly_robust_terms(log, policy, p).mean() for chance, log in enumerate_logs()
    )
    assert ips == pytest.approx(truth, abs=1e-12)
    assert robust == pytest.approx(truth, abs=1e-12)


def test_a_head_that_knows_leaves_no_variance():
    values = [op.doubly_robust_terms(log, POLICIES["fixed"], SCORE) for _, log in enumerate_logs()]
    np.testing.assert_allclose(values, np.tile(values[0], (8, 1)), atol=1e-12)


def test_doubly_robust_with_a_head_that_knows_nothing_is_ips():
    rng = np.random.default_rng(1)
    logged, guess, policy, _ = draw(200, rng)
    np.testing.assert_allclose(
        op.doubly_robust_terms(logged, policy, np.zeros_like(guess)), op.ips_terms(logged, policy)
    )


def test_where_every_tier_was_observed_each_estimate_is_the_paired_mean():
    rng = np.random.default_rng(2)
    score, p = rng.random((50, 3)), rng.random((50, 3))
    logged = Logged(score, np.full_like(score, np.nan), np.arange(50))
    tier = rng.integers(0, 3, 50)
    policy = op.fixed(tier, 3)
    paired = score[np.arange(50), tier]
    for terms in (
        op.ips_terms(logged, policy),
        op.snips_terms(logged, policy),
        op.doubly_robust_terms(logged, policy, p),
    ):
        np.testing.assert_allclose(terms, paired, atol=1e-12)
    np.testing.assert_array_equal(op.pseudo_outcomes(logged, p), score)


def test_snips_is_the_weighted_mean_and_ignores_a_shift():
    logged, _, policy, _ = draw(300, np.random.default_rng(3))
    weight = (policy * logged.weight).sum(axis=1)
    score = np.nansum(logged.score, axis=1)
    assert op.snips_terms(logged, policy).mean() == pytest.approx((weight @ score) / weight.sum())
    perfect = Logged(
        np.where(np.isnan(logged.score), np.nan, 1.0), logged.propensity, logged.session
    )
    np.testing.assert_allclose(op.snips_terms(perfect, policy), 1.0)
    assert op.ips_terms(perfect, policy).mean() != pytest.approx(1.0)


def test_pseudo_outcomes_stay_in_their_range():
    logged, _, _, _ = draw(500, np.random.default_rng(4))
    most = op.largest_weight(logged)
    assert most == 10.0
    for p in (np.zeros_like(logged.score), np.ones_like(logged.score)):
        found = op.pseudo_outcomes(logged, p)
        assert found.min() >= 1 - most and found.max() <= most
    everything = Logged(np.ones((2, 2)), np.full((2, 2), 0.1), np.arange(2))
    assert op.largest_weight(everything) == 1.0


def test_a_shadow_answer_without_propensity_counts_only_beside_all_others():
    score = np.array([[1.0, 0.0, np.nan], [1.0, 0.0, 1.0]])
    asked = np.array([[0.5, np.nan, np.nan], [0.5, np.nan, np.nan]])
    weight = Logged(score, asked, np.arange(2)).weight
    np.testing.assert_array_equal(weight, [[2.0, 0.0, 0.0], [1.0, 1.0, 1.0]])


def test_effective_rows():
    even, uneven = np.array([[0.5, np.nan]] * 4), np.array([[0.5, np.nan]] * 3 + [[0.01, np.nan]])
    score = np.array([[1.0, np.nan]] * 4)
    policy = op.always(0, 4, 2)
    assert op.effective_rows(Logged(score, even, np.arange(4)), policy) == pytest.approx(4.0)
    assert 1 < op.effective_rows(Logged(score, uneven, np.arange(4)), policy) < 1.2
    assert op.effective_rows(Logged(score, even, np.arange(4)), op.always(1, 4, 2)) == 0


def test_a_session_said_ten_times_is_no_better_known():
    terms = np.random.default_rng(5).random(60)
    once = op.interval(terms, np.arange(60))
    again = op.interval(np.tile(terms, 10), np.tile(np.arange(60), 10))
    assert (again.value, again.low, again.high) == pytest.approx((once.value, once.low, once.high))
    assert np.isnan(op.interval(terms, np.zeros(60, dtype=np.int64)).low)  # one session


@pytest.mark.parametrize("sizes", [(160, *[1] * 240), (150, 150, *[1] * 200), (500, *[1] * 40)])
def test_intervals_cover_the_truth_where_few_sessions_hold_most(sizes):
    """Costs of a session have half of their variance in common: a batch job under one id."""
    rng = np.random.default_rng(7)
    session, covered = np.repeat(np.arange(len(sizes)), sizes), 0
    for _ in range(400):
        common = rng.normal(0.0, 0.5**0.5, len(sizes))[session]
        found = op.interval(common + rng.normal(0.0, 0.5**0.5, len(session)), session)
        covered += found.low <= 0.0 <= found.high
    assert covered >= 400 * 0.95 - 2 * (400 * 0.05 * 0.95) ** 0.5


def test_intervals_cover_the_truth():
    """400 logs of 400 requests, 40 explored: counts of intervals that hold the truth."""
    rng = np.random.default_rng(6)
    truth = draw(400_000, rng)[3]
    held = {"ips": 0, "snips": 0, "robust": 0}
    error = {"ips": 0.0, "snips": 0.0, "robust": 0.0}
    for _ in range(400):
        logged, guess, policy, _ = draw(400, rng)
        terms = {
            "ips": op.ips_terms(logged, policy),
            "snips": op.snips_terms(logged, policy),
            "robust": op.doubly_robust_terms(logged, policy, guess),
        }
        for name, values in terms.items():
            found = op.interval(values, logged.session)
            held[name] += found.low <= truth <= found.high
            error[name] += (found.value - truth) ** 2
    assert all(0.92 <= count / 400 <= 0.98 for count in held.values()), held
    assert error["robust"] < min(error["ips"], error["snips"])
