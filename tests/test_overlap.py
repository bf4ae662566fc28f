"""Overlap: what was tried where, and the refusal that names the exploration needed."""

import numpy as np
import pytest

from training.errors import BadInput
from training.measure.offpolicy import Logged, always, fixed, largest_weight, pseudo_outcomes
from training.measure.overlap import (
    certifiable,
    measure_overlap,
    require_support,
    unsupported_share,
)

NAMES = ("small", "large")


def log_of(answered, chance):
    """A log of two tiers: who answered each request, and with which propensity."""
    n = len(answered)
    score, asked = np.full((n, 2), np.nan), np.full((n, 2), np.nan)
    score[np.arange(n), answered], asked[np.arange(n), answered] = 1.0, chance
    return Logged(score, asked, np.arange(n))


def rising(n):
    """Estimates whose predicted gain rises from −0.5 to 0.5 with the row."""
    return np.stack([np.linspace(0.75, 0.25, n), np.linspace(0.25, 0.75, n)], axis=1)


def test_shares_effective_rows_and_propensities_by_tenth():
    n = 1000
    answered = np.zeros(n, dtype=np.int64)
    answered[500:] = np.arange(500) % 2
    chance = np.where(np.arange(n) < 500, 0.8, 0.5)
    chance[0] = 0.01
    found = measure_overlap(log_of(answered, chance), rising(n))
    np.testing.assert_array_equal(found.rows, np.full(10, 100))
    np.testing.assert_allclose(found.share[:, 0], [1.0] * 5 + [0.5] * 5)
    np.testing.assert_allclose(found.smallest, [0.01] + [0.8] * 4 + [0.5] * 5)
    weights = np.array([100.0] + [1.25] * 99)
    assert found.effective[0, 0] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert found.effective[1, 0] == pytest.approx(100)
    np.testing.assert_allclose(found.gain[[0, -1]], [-0.5, 0.5])
    assert [part["rows"] for part in found.as_json(NAMES)] == [100] * 10


def test_a_policy_that_goes_where_nobody_went_is_refused():
    n = 1000
    answered = (np.arange(n) % 10 > 0).astype(np.int64)  # one in ten to small …
    answered[600:] = 1  # … but never where the gain is high
    found = measure_overlap(log_of(answered, 0.5), rising(n))
    require_support(found, fixed((np.arange(n) >= 600).astype(np.int64), 2), NAMES, "it")
    with pytest.raises(BadInput, match=r"(?s)it sends 10% .*'small'.*\+0\.1.*at least 10% of"):
        require_support(found, fixed((np.arange(n) >= 700).astype(np.int64), 2), NAMES, "it")
    assert unsupported_share(found, always(0, n, 2)) == pytest.approx(0.4)
    assert unsupported_share(found, always(1, n, 2)) == 0.0


def test_a_request_logged_with_propensity_one_had_no_other_chance():
    n = 400
    answered = (np.arange(n) % 4 > 0).astype(np.int64)
    chance = np.where(np.arange(n) % 8 == 1, 1.0, 0.5)
    found = measure_overlap(log_of(answered, chance), rising(n))
    assert unsupported_share(found, always(0, n, 2)) == pytest.approx(1 / 8)
    with pytest.raises(BadInput, match="propensity 1"):
        require_support(found, always(0, n, 2), NAMES, "it")


def test_a_small_log_is_cut_into_fewer_parts():
    for n, parts in ((50, 1), (250, 2), (5000, 10)):
        answered = np.arange(n) % 2
        assert len(measure_overlap(log_of(answered, 0.5), rising(n)).rows) == parts


@pytest.mark.parametrize("chance", [0.2, 0.5, 0.8])
def test_propensities_that_are_anothers_are_refused(chance):
    """The chance of the tier that did not answer; the right ones are never refused."""
    rng = np.random.default_rng(4)
    n = 1500
    for _ in range(20):
        answered = (rng.random(n) < chance).astype(int)
        right = np.where(answered == 1, chance, 1 - chance)
        certifiable(log_of(answered, right), rising(n), NAMES)
        if chance != 0.5:
            with pytest.raises(BadInput, match="does not fit the log"):
                certifiable(log_of(answered, 1 - right), rising(n), NAMES)


def partly_tried():
    """A log on which small was tried on one in ten of the first 600 prompts, and on no others."""
    n = np.arange(1000)
    answered = np.where((n % 10 == 0) & (n < 600), 0, 1)
    return log_of(answered, np.where(n >= 600, 1.0, np.where(answered == 0, 0.1, 0.9)))


def test_a_cheaper_tier_fails_where_it_was_never_tried():
    log, p = partly_tried(), rising(1000)
    found = certifiable(log, p, NAMES)
    assert (found.score[600:, 0] == 0.0).all()
    known = pseudo_outcomes(log, p)
    np.testing.assert_array_equal(found.score[:600], known[:600])
    np.testing.assert_array_equal(found.score[:, 1], known[:, 1])
    assert (found.low, found.high) == (1 - largest_weight(log), largest_weight(log))
    assert len(found.notes) == 1
    assert "small: never, or almost never, tried on 40.0%" in found.notes[0]
    everywhere = log_of(np.arange(1000) % 2, 0.5)
    assert certifiable(everywhere, p, NAMES).notes == ()


def test_no_promise_can_be_made_without_the_top_or_any_cheaper_tier():
    log, p = partly_tried(), rising(1000)
    turned = Logged(log.score[:, ::-1], log.propensity[:, ::-1], log.session)
    with pytest.raises(BadInput, match=r"always-top, the yardstick.*'large'"):
        certifiable(turned, p, NAMES)
    with pytest.raises(BadInput, match=r"a router with this tier.*'small'"):
        certifiable(log_of(np.ones(1000, np.int64), 0.9), p, NAMES)
