"""The exported forest answers as LightGBM does, on any row."""

from dataclasses import replace
from functools import cache

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.forest import Forest, Trees
from tests.builders import make_booster, make_forest
from training.learn.flatten import Growth, flatten, restore_booster

COLUMNS = 5
HUGEST = float(np.finfo(np.float64).max)
TINY = float(np.float32(1e-35))
SINGLE = float(np.finfo(np.float32).max)
SPECIAL = (
    *(np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-40, -1e-40, 1.0, -1.0),
    *(sign * np.nextafter(TINY, way) for sign in (1, -1) for way in (0, 1)),
    *(TINY, -TINY, 1e-35, -1e-35, 1.0000001e-35, 9.999999e-36),
    *(SINGLE, -SINGLE, 1e300, -1e300, 1.5e300, -1.5e300, HUGEST, -HUGEST),
)


def training_rows(kind: str) -> NDArray[np.float64]:
    """Rows that give a booster thresholds of the kind."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(400, COLUMNS))
    if kind == "missing":
        x[rng.random(x.shape) < 0.3] = np.nan
    if kind == "zeros":
        x = rng.choice([0.0, -0.0, 1e-36, 2e-35, -2e-35, 1.0, -1.0], size=x.shape)
    if kind == "huge":
        x = rng.choice([SINGLE, -SINGLE, 1e30, 1e301, -1e305, HUGEST, -HUGEST, 0.0], size=x.shape)
    if kind == "infinite":
        x[rng.random(x.shape) < 0.2] = np.inf
        x[rng.random(x.shape) < 0.2] = -np.inf
        x[rng.random(x.shape) < 0.2] = np.nan
    return x


@cache
def booster_of(kind: str, use_missing: bool, leaves: int) -> tuple[lgb.Booster, Forest]:
    """A booster and its forest; the label leans on values, on missing ones and on chance."""
    x = training_rows(kind)
    known = np.nan_to_num(np.clip(x, -5, 5), nan=2.0)
    chance = np.random.default_rng(8).normal(size=len(x))
    y = (known[:, 0] - known[:, 1] * known[:, 2] + chance > 0).astype(float)
    booster = make_booster(x, y, num_leaves=leaves, use_missing=use_missing)
    return booster, flatten(booster)[0]


KINDS = [
    (kind, use_missing, leaves)
    for kind in ("plain", "missing", "zeros", "huge", "infinite")
    for use_missing in (True, False)
    for leaves in (2, 64)
]


def forest_margins(forest: Forest, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    trees = Trees.of([forest])
    return np.array([trees.leaves(row).sum() + forest.bias for row in rows])


@pytest.mark.parametrize("single", [False, True], ids=["float64", "float32"])
@pytest.mark.parametrize(("kind", "use_missing", "leaves"), KINDS)
@settings(max_examples=15)
@given(data=st.data())
def test_forest_equals_lightgbm(
    kind: str, use_missing: bool, leaves: int, single: bool, data: st.DataObject
) -> None:
    booster, forest = booster_of(kind, use_missing, leaves)
    at = sorted({float(t) for t in forest.threshold})
    with np.errstate(over="ignore"):
        near = [float(np.nextafter(t, way)) for t in at for way in (-np.inf, np.inf)]
    value = st.sampled_from([*SPECIAL, *at, *near]) | st.floats(width=64)
    cells = st.lists(value, min_size=COLUMNS, max_size=COLUMNS)
    drawn = np.array(data.draw(st.lists(cells, min_size=1, max_size=12)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    mixed = rng.choice(np.array([*SPECIAL, *at, *near]), size=(100, COLUMNS))
    rows = np.concatenate([drawn, mixed, rng.normal(size=(20, COLUMNS))])
    if single:
        with np.errstate(over="ignore"):
            rows = rows.astype(np.float32)
    original = booster.predict(rows, raw_score=True)
    assert np.abs(forest_margins(forest, rows) - original).max() <= 1e-9


def test_boosters_use_what_is_tested() -> None:
    """The parity above would be hollow if no booster had the thresholds and directions at stake."""
    _, missing = booster_of("missing", True, 64)
    assert missing.nan_right.any() and not missing.nan_right.all()
    _, infinite = booster_of("infinite", True, 64)
    assert np.isinf(infinite.threshold).any()
    assert (infinite.threshold == -HUGEST).any()
    _, huge = booster_of("huge", True, 64)
    assert ((np.abs(huge.threshold) > 1e300) & np.isfinite(huge.threshold)).any()
    _, zeros = booster_of("zeros", True, 64)
    assert (np.abs(zeros.threshold) < 1e-34).any()
    _, plain = booster_of("plain", True, 64)
    assert np.diff(plain.first_leaf, append=len(plain.leaf)).max() > 50


def test_sixty_four_leaves_fit_and_sixty_five_are_refused() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2))
    y = rng.random(2000)
    full = make_booster(x, y, 2, num_leaves=64)
    forest = flatten(full)[0]
    assert np.diff(forest.first_leaf, append=len(forest.leaf)).max() == 64
    assert np.abs(forest_margins(forest, x) - full.predict(x, raw_score=True)).max() <= 1e-9
    with pytest.raises(ValueError, match="65 leaves"):
        flatten(make_booster(x, y, 2, num_leaves=65))


@pytest.mark.parametrize("rounds", [1, 5])
def test_trees_of_a_single_leaf_become_the_bias(rounds: int) -> None:
    x = np.random.default_rng(0).normal(size=(40, COLUMNS))
    booster = make_booster(x, np.full(40, 0.3), rounds, min_data_in_leaf=100)
    forest = flatten(booster)[0]
    assert len(forest.first_node) == 0
    assert np.allclose(forest_margins(forest, x), booster.predict(x, raw_score=True), atol=1e-9)
    forest.check(COLUMNS)


def test_every_tree_is_kept_whatever_the_best_iteration() -> None:
    x = np.random.default_rng(0).normal(size=(300, COLUMNS))
    booster = make_booster(x, (x[:, 0] > 0).astype(float), 20)
    booster.best_iteration = 3
    everything = booster.predict(x, raw_score=True, num_iteration=-1)
    assert np.abs(forest_margins(flatten(booster)[0], x) - everything).max() <= 1e-9


def test_what_cannot_be_exported_is_refused() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, size=(400, 1)).astype(float)
    y = np.isin(x[:, 0], (1, 4)).astype(float)
    with pytest.raises(ValueError, match="cannot export"):
        flatten(lgb.train({"verbose": -1}, lgb.Dataset(x, y, categorical_feature=[0]), 5))
    with pytest.raises(ValueError, match="cannot export"):
        flatten(make_booster(x, y, zero_as_missing=True))


def test_the_row_is_left_as_it_was() -> None:
    trees = Trees.of([make_forest(COLUMNS)])
    wide = np.array([1e-36, np.nan, 0.5, np.inf, -0.0])
    for row in (wide, wide.astype(np.float32)):
        before = row.tobytes()
        trees.leaves(row)
        assert row.tobytes() == before


@pytest.mark.parametrize(("kind", "use_missing", "leaves"), KINDS)
def test_a_restored_booster_is_the_original(kind: str, use_missing: bool, leaves: int) -> None:
    """Margins, SHAP values, gains and splits, on any row."""
    booster, _ = booster_of(kind, use_missing, leaves)
    restored = restore_booster(*flatten(booster), COLUMNS)
    odd = np.random.default_rng(1).choice(np.array(SPECIAL), size=(200, COLUMNS))
    rows = np.concatenate([training_rows(kind)[:100], odd])
    for asked in ({"raw_score": True}, {"pred_contrib": True}):
        difference = restored.predict(rows, **asked) - booster.predict(rows, **asked)
        assert np.abs(difference).max() <= 1e-12
    for importance in ("gain", "split"):
        original = booster.feature_importance(importance)
        np.testing.assert_allclose(restored.feature_importance(importance), original, rtol=1e-6)


def test_a_restored_booster_keeps_the_bias() -> None:
    x = np.random.default_rng(0).normal(size=(40, COLUMNS))
    constant = flatten(make_booster(x, np.full(40, 0.3), 5, min_data_in_leaf=100))[0]
    restored = restore_booster(constant, Growth.unknown(constant), COLUMNS)
    np.testing.assert_allclose(restored.predict(x, raw_score=True), constant.bias)
    np.testing.assert_allclose(restored.predict(x, pred_contrib=True)[:, -1], constant.bias)


def test_without_the_growth_contributions_still_add_up() -> None:
    forest = make_forest(COLUMNS)
    restored = restore_booster(forest, Growth.unknown(forest), COLUMNS)
    x = np.random.default_rng(2).normal(size=(50, COLUMNS))
    added = restored.predict(x, pred_contrib=True).sum(axis=1)
    assert np.abs(added - forest_margins(forest, x)).max() <= 1e-9


def test_growth_of_another_forest_is_refused() -> None:
    forest = make_forest(COLUMNS)
    small = flatten(make_booster(np.eye(9, COLUMNS), np.arange(9) / 9, 2))[1]
    with pytest.raises(ValueError, match="do not fit"):
        restore_booster(forest, small, COLUMNS)
    tangled = replace(forest, mask=np.full_like(forest.mask, 2**64 - 1))
    with pytest.raises(ValueError, match="not those of a tree"):
        restore_booster(tangled, Growth.unknown(forest), COLUMNS)
