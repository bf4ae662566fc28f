"""Samples: their size, their strata, and that the probabilities they state are true."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from training.ask.sampling import everything, informative, stratified, uniform, usefulness
from training.errors import BadInput

USE = np.array([0.0, 0.0, 0.1, 0.5, 1.0, 1.0, 4.0, 20.0])
STRATA = np.array([0] * 90 + [1] * 9 + [2])


def frequencies(draw, n, rounds=4000):
    """How often each of n is drawn, and the probability that the samples state for it."""
    rng = np.random.default_rng(0)
    times, stated = np.zeros(n), np.full(n, np.nan)
    for _ in range(rounds):
        sample = draw(rng)
        assert len(set(sample.rows.tolist())) == len(sample.rows)
        times[sample.rows] += 1
        stated[sample.rows] = sample.probability
    return times / rounds, stated


@pytest.mark.parametrize(
    ("draw", "n", "size"),
    [
        (lambda rng: uniform(20, 5, rng), 20, 5),
        (lambda rng: stratified(STRATA, 20, rng), 100, 20),
        (lambda rng: informative(USE, 3, rng), 8, 3),
        (lambda rng: informative(np.zeros(8), 3, rng), 8, 3),
        (lambda rng: informative(USE, 7, rng), 8, 7),
    ],
)
def test_the_stated_probability_is_the_frequency(draw, n, size):
    seen, stated = frequencies(draw, n)
    assert (seen > 0).all()  # nothing is out of reach
    assert seen == pytest.approx(stated, abs=4 * np.sqrt(0.25 / 4000))
    assert stated.sum() == pytest.approx(size)
    assert len(draw(np.random.default_rng(1)).rows) == size


def test_a_weighted_mean_over_an_informative_sample_is_honest():
    rng = np.random.default_rng(3)
    use = rng.gamma(0.5, size=400)
    outcome = (use > np.median(use)).astype(float)  # what is useful succeeds more often
    plain, weighted = [], []
    for _ in range(300):
        sample = informative(use, 60, rng)
        plain.append(outcome[sample.rows].mean())
        weighted.append((outcome[sample.rows] / sample.probability).sum() / 400)
    assert np.mean(plain) > 0.6
    assert np.mean(weighted) == pytest.approx(0.5, abs=0.02)


def test_no_informative_sample_weighs_a_request_more_than_four_times():
    sample = informative(np.random.default_rng(0).pareto(0.5, 1000), 100, np.random.default_rng(0))
    assert sample.probability.min() >= 0.25 * 100 / 1000 - 1e-12


def test_strata_all_appear_and_small_ones_more_than_their_share():
    sample = stratified(STRATA, 20, np.random.default_rng(0))
    counts = np.bincount(STRATA[sample.rows])
    assert counts.sum() == 20
    assert counts[2] == 1
    assert counts[1] / 9 > counts[0] / 90
    with pytest.raises(BadInput, match="3 strata"):
        stratified(STRATA, 2, np.random.default_rng(0))


def test_everything_is_everything_in_another_order():
    sample = everything(50, np.random.default_rng(0))
    assert sorted(sample.rows) == list(range(50))
    assert list(sample.rows) != list(range(50))
    assert (sample.probability == 1).all()


def test_usefulness_is_the_loss_expected_of_the_tier_that_seems_best():
    p, usd = np.array([[0.2, 0.6, 0.7]]), np.array([[0.0, 1e-3, 3e-3]])
    ahead, sigma = (0.7 - 0.06) - (0.6 - 0.02), np.sqrt(0.6 * 0.4 + 0.7 * 0.3)
    loss = quad(lambda lead: -lead * norm.pdf(lead, ahead, sigma), -10, 0)[0]
    assert usefulness(p, usd, mu=20.0) == pytest.approx([loss])


def test_what_is_near_the_threshold_and_unsure_is_useful():
    p = np.array([[0.5, 0.6], [0.1, 0.9], [0.99, 0.991], [0.5, 0.6]])
    usd = np.array([[0.0, 0.1], [0.0, 0.1], [0.0, 0.1], [0.0, 0.9]])
    use = usefulness(p, usd, mu=1.0)
    assert use[0] == use.max()  # on the threshold
    assert (use >= 0).all()
    assert use[3] < use[0]  # the same chances, far from the threshold by its cost
