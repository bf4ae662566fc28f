"""On one-sided logs the gap between tiers follows the members as far as the log bears it out."""

import numpy as np
import pytest
from scipy.special import expit

from router.head import Blend
from training.learn.gaps import LEAST, MOST, _ratio, temper

ONE = Blend(np.array([1.0]), np.array([1.0]))


def drawn(seed, truth, n=6000, explored=0.1, spread=1.0):
    """Margins of one member, whose deviations between tiers are true or noise, and a log.

    Returns:
        float64[1, n, 2], scores and weights float64[n, 2], the true gap float64[n].
    """
    rng = np.random.default_rng(seed)
    hard, apart, noise = rng.normal(size=(3, n)) * [[spread], [1.0], [1.0]]
    sides = np.array([-0.5, 0.5])
    told = hard[:, None] + 1.2 * sides + sides * (apart if truth else noise)[:, None]
    chance = expit(hard[:, None] + 1.2 * sides + sides * apart[:, None])
    served = (rng.random(n) < explored).astype(int)
    seen = served[:, None] == np.arange(2)
    score = np.where(seen, rng.random((n, 2)) < chance, np.nan)
    weight = np.where(seen, np.where(served[:, None] == 1, 1 / explored, 1 / (1 - explored)), 1.0)
    return told[None], score, weight, chance[:, 1] - chance[:, 0]


def every(score):
    return np.ones(score.shape, dtype=bool)


def factor(seed, truth, **log):
    margins, score, weight, _ = drawn(seed, truth, **log)
    return float(temper(ONE, margins, score, weight, every(score)).gap[0])


def test_deviations_that_are_true_are_followed_and_noise_is_not():
    true, noise = ([factor(seed, truth) for seed in range(12)] for truth in (True, False))
    assert 0.8 < np.mean(true) < 1.25
    assert np.mean(noise) < 0.5
    assert np.less(noise, true).sum() >= 11
    assert all(LEAST <= one <= MOST for one in (*true, *noise))


def test_prompts_are_ordered_better():
    gained = []
    for seed in range(6):
        margins, score, weight, gap = drawn(seed, truth=False, spread=2.5)
        tempered = temper(ONE, margins, score, weight, every(score))
        orders = (expit(blend.combine(margins)) @ [-1.0, 1.0] for blend in (ONE, tempered))
        before, after = (np.corrcoef(order, gap)[0, 1] for order in orders)
        gained.append(after - before)
    assert min(gained) > 0


def test_the_ratio_is_that_of_the_two_slopes_and_1_where_few_rows_tell():
    rng = np.random.default_rng(0)
    level, own, noise = rng.normal(size=(3, 20_000, 1)) * [[[0.2]], [[0.2]], [[0.3]]]
    gap = 0.1 + 1.6 * level + 0.8 * own + noise
    assert _ratio(level, own, gap) == pytest.approx(0.8 / 1.6, abs=0.03)
    assert _ratio(own, level, gap) == pytest.approx(1.6 / 0.8, abs=0.15)
    assert _ratio(level[:8], own[:8], gap[:8]) == pytest.approx(1.0, abs=0.25)


def test_a_small_log_is_taken_for_an_average_one():
    found = [abs(factor(seed, True, n=1200) - 1.0) for seed in range(8)]
    assert np.mean(found) < 0.4


def test_only_firm_scores_speak_and_a_hundred_of_each_tier_are_needed():
    margins, score, weight, _ = drawn(0, truth=False)
    few = np.zeros(score.shape, dtype=bool)
    few[:500] = True
    assert temper(ONE, margins, score, weight, few) is ONE
    half = np.zeros(score.shape, dtype=bool)
    half[::2] = True
    found = [temper(ONE, margins, score, weight, half).gap for _ in range(2)]
    assert found[0] < 0.7
    np.testing.assert_array_equal(*found)


def test_three_tiers_share_one_factor_and_constants_do_no_harm():
    margins, score, weight, _ = drawn(3, truth=True)
    middle = np.full((len(score), 1), np.nan)
    middle[::3, 0] = score[::3].max(axis=1, initial=0.0, where=~np.isnan(score[::3]))
    three = np.concatenate([margins, margins.mean(axis=2, keepdims=True)], axis=2)
    scores, weights = np.hstack([score, middle]), np.hstack([weight, np.ones_like(middle)])
    found = temper(ONE, three, scores, weights, every(scores))
    assert LEAST <= found.gap[0] <= MOST
    flat = np.zeros_like(margins)
    assert np.isfinite(temper(ONE, flat, score, weight, every(score)).gap).all()
