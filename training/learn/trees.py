"""The forest member while it is LightGBM's: `learn.flatten` makes of it what is served."""

from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.learn.members import Matrix, Recipe

FOREST = {
    "objective": "cross_entropy",
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
    "verbose": -1,
    "deterministic": True,
    "force_col_wise": True,
    "feature_pre_filter": False,
}


def forest_parameters(rows: int, seed: int, recipe: Recipe, threads: int) -> dict[str, Any]:
    """What LightGBM is told where it grows trees on so many rows."""
    leaf = int(np.clip(rows // 40, 5, 40))
    return FOREST | recipe.forest | {"seed": seed, "min_data_in_leaf": leaf, "num_threads": threads}


@dataclass(frozen=True, slots=True)
class Bins:
    """The dense vectors of n rows in LightGBM's bins: forests on some of the rows share them.

    Attributes:
        rows: of all n.
    """

    rows: lgb.Dataset

    @classmethod
    def of(cls, x: Matrix) -> "Bins":
        """Put the rows of x into bins; labels play no part."""
        blank = np.zeros(len(x.dense), dtype=np.float32)
        return cls(lgb.Dataset(np.ascontiguousarray(x.dense), blank, params=FOREST).construct())

    def take(
        self,
        rows: NDArray[np.int64],
        score: NDArray[np.float64],
        weight: NDArray[np.float64] | None = None,
    ) -> lgb.Dataset:
        """Some rows, int64[m] ascending, with their scores float64[m]."""
        return self.rows.subset(rows.tolist()).construct().set_label(score).set_weight(weight)


def fit_booster(
    bins: Bins,
    rows: NDArray[np.int64],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    rounds: int,
    seed: int,
    recipe: Recipe,
    held_out: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None,
    threads: int = 0,
) -> lgb.Booster:
    """Boost trees on some rows; with others `held_out`, stop where they no longer gain.

    Args:
        bins: of all rows.
        rows: int64[m], ascending.
        score, weight: float64[m].
        rounds: trees at most.
        seed: of the trees.
        recipe: LightGBM's parameters.
        held_out: other rows, ascending, and their scores.
        threads: LightGBM's, 0 for all.
    """
    parameters = forest_parameters(len(rows), seed, recipe, threads)
    valid = None if held_out is None else bins.take(*held_out)
    return grow(parameters, bins.take(rows, score, weight), rounds, valid)


def grow(
    parameters: dict[str, Any],
    rows: lgb.Dataset,
    rounds: int,
    held_out: lgb.Dataset | None,
) -> lgb.Booster:
    """Grow at most so many trees; with `held_out` rows, stop where they no longer gain."""
    if held_out is None:
        return lgb.train(parameters, rows, rounds)
    stop = lgb.early_stopping(30, verbose=False)
    return lgb.train(parameters, rows, rounds, valid_sets=[held_out], callbacks=[stop])


def booster_margins(booster: lgb.Booster, x: Matrix, rounds: int = -1) -> NDArray[np.float64]:
    """Margins of a booster's first `rounds` trees (−1: of all), float64[n]."""
    margins = booster.predict(x.dense, raw_score=True, num_iteration=rounds)
    return np.asarray(margins, dtype=np.float64)
