"""Members whose tiers learn together, for logs where a request shows the outcome of one tier.

Routing turns on the gap between tiers. Where both outcomes of a request are known, what makes it
hard for every tier cancels out of the gap. Where they are not, each tier's errors remain, and those
of the tier with the fewest rows drown the gap in noise. So the tiers share what they can:

- **Linear.** Tier k's weights are ``w_k = √ρ · v + √(1 − ρ) · u_k``, with one ridge penalty on v
  and on every u_k: each tier's weights have the same prior as when fitted alone, and those of two
  tiers have prior correlation ρ (regularised multi-task learning, Evgeniou and Pontil, KDD 2004).
- **Forest.** The trees grow on all tiers' rows, each row starting from its tier's level; then each
  tier recomputes their leaves on its own rows (LightGBM's `refit`). It takes many rows to find
  where to split, and few to tell how far a tier is off in a leaf.

What is served is each tier's own `Linear` and `Forest`, as when they learn apart.
"""

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logit

from router.head import Linear
from training.learn.linear import Rows, standardise
from training.learn.members import Matrix, Recipe, Ridge
from training.learn.trees import forest_parameters, grow

CORRELATION = 0.5  # ρ; at 0.8 prompts of simulated logs were ordered a little worse


def mostly_unpaired(score: NDArray[np.float64]) -> bool:
    """Whether less than half of the labelled rows of float64[n, k] show every tier's outcome.

    Only then can tiers gain by learning together; on a paired log sharing costs quality (APGR fell
    from .666 to .657 on MMLU).
    """
    known = ~np.isnan(score)
    return score.shape[1] > 1 and 2 * int(known.all(axis=1).sum()) < int(known.any(axis=1).sum())


def levels(score: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of each tier's smoothed mean score, float64[k]."""
    counted = np.where(np.isnan(score), 0.0, weight)
    total = (counted * np.nan_to_num(score)).sum(axis=0)
    return np.asarray(logit((total + 0.5) / (counted.sum(axis=0) + 1.0)))


def fit_linears(
    x: Matrix, score: NDArray[np.float64], weight: NDArray[np.float64], ridge: Ridge
) -> list[Linear]:
    """One logistic regression for all tiers, their weights correlated a priori.

    Args:
        x: vectors of n rows.
        score: float64[n, k] in [0, 1], NaN where not observed.
        weight: float64[n, k].
        ridge: the penalty, as of `fit_ridges`.
    """
    dense, axes = standardise(x.dense, ridge.dense)
    known = np.unique(x.terms.indices)
    terms, count, width = x.terms[:, known], score.shape[1], dense.shape[1] + len(known)
    rows = [Rows.of(dense, terms, score[:, k], weight[:, k]) for k in range(count)]
    level = levels(score, weight)
    common, own = np.sqrt(CORRELATION), np.sqrt(1.0 - CORRELATION)

    def parts(flat: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights float64[1 + k, width], the common ones first, and biases float64[k]."""
        return flat[:-count].reshape(1 + count, width), flat[-count:]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = parts(flat)
        away = bias - level  # held by half a nat, so that a tier that never fails stays finite
        nats = 0.5 * float(flat[:-count] @ flat[:-count]) / ridge.c + 0.5 * float(away @ away)
        slope, lean = weights / ridge.c, away.copy()
        for k, part in enumerate(rows):
            more, by_weights, by_bias = part.loss(
                common * weights[0] + own * weights[1 + k], bias[k]
            )
            nats += more
            slope[0] += common * by_weights
            slope[1 + k] += own * by_weights
            lean[k] += by_bias
        return nats, np.append(slope, lean)

    start = np.append(np.zeros((1 + count) * width), level)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 400, "ftol": 1e-7}
    )
    weights, bias = parts(found.x)
    return [
        axes.linear(common * weights[0] + own * weights[1 + k], float(bias[k]), known)
        for k in range(count)
    ]


def grow_shared(
    x: Matrix,
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    rounds: int,
    seed: int,
    recipe: Recipe,
    held_out: tuple[Matrix, NDArray[np.float64], NDArray[np.float64]] | None = None,
    threads: int = 0,
) -> list[lgb.Booster]:
    """Boosters of the k tiers, of the same trees with leaves of their own.

    Args:
        x: vectors of n rows.
        score: float64[n, k] in [0, 1], NaN where not observed.
        weight: float64[n, k].
        rounds: trees at most.
        seed: of the trees.
        recipe: LightGBM's parameters.
        held_out: vectors, scores and weights of other rows; trees that gain nothing there are left
            out.
        threads: LightGBM's, 0 for all.
    """
    level = levels(score, weight)
    parameters = forest_parameters(int((~np.isnan(score)).sum()), seed, recipe, threads)
    rows, valid = _pooled(x, score, weight, level), None
    if held_out is not None and not np.isnan(held_out[1]).all():
        valid = _pooled(*held_out, level, rows)
    shapes = grow(parameters, rows, rounds, valid)
    kept = shapes.model_to_string(num_iteration=shapes.best_iteration or -1)
    return [
        _with_own_leaves(kept, x, score[:, k], weight[:, k], level[k]) for k in range(len(level))
    ]


def _pooled(
    x: Matrix,
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    level: NDArray[np.float64],
    reference: lgb.Dataset | None = None,
) -> lgb.Dataset:
    """All tiers' labelled rows, each to start from its tier's level."""
    row, tier = np.nonzero(~np.isnan(score))
    return lgb.Dataset(
        np.ascontiguousarray(x.dense[row]),
        score[row, tier],
        weight=weight[row, tier],
        init_score=level[tier],
        reference=reference,
    )


def _with_own_leaves(
    shapes: str, x: Matrix, score: NDArray[np.float64], weight: NDArray[np.float64], level: float
) -> lgb.Booster:
    """The trees with their leaves computed on one tier's rows, its level in those of the first."""
    seen = np.flatnonzero(~np.isnan(score))
    start = np.full(len(seen), level)
    booster = lgb.Booster(model_str=shapes).refit(
        np.ascontiguousarray(x.dense[seen]),
        score[seen],
        decay_rate=0.0,
        weight=weight[seen],
        init_score=start,
    )
    for leaf in range(booster.dump_model(num_iteration=1)["tree_info"][0]["num_leaves"]):
        booster.set_leaf_output(0, leaf, booster.get_leaf_output(0, leaf) + level)
    return booster
