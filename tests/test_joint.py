"""Tiers that learn together: the gap gains where a tier has few rows; paired logs stay apart."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit

from router.forest import Trees
from router.head import Head
from router.ngrams import BUCKETS
from training.learn.crossfit import Lessons, cross_fit
from training.learn.flatten import flatten
from training.learn.heads import fit_heads, probabilities
from training.learn.joint import fit_linears, grow_shared, levels, mostly_unpaired
from training.learn.linear import fit_ridges, linear_margins
from training.learn.members import STANDARD, Matrix
from training.learn.trees import Bins, booster_margins, fit_booster

DIM, RIDGE = 24, STANDARD.ridges[1]


def drawn(n, seed, few=0.1):
    """Prompts that are hard for both tiers alike, and a little for one; one tier sees each.

    Returns:
        Vectors, the chances that each tier suffices, and scores of which the second tier's are few.
    """
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(n, DIM)).astype(np.float32)
    hard = 1.5 * dense[:, 0] - dense[:, 1] + 1.5 * (dense[:, 2] > 0.5) * (dense[:, 3] > 0)
    own = 0.4 * dense[:, 4]
    chance = expit(np.stack([-0.5 - hard, 1.0 - hard - own], axis=1))
    score = (rng.random((n, 2)) < chance) * 1.0
    rare = rng.random(n) < few
    score[rare, 0] = score[~rare, 1] = np.nan
    terms = sparse.csr_matrix((n, BUCKETS))
    return Matrix(dense, terms, np.ones(n), np.zeros((n, 0), np.float32)), chance, score


def fitted_alone(x, score, k):
    rows = np.flatnonzero(~np.isnan(score[:, k]))
    return fit_ridges(x.take(rows), score[rows, k : k + 1], np.ones((len(rows), 1)), (RIDGE,))[0][0]


def grown(bins, score, k):
    rows = np.flatnonzero(~np.isnan(score[:, k]))
    learned = score[rows, k], np.ones(len(rows))
    return fit_booster(bins, rows, *learned, 60, 0, STANDARD, threads=1)


def missed(margins, chance):
    """Mean squared error of the gap, of margins [tiers][n]."""
    p = expit(np.array(margins))
    return float(np.mean((p[1] - p[0] - (chance[:, 1] - chance[:, 0])) ** 2))


def test_the_gap_of_linear_members_gains_where_one_tier_has_few_rows():
    together, apart = [], []
    for seed in range(6):
        x, _, score = drawn(1500, seed)
        new, chance, _ = drawn(3000, 100 + seed)
        joint = fit_linears(x, score, np.ones_like(score), RIDGE)
        alone = [fitted_alone(x, score, k) for k in range(2)]
        for found, linears in ((together, joint), (apart, alone)):
            found.append(missed([linear_margins(one, new) for one in linears], chance))
    assert np.mean(together) < 0.96 * np.mean(apart)
    assert np.less(together, apart).sum() >= 5


def test_the_gap_of_forests_gains_where_one_tier_has_few_rows():
    together, apart = [], []
    for seed in range(6):
        x, _, score = drawn(1500, seed)
        new, chance, _ = drawn(3000, 100 + seed)
        joint = grow_shared(x, score, np.ones_like(score), 60, 0, STANDARD, threads=1)
        bins = Bins.of(x)
        alone = [grown(bins, score, k) for k in range(2)]
        for found, boosters in ((together, joint), (apart, alone)):
            found.append(missed([booster_margins(one, new) for one in boosters], chance))
    assert np.mean(together) < 0.9 * np.mean(apart)
    assert np.less(together, apart).sum() >= 5


def test_tiers_of_a_shared_forest_have_the_same_trees_and_leaves_of_their_own():
    x, _, score = drawn(800, 0)
    small, large = grow_shared(x, score, np.ones_like(score), 20, 0, STANDARD, threads=1)
    one, other = (flatten(booster)[0] for booster in (small, large))
    np.testing.assert_array_equal(one.threshold, other.threshold)
    np.testing.assert_array_equal(one.feature, other.feature)
    assert np.abs(one.leaf - other.leaf).max() > 0.01
    trees = Trees.of([other])
    served = [trees.leaves(row).sum() + other.bias for row in x.dense[:50]]
    np.testing.assert_allclose(served, booster_margins(large, x)[:50], atol=1e-12)
    level = levels(score, np.ones_like(score))
    assert abs(booster_margins(large, x).mean() - level[1]) < 0.5 < level[1] - level[0]


def test_trees_that_gain_nothing_on_held_out_rows_are_left_out():
    x, _, score = drawn(800, 0)
    noise = np.where(np.isnan(score), np.nan, np.random.default_rng(0).integers(0, 2, score.shape))
    one = np.ones_like(score)
    found = grow_shared(x, noise, one, 200, 0, STANDARD, (x, 1.0 - noise, one), threads=1)
    assert found[0].num_trees() == found[1].num_trees() < 20


def test_a_tier_that_never_fails_in_a_fold_stays_finite():
    x, _, score = drawn(400, 1)
    score[~np.isnan(score[:, 1]), 1] = 1.0
    linear = fit_linears(x, score, np.ones_like(score), RIDGE)[1]
    booster = grow_shared(x, score, np.ones_like(score), 20, 0, STANDARD, threads=1)[1]
    for margins in (linear_margins(linear, x), booster_margins(booster, x)):
        assert np.abs(margins).max() < 15
        assert margins.mean() > 2


@pytest.mark.parametrize(("paired", "found"), [(0, True), (49, True), (50, False), (100, False)])
def test_tiers_may_share_where_less_than_half_of_the_labelled_rows_are_paired(paired, found):
    score = np.full((150, 2), np.nan)  # the last 50 have no label
    score[:100, 0] = 1.0
    score[:paired, 1] = 0.0
    assert mostly_unpaired(score) is found
    assert not mostly_unpaired(score[:, :1])


def lessons(x, score):
    folds = np.arange(len(score)) % 4
    return Lessons(
        x, Bins.of(x), score, np.ones_like(score), np.zeros(len(score), int), folds, 30, 0, STANDARD
    )


def test_tiers_of_a_paired_log_learn_apart():
    x, chance, score = drawn(400, 2)
    assert [way.together for way in cross_fit(lessons(x, score))] == [False, True]
    paired = (np.random.default_rng(2).random(chance.shape) < chance) * 1.0
    assert [way.together for way in cross_fit(lessons(x, paired))] == [False]


def test_a_label_has_no_part_in_its_own_margin_of_tiers_together():
    x, _, score = drawn(400, 3)
    flipped = np.where(np.arange(400)[:, None] % 4 == 1, 1.0 - score, score)
    one, other = (cross_fit(lessons(x, given))[1] for given in (score, flipped))
    held_out = np.arange(400) % 4 == 1
    np.testing.assert_array_equal(one.linear(0)[held_out], other.linear(0)[held_out])


def test_heads_of_an_unpaired_log_share_say_so_and_repeat():
    x, _, score = drawn(900, 4)
    new, _, _ = drawn(200, 5)
    rows = np.arange(900)
    fit = (x, score, np.ones_like(score), rows, rows, ("small", "large"), 0, 0)
    one, other = fit_heads(*fit), fit_heads(*fit)
    assert any("by cross-fitting tiers share the" in note for note in one.notes)
    np.testing.assert_array_equal(one.p, other.p)
    np.testing.assert_array_equal(probabilities(one, new), probabilities(other, new))
    for first, again in zip(one.heads, other.heads, strict=True):
        assert isinstance(first, Head) and isinstance(again, Head)
        assert first.linear.weights.tobytes() == again.linear.weights.tobytes()
        assert first.forest.leaf.tobytes() == again.forest.leaf.tobytes()
