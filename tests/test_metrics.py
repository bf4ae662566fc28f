"""Every metric against its definition, spelled out slowly on small arrays full of ties."""

import itertools
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from training.errors import BadInput
from training.measure.curve import Walk, oracle_walk, order_walk, policy_walk, trace
from training.measure.intervals import Interval, bootstrap, values
from training.measure.limits import allowing, choice_limits
from training.measure.metrics import (
    aiq,
    bad_downgrades,
    best_constant,
    curve_metrics,
    policy_metrics,
    random_metrics,
    states,
    sufficed,
    undefined,
)
from training.measure.reliability import reliability_metrics, reliability_table

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


SOME_TIERS = st.integers(2, 4)


@st.composite
def worlds(draw, tiers=SOME_TIERS, most=9):
    """(p, expected cost, quality, cost), on coarse grids so that ties and zeros are common."""
    n, k = draw(st.integers(1, most)), draw(tiers)

    def grid(top, scale):
        cells = draw(st.lists(st.integers(0, top), min_size=n * k, max_size=n * k))
        return np.array(cells, dtype=float).reshape(n, k) / scale

    return grid(4, 4), grid(5, 10), grid(2, 2), grid(5, 10)


two_tiers = worlds(tiers=st.just(2))


def choices(p, cost, mu):
    """argmax of p − μ · cost, spelled out; ties to the dearest."""
    picked = []
    for row_p, row_c in zip(p, cost, strict=True):
        worth = [(a - mu * c, c) for a, c in zip(row_p, row_c, strict=True)]
        best = max(w for w, _ in worth)
        picked.append({t for t, (w, _) in enumerate(worth) if w >= best - 1e-9})
    return picked


@given(worlds())
def test_every_state_of_the_walk_is_the_choice_of_its_dial(world):
    p, expected, _, _ = world
    walk = policy_walk(p, expected)
    for step in range(1, len(walk.mu)):
        mu = walk.dial(step)
        if math.isinf(mu):
            continue
        chosen = walk.tiers_at(step)
        assert all(t in best for t, best in zip(chosen, choices(p, expected, mu), strict=True))


@given(worlds())
def test_no_dial_gives_a_mix_that_the_walk_leaves_out(world):
    p, expected, _, _ = world
    walk = policy_walk(p, expected)
    visited = {tuple(walk.tiers_at(step)) for step in range(len(walk.mu) + 1)}
    breaks = sorted(
        {
            (p[i, a] - p[i, b]) / (expected[i, a] - expected[i, b])
            for i in range(len(p))
            for a, b in itertools.combinations(range(p.shape[1]), 2)
            if expected[i, a] != expected[i, b]
        }
    )
    for low, high in pairwise(breaks):
        if high - low < 1e-6:
            continue
        best = choices(p, expected, (low + high) / 2)
        # Tiers alike in probability and cost stay tied at every dial: any of them will do.
        assert any(all(t in b for t, b in zip(seen, best, strict=True)) for seen in visited)


@given(worlds())
def test_walk_goes_from_always_cheapest_to_always_top(world):
    p, expected, quality, cost = world
    walk = policy_walk(p, expected)
    assert (walk.tiers_at(0) == 0).all()
    assert (walk.tiers_at(len(walk.mu)) == p.shape[1] - 1).all()
    assert (np.diff(walk.mu) < 0).all()
    curve = trace(walk, quality, cost)
    for step in range(len(walk.mu) + 1):
        tier, rows = walk.tiers_at(step), np.arange(len(p))
        np.testing.assert_allclose(curve.quality[step], quality[rows, tier].mean(), **CLOSE)
        np.testing.assert_allclose(curve.cost_usd[step], cost[rows, tier].mean(), **CLOSE)
        share = np.bincount(tier, minlength=p.shape[1]) / len(p)
        np.testing.assert_allclose(curve.share[step], share, **CLOSE)


@given(two_tiers)
def test_two_tiers_are_ordered_by_gain_per_extra_dollar(world):
    p, expected, quality, cost = world
    expected = expected + np.array([0.0, 1.0])  # the top tier is dearer for every request
    ratio = (p[:, 1] - p[:, 0]) / (expected[:, 1] - expected[:, 0])
    general, plain = policy_walk(p, expected), order_walk(ratio)
    for one, other in zip(
        values(curve_metrics(general, quality, cost), len(p)).values(),
        values(curve_metrics(plain, quality, cost), len(p)).values(),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, **CLOSE)


def brute(walk: Walk, quality, cost):
    """The definitions of section 7, state by state, with plain loops."""
    rows, k = range(len(quality)), quality.shape[1]
    path = []
    for step in range(len(walk.mu) + 1):
        tier = walk.tiers_at(step)
        path.append(
            (
                sum(tier[i] == k - 1 for i in rows) / len(rows),
                sum(cost[i, tier[i]] for i in rows) / len(rows),
                sum(quality[i, tier[i]] for i in rows) / len(rows),
            )
        )
    (_, u0, q0), (_, u1, q1) = path[0], path[-1]
    found = {}
    for r in (1.0, 0.99, 0.95):
        cheapest = min(u for _, u, q in path if q >= r * q1 - 1e-12)
        found[f"saving_{100 * r:.0f}"] = (
            u1 / cheapest if cheapest else (math.inf if u1 else math.nan)
        )
    if q1 > q0 + 1e-9:
        pgr = [(q - q0) / (q1 - q0) for *_, q in path]
        found["apgr"] = sum(
            (b[0] - a[0]) * (x + y) / 2
            for (a, b), (x, y) in zip(pairwise(path), pairwise(pgr), strict=True)
        )
        for x in (0.2, 0.5, 0.8):
            found[f"cpt_{100 * x:.0f}"] = min(
                c for (c, _, _), y in zip(path, pgr, strict=True) if y >= x - 1e-12
            )
    if u1 > u0 + 1e-9:
        found["aiq"] = hull_area([(u, q) for _, u, q in path], u0, u1) / (u1 - u0)
    return found


def hull_area(points, low, high):
    """Area of the highest of all chords (and flat lines to the right), on a fine set of corners."""

    def height(x):
        best = max(q for u, q in points if u <= x + 1e-15)
        for (a, p), (b, q) in itertools.permutations(points, 2):
            if a <= x <= b and a < b:
                best = max(best, p + (q - p) * (x - a) / (b - a))
        return best

    corners = sorted({min(max(u, low), high) for u, _ in points} | {low, high})
    return sum((b - a) * (height(a) + height(b)) / 2 for a, b in pairwise(corners))


@given(two_tiers)
def test_metrics_of_two_tiers_are_their_definitions(world):
    p, expected, quality, cost = world
    walk = policy_walk(p, expected)
    found = values(curve_metrics(walk, quality, cost), len(p))
    for metric, wanted in brute(walk, quality, cost).items():
        np.testing.assert_allclose(found[metric], wanted, err_msg=metric, **CLOSE)


@given(worlds(tiers=st.integers(3, 4), most=6))
def test_metrics_of_more_tiers_are_their_definitions(world):
    p, expected, quality, cost = world
    walk = policy_walk(p, expected)
    found = values(curve_metrics(walk, quality, cost), len(p))
    wanted = brute(walk, quality, cost)
    wanted.pop("apgr", None)
    assert math.isnan(found["apgr"])
    for metric, value in wanted.items():
        np.testing.assert_allclose(found[metric], value, err_msg=metric, **CLOSE)


def test_a_worked_example():
    """Four requests; the best two to upgrade recover the whole gap at half of the extra cost."""
    quality = np.array([[0, 1], [0, 1], [1, 1], [1, 1]], dtype=float)
    cost = np.array([[1, 3]] * 4, dtype=float)
    found = values(curve_metrics(order_walk([4, 3, 2, 1]), quality, cost), 4)
    assert found["apgr"] == pytest.approx(0.75)
    assert found["apgr_cost"] == pytest.approx(0.75)
    assert [found[f"cpt_{x}"] for x in (20, 50, 80)] == [0.25, 0.25, 0.5]
    assert found["saving_100"] == pytest.approx(3 / 2)
    assert found["aiq"] == pytest.approx(0.875)


@given(two_tiers, st.sampled_from([np.exp, np.arctan, lambda s: s**3, lambda s: 7 * s - 2]))
def test_only_the_order_of_scores_counts(world, change):
    p, _, quality, cost = world
    score = p[:, 1] - p[:, 0]
    before = values(curve_metrics(order_walk(score), quality, cost), len(p))
    after = values(curve_metrics(order_walk(change(score)), quality, cost), len(p))
    assert before.keys() == after.keys()
    for metric in before:
        np.testing.assert_array_equal(before[metric], after[metric])


@given(two_tiers)
def test_equal_scores_are_worth_a_coin(world):
    _, _, quality, cost = world
    n = len(quality)
    flat = values(curve_metrics(order_walk(np.zeros(n)), quality, cost), n)
    coin = values(random_metrics(quality, cost), n)
    for metric in ("apgr", "apgr_cost", "aiq"):
        np.testing.assert_allclose(flat[metric], coin[metric], err_msg=metric, **CLOSE)


def test_random_orders_have_an_apgr_of_one_half():
    rng = np.random.default_rng(1)
    quality = (rng.random((500, 2)) < [[0.5, 0.9]]).astype(float)
    cost = np.full((500, 2), [[1.0, 10.0]])
    found = [
        values(curve_metrics(order_walk(rng.permutation(500)), quality, cost), 500)["apgr"]
        for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.01)


@given(worlds())
def test_nobody_beats_the_oracle(world):
    p, expected, quality, cost = world
    n = len(p)
    ours = values(curve_metrics(policy_walk(p, expected), quality, cost), n)
    best = values(curve_metrics(oracle_walk(quality, cost), quality, cost), n)
    assert math.isnan(ours["aiq"]) or best["aiq"] >= ours["aiq"] - 1e-9
    chosen = values(policy_metrics(quality.argmax(axis=1), quality, cost), n)
    curve = trace(policy_walk(p, expected), quality, cost)
    assert chosen["quality"] >= curve.quality.max() - 1e-9
    assert chosen["bad_downgrade"] == 0


@given(two_tiers)
def test_nobody_beats_the_order_by_true_gain(world):
    p, _, quality, cost = world
    n = len(p)
    ours = values(curve_metrics(order_walk(p[:, 0]), quality, cost), n)["apgr"]
    best = values(curve_metrics(order_walk(quality[:, 1] - quality[:, 0]), quality, cost), n)
    assert math.isnan(ours) or best["apgr"] >= ours - 1e-9


@given(worlds(), st.integers(0, 2**32 - 1))
def test_a_fixed_choice_is_measured_by_its_definition(world, seed):
    _, _, quality, cost = world
    n, k = quality.shape
    tier = np.random.default_rng(seed).integers(k, size=n)
    rows = np.arange(n)
    found = values(policy_metrics(tier, quality, cost), n)
    assert found["quality"] == pytest.approx(quality[rows, tier].mean())
    assert found["cost_usd"] == pytest.approx(cost[rows, tier].mean())
    bad = [quality[i, tier[i]] < 0.5 <= quality[i, -1] for i in rows]
    assert found["bad_downgrade"] == pytest.approx(np.mean(bad))
    blind = sum(found[f"share_{t}"] * quality[:, t].mean() for t in range(k))
    assert found["above_random"] == pytest.approx(quality[rows, tier].mean() - blind)
    assert sum(found[f"share_{t}"] for t in range(k)) == pytest.approx(1)
    if cost[rows, tier].mean() > 0:
        assert found["saving"] == pytest.approx(cost[:, -1].mean() / cost[rows, tier].mean())


def test_matched_random_is_the_mean_of_shuffled_choices():
    rng = np.random.default_rng(2)
    tier, quality = rng.integers(3, size=200), rng.random((200, 3))
    shuffled = [quality[np.arange(200), rng.permutation(tier)].mean() for _ in range(2000)]
    found = values(policy_metrics(tier, quality, np.ones((200, 3))), 200)
    assert found["quality"] - found["above_random"] == pytest.approx(np.mean(shuffled), abs=0.003)


def test_best_constant_is_the_cheapest_that_is_good_enough():
    quality = np.array([[0.90, 0.99, 0.98, 1.0]] * 5)
    cost = np.array([[1.0, 3.0, 2.0, 9.0]] * 5)
    assert best_constant(quality, cost) == 3
    assert best_constant(quality, cost, 0.98) == 2
    assert best_constant(quality, cost, 0.90) == 0


def test_bad_downgrades_spare_failures_that_the_top_shares():
    suffices = np.array([[False, True], [False, False], [True, False], [False, True]])
    assert bad_downgrades(np.array([0, 0, 0, 1]), suffices).tolist() == [True, False, False, False]
    assert sufficed([[0.5, 0.4]]).tolist() == [[True, False]]


def test_what_does_not_exist_is_nan_with_a_reason():
    level, free = np.full((6, 2), 0.5), np.zeros((6, 2))
    found = values(curve_metrics(order_walk(np.arange(6)), level, free), 6)
    for metric in ("apgr", "apgr_cost", "cpt_50", "cpt_50_cost", "aiq", "saving_100"):
        assert math.isnan(found[metric]), metric
    reasons = " ".join(undefined(level, free).values())
    assert "no gap to recover" in reasons and "not dearer" in reasons and "nothing" in reasons
    coin = values(random_metrics(level, free), 6)
    assert math.isnan(coin["apgr"]) and math.isnan(coin["aiq"])
    assert undefined([[0, 1]], [[1, 2]]) == {}
    assert set(undefined([[0, 0, 1]], [[1, 1, 2]])) == {"apgr"}


def test_a_free_and_sufficient_tier_saves_without_limit():
    found = values(curve_metrics(order_walk([1.0, 2.0]), np.ones((2, 2)), [[0, 1], [0, 1]]), 2)
    assert math.isinf(found["saving_100"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: policy_walk([[0.5, np.nan]], [[1, 2]]), "row 0, tier 1"),
        (lambda: policy_walk([[0.5, 0.6]], [[1, np.inf]]), "expected_cost: row 0"),
        (lambda: policy_walk([[0.5, 0.6]], [[1, 2, 3]]), "does not fit"),
        (lambda: policy_walk([[0.5]], [[1]]), "tiers ≥ 2"),
        (lambda: policy_walk(np.zeros((0, 2)), np.zeros((0, 2))), "shape"),
        (lambda: order_walk([1.0, np.nan]), "order"),
        (lambda: order_walk([[1.0]]), "order"),
        (lambda: curve_metrics(order_walk([1.0]), [[0, 1]], [[-1, 1]]), "below zero"),
        (lambda: curve_metrics(order_walk([1.0]), [[0, 1, 1]], [[1, 1, 1]]), "does not fit"),
        (lambda: policy_metrics([0.5], [[0, 1]], [[1, 1]]), "whole numbers"),
        (lambda: policy_metrics([2], [[0, 1]], [[1, 1]]), "not inside 0 … 1"),
        (lambda: bad_downgrades([0], [[0.0, 1.0]]), "bool"),
        (lambda: reliability_metrics([1.5], [1]), "not inside"),
        (lambda: reliability_metrics([0.5, 0.5], [1]), "one of each"),
        (lambda: reliability_metrics([0.5], [1], [1]), "suffices"),
        (lambda: reliability_table([0.5], [1], bins=0), "bins"),
        (lambda: bootstrap({}, 0), "0 rows"),
        (lambda: bootstrap({}, 5, resamples=10), "10 resamples"),
        (lambda: bootstrap({}, 2, groups=["a"]), "one label per request"),
        (lambda: bootstrap({}, 2, groups=["a", "a"]), "one session"),
    ],
)
def test_wrong_arrays_are_refused_in_words(call, words):
    with pytest.raises(BadInput, match=words):
        call()


probabilities = st.lists(
    st.tuples(st.integers(0, 10).map(lambda i: i / 10), st.integers(0, 1)), min_size=2, max_size=60
)


@given(probabilities)
def test_calibration_agrees_with_scikit_learn_and_the_definition(rows):
    p, y = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = values(reliability_metrics(p, y), len(p))
    assert found["brier"] == pytest.approx(brier_score_loss(y, p))
    if 0 < y.sum() < len(y):
        assert found["auc"] == pytest.approx(roc_auc_score(y, p))
    else:
        assert math.isnan(found["auc"])
    table = reliability_table(p, y)
    gaps = np.abs(table.mean_p - table.mean_outcome)
    assert found["ece"] == pytest.approx((gaps * table.count).sum() / len(p))
    assert table.count.sum() == len(p)
    assert (np.diff(table.mean_p) > 0).all()
    assert (table.low <= table.mean_outcome + 1e-12).all()
    assert (table.high >= table.mean_outcome - 1e-12).all()


def test_bins_have_equal_mass_where_there_are_no_ties():
    p = np.random.default_rng(3).random(1500)
    table = reliability_table(p, np.zeros(1500))
    assert table.count.tolist() == [100] * 15


def _mean(sample):
    return lambda weights: {"mean": weights @ sample / weights.sum(axis=1)}


@pytest.mark.parametrize("size", [1, 5])
def test_intervals_cover_the_truth_about_as_often_as_they_say(size):
    """Also where requests of one session are copies: then only whole sessions may be drawn."""
    rng = np.random.default_rng(4)
    covered = 0
    for draw in range(300):
        sample = np.repeat(rng.normal(1.0, 1.0, 80), size)
        groups = np.repeat(np.arange(80), size)
        drawn = bootstrap(
            {"m": _mean(sample)}, len(sample), groups=groups, resamples=200, seed=draw
        )
        interval = drawn.interval("m", "mean")
        covered += interval.low <= 1.0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


@pytest.mark.parametrize("lost", [0.005, 0.02])
@pytest.mark.parametrize("won", [0.0, 0.01])
def test_limits_of_rare_differences_cover(lost, won):
    """Of 100 requests a half percent is lost: six resamples in ten, or t intervals, see nothing."""
    rng, covered, draws = np.random.default_rng(0), 0, 500
    for _ in range(draws):
        point = rng.random(100)
        gain = (point > 1 - won) * 1.0 - (point < lost)
        mean = float(gain.mean())
        found = allowing(Interval(mean, mean, mean, mean, 0.0), gain, np.arange(100))
        covered += found.low <= won - lost <= found.high
    assert covered >= draws * 0.95 - 2 * (draws * 0.05 * 0.95) ** 0.5


def test_no_share_of_the_top_tier_s_quality_is_below_nothing():
    """Of one session with all of the requests next to nothing is known: it said −3.7 %."""
    score = np.column_stack([np.ones(100), np.ones(100)])
    session = np.append(np.zeros(98, dtype=np.int64), [1, 2])
    one = Interval(1.0, 1.0, 1.0, 1.0, 0.0)
    tier, bad = np.zeros(100, dtype=np.int64), np.zeros(100, dtype=bool)
    found = choice_limits({"quality_of_top": one}, tier, 0.6 * score, bad, session)
    assert found["quality_of_top"].low == 0.0
    assert found["quality_of_top"].high > 1.0


def test_nothing_keeps_more_than_all_of_a_tier_that_is_always_right():
    """The sample's large tier is assumed to be: of 53 sessions «94.0 to 103.0 %» were kept."""
    score = np.column_stack([np.arange(53) % 27 > 0, np.ones(53)]).astype(np.float64)
    value = float(score[:, 0].mean())
    seen = Interval(value, value, value - 0.05, value + 0.02, 0.0)
    tier, bad = np.zeros(53, dtype=np.int64), score[:, 0] == 0
    found = choice_limits({"quality_of_top": seen}, tier, score, bad, np.arange(53))
    assert value + 0.02 < found["quality_of_top"].high <= 1.0


@settings(max_examples=30)
@given(worlds(most=8), st.integers(0, 1000))
def test_a_round_of_counts_is_the_metric_of_the_repeated_rows(world, seed):
    p, expected, quality, cost = world
    n, k = p.shape
    rng = np.random.default_rng(seed)
    rows = rng.integers(n, size=n)
    weights = np.bincount(rows, minlength=n).astype(float)[None]
    tier = rng.integers(k, size=n)
    pairs = [
        (
            curve_metrics(policy_walk(p, expected), quality, cost),
            curve_metrics(policy_walk(p[rows], expected[rows]), quality[rows], cost[rows]),
        ),
        (
            policy_metrics(tier, quality, cost),
            policy_metrics(tier[rows], quality[rows], cost[rows]),
        ),
        (random_metrics(quality, cost), random_metrics(quality[rows], cost[rows])),
    ]
    for weighted, repeated in pairs:
        one, other = weighted(weights), values(repeated, n)
        for metric in other:
            if "cpt" in metric or "saving" in metric:
                continue  # a state in which nobody of the resample moves is one state less
            np.testing.assert_allclose(one[metric][0], other[metric], err_msg=metric, **CLOSE)


def test_differences_are_paired_and_seeded():
    rng = np.random.default_rng(5)
    sample = rng.normal(0, 10, 400)
    estimators = {"a": _mean(sample + 1 + rng.normal(0, 0.1, 400)), "b": _mean(sample)}
    drawn = bootstrap(estimators, 400, resamples=300, seed=7)
    gap = drawn.difference("mean", "a", "b")
    assert gap.high - gap.low < 0.1 < 1 < drawn.interval("a", "mean").high
    assert gap.excludes(0) and not gap.excludes(1)
    again = bootstrap({"b": estimators["b"]}, 400, resamples=300, seed=7)
    np.testing.assert_array_equal(again.rounds["b"]["mean"], drawn.rounds["b"]["mean"])
    other = bootstrap({"b": estimators["b"]}, 400, resamples=300, seed=8)
    assert (other.rounds["b"]["mean"] != drawn.rounds["b"]["mean"]).any()


def test_an_interval_is_unknown_where_too_many_rounds_are():
    quality, cost = np.array([[0, 1], [1, 0], [1, 1.0]]), np.full((3, 2), [[1.0, 2.0]])
    drawn = bootstrap({"m": curve_metrics(order_walk([1.0, 2, 3]), quality, cost)}, 3)
    apgr = drawn.intervals()["m"]["apgr"]
    assert apgr.undefined > 0.025 and math.isnan(apgr.low) and not apgr.excludes(0.5)


def test_band_of_a_curve_holds_the_curve():
    rng = np.random.default_rng(6)
    quality, score = (rng.random((300, 2)) < [[0.4, 0.8]]).astype(float), rng.random(300)
    walk = order_walk(score)
    at = np.arange(0, 301, 30)
    cost = np.full((300, 2), [[1.0, 4.0]])
    drawn = bootstrap({"m": states(walk, quality, cost, at)}, 300)
    curve = trace(walk, quality, cost)
    ways = {"quality": curve.quality, "of_top": curve.quality / curve.quality[-1],
            "cost_usd": curve.cost_usd}  # fmt: skip
    for name, means in ways.items():
        low, high = drawn.band("m", name)
        mean = means[at]
        assert (low <= mean).all() and (mean <= high).all() and low.shape == at.shape
        assert (low < high)[1:-1].all()


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=25),
)
def test_aiq_is_the_area_under_the_hull(points):
    cost, quality = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    assume(cost[-1] > cost[0])
    wanted = hull_area(list(points), cost[0], cost[-1]) / (cost[-1] - cost[0])
    assert aiq(cost, quality) == pytest.approx(wanted, abs=1e-9)
