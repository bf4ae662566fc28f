"""Partial pooling: kinds that differ are told from kinds that do not, and no label is doubled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.test_joint import drawn
from training.learn.heads import fit_heads, probabilities
from training.learn.pooling import COMMON, OWN, kinds, pooled

GAPS = np.array([0.0, 0.05, 0.25, 0.3])  # by which the second tier is better, of each kind


def objects(values):
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def log_of(rows, seed, gaps=GAPS):
    """Scores of two tiers on `rows` requests of kinds that differ in their gap, and the kinds."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, len(gaps), rows)
    chance = np.stack([np.full(rows, 0.6), 0.6 + gaps[kind]], axis=1)
    return (rng.random((rows, 2)) < chance) * 1.0, kind


def gap(score):
    return score[:, 1] - score[:, 0]


def test_a_kind_is_a_source_with_the_tags_that_are_common():
    tags = [("mail", f"id-{i}") for i in range(COMMON)] + [("mail", "mail"), (), ()]
    source = ["a"] * COMMON + ["a", "a", None]
    found = kinds(objects(source), objects(tags))
    assert (found[: COMMON + 1] == found[0]).all()
    assert len(set(found[-3:])) == 3
    nameless = kinds(objects(["", None]), objects([(), ()]))
    assert nameless[0] != nameless[1]


def test_what_is_learned_is_nearer_to_what_a_kind_differs_by():
    score, kind = log_of(4000, 0)
    found = pooled(score, np.ones_like(score), kind)
    for number, truth in enumerate(GAPS):
        rows = kind == number
        assert gap(found)[rows].mean() == pytest.approx(gap(score)[rows].mean(), abs=0.01)
        error = (gap(found)[rows] - truth) ** 2
        assert error.mean() == pytest.approx(OWN**2 * gap(score)[rows].var(), rel=0.05)


def test_a_label_counts_once():
    """A request's own outcome is not in the mean of its kind that it gets."""
    score, kind = log_of(400, 1)
    other = score.copy()
    other[7] = (1.0, 0.0) if gap(score)[7] >= 0 else (0.0, 1.0)
    before, after = (pooled(given, np.ones_like(given), kind) for given in (score, other))
    change = gap(after)[7] - gap(before)[7]
    assert change == pytest.approx(OWN * (gap(other)[7] - gap(score)[7]), abs=0.02)
    assert np.abs(gap(after) - gap(before))[kind != kind[7]].max() < 0.01


def test_kinds_that_chance_explains_change_little_or_nothing():
    """Over 200 logs whose kinds are alike, what kinds add is a third of what their means would."""
    untouched, added, unshrunk = 0, [], []
    for seed in range(200):
        score, kind = log_of(400, seed, np.full(4, 0.1))
        found = pooled(score, np.ones_like(score), kind)
        untouched += found is score
        if found is not score:
            added.append((gap(found) - OWN * gap(score)).std())
        means = np.array([gap(score)[kind == number].mean() for number in range(4)])
        unshrunk.append((1 - OWN) * means[kind].std())
    assert untouched > 80
    assert sum(added) < sum(unshrunk) / 3


@pytest.mark.parametrize("case", ["one kind", "one tier", "unpaired", "every row its own"])
def test_nothing_is_pooled_where_kinds_tell_nothing(case):
    score, kind = log_of(300, 2)
    if case == "one kind":
        kind = np.zeros_like(kind)
    if case == "one tier":
        score = score[:, :1]
    if case == "unpaired":
        score[np.arange(300), np.arange(300) % 2] = np.nan
    if case == "every row its own":
        kind = np.arange(300)
    assert pooled(score, np.ones_like(score), kind) is score


@given(
    arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(0, 1)),
    st.integers(0, 2**32 - 1),
)
def test_scores_stay_scores_and_unpaired_rows_as_they_are(score, seed):
    rng = np.random.default_rng(seed)
    score[rng.random(len(score)) < 0.3, rng.integers(0, 3)] = np.nan
    weight, kind = rng.uniform(0.1, 20, score.shape), rng.integers(0, 4, len(score))
    found = pooled(score, weight, kind)
    lost = np.isnan(score).any(axis=1)
    np.testing.assert_array_equal(found[lost], score[lost])
    assert ((found[~lost] >= 0) & (found[~lost] <= 1)).all()


def test_neighbours_count_what_past_requests_scored():
    score, kind = log_of(600, 3)
    x, rows = drawn(600, 3)[0], np.arange(600)
    fit = (x, score, np.ones_like(score), rows, rows, ("small", "large"), 0, 0)
    fitted = fit_heads(*fit, kind=kind)
    assert any("4 kinds" in note for note in fitted.notes)
    np.testing.assert_allclose(fitted.neighbours.successes.sum(axis=1), score.sum(axis=0))


def test_heads_order_new_prompts_better_by_what_kinds_tell():
    """Prompts of two kinds, told apart by their words; served heads see nothing but the prompt."""
    better = []
    for seed in range(4):
        x, _, _ = drawn(900, seed)
        kind = (x.dense[:, 5] > np.median(x.dense[:, 5])).astype(np.int64)
        chance = np.stack([np.full(900, 0.7), 0.7 + 0.14 * kind], axis=1)
        score = (np.random.default_rng(seed).random((900, 2)) < chance) * 1.0
        rows, new = np.arange(500), x.take(np.arange(500, 900))
        fit = (x.take(rows), score[:500], np.ones((500, 2)), rows, rows, ("small", "large"), 0, 0)
        told = [
            np.corrcoef(gap(probabilities(fit_heads(*fit, kind=given), new)), kind[500:])[0, 1]
            for given in (None, kind[:500])
        ]
        better.append(told[1] - told[0])
    assert np.mean(better) > 0.05
