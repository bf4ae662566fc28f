"""Fitting the heads: members cross-fitted, weighted, calibrated, then fitted on all fit rows.

Nothing here sees a choose or a test row. Every choice (the ridge penalty, the number of trees, the
width of the neighbours' kernel, the weights of the members, the calibration) is made on margins of
rows that the member at hand was not fitted on; a fold never divides a group of the split.
"""

from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.model_selection import GroupKFold

from router.head import MEMBERS, Blend, Constant, Head
from router.neighbours import Neighbours
from training.errors import BadInput
from training.learn.calibrate import fit_calibration, log_loss
from training.learn.members import (
    STANDARD,
    Geometry,
    Matrix,
    Recipe,
    Ridge,
    booster_margins,
    fit_booster,
    fit_geometry,
    fit_linear,
    fit_neighbours,
    forest_of,
    linear_margins,
    neighbour_margins,
)

FOLDS = 4
WIDTHS = (0.05, 0.1, 0.2)
MAX_ROUNDS = 300
MIN_ROWS = 30
FIRM_ROWS = 100
SHRINKAGE = 30.0  # nats that moving one member's whole weight must earn


@dataclass(frozen=True, slots=True)
class FittedHeads:
    """What `router` serves, and what only training needs.

    Attributes:
        heads: one per tier.
        blend: weights of the members.
        neighbours: the shared member.
        boosters: the LightGBM originals of the learned tiers' forests, for parity.
        p: float64[n, k], cross-fitted probabilities of the fit rows.
        whole: bool[n], rows whose `p` every member had a say in: all of them, unless there is an
            encoder, which says nothing of the rows that it was trained on.
        margins: float64[members, n, learned tiers], cross-fitted; the encoder's NaN where it says
            nothing.
        notes: what was decided, in words.
        choices: the chosen parameters, for MLflow.
    """

    heads: tuple[Head | Constant, ...]
    blend: Blend
    neighbours: Neighbours
    boosters: tuple[lgb.Booster, ...]
    p: NDArray[np.float64]
    whole: NDArray[np.bool_]
    margins: NDArray[np.float64]
    notes: tuple[str, ...]
    choices: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Fold:
    """Margins of one tier's rows outside a fold's fitting rows."""

    rows: NDArray[np.int64]
    linear: NDArray[np.float64]  # [penalties, rows]
    forest: NDArray[np.float64]
    rounds: int


def fit_heads(
    x: Matrix,
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    group: NDArray[np.int64],
    sessions: NDArray[np.int64],
    names: tuple[str, ...],
    surface: int,
    seed: int,
    recipe: Recipe = STANDARD,
    firm: NDArray[np.bool_] | None = None,
) -> FittedHeads:
    """Fit one head per tier.

    Args:
        x: vectors of the n fit rows.
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k].
        group: int64[n], rows that must stay in one fold.
        sessions: int64[n].
        names: the tiers' names.
        surface: how many leading columns of the dense vectors are surface features.
        seed: of folds, trees and clusters.
        recipe: the members' parameters.
        firm: bool[n, k], scores that are trusted. Weak ones order prompts, but their level is off:
            where a tier has `FIRM_ROWS` firm ones, these alone calibrate it. Default: all are.

    Raises:
        BadInput: a tier without rows, too few rows, or no tier whose scores vary.
    """
    learned, constants, notes = sort_tiers(score, names)
    target = recipe.target(score, np.ones(score.shape, bool) if firm is None else firm)
    folds = _folds(group, seed)
    _check_folds(score, folds, learned, names)
    geometry = fit_geometry(x.dense, surface, sessions, seed)
    jobs = [(k, fold) for k in learned for fold in range(folds.max() + 1)]
    workers = min(cpu_count(), len(jobs))  # those this job may use, not all the machine has
    done = Parallel(n_jobs=workers)(
        delayed(_fit_fold)(x, target[:, k], weight[:, k], folds, fold, seed, recipe)
        for k, fold in jobs
    )
    by_tier = {
        k: [part for (tier, _), part in zip(jobs, done, strict=True) if tier == k] for k in learned
    }
    penalty, linear = _best_penalty(by_tier, target, weight, recipe.ridges)
    width, near = _best_width(geometry, x, target, weight, folds, learned)
    margins = np.full((3, len(score), len(learned)), np.nan)
    for j, k in enumerate(learned):
        for fold in by_tier[k]:
            margins[0, fold.rows, j] = fold.linear[linear]
            margins[1, fold.rows, j] = fold.forest
    margins[2] = near
    seen = score[:, learned]
    blend, combined, whole = _blend_members(margins, x.read, seen, weight[:, learned])
    p = np.empty_like(score)
    heads: list[Head | Constant] = []
    boosters: list[lgb.Booster] = []
    for k in range(score.shape[1]):
        if k in constants:
            heads.append(Constant(constants[k]))
            p[:, k] = constants[k]
            continue
        known = np.flatnonzero(~np.isnan(score[:, k]))
        z, y, w = combined[:, learned.index(k)], target[known, k], weight[known, k]
        for part in (~whole, whole):  # the last calibration is the one that is served
            if not part.any():
                continue
            seen_there = np.where(part, score[:, k], np.nan)
            level = _level_rows(seen_there, None if firm is None else firm[:, k])
            calibration = fit_calibration(z[level], score[level, k], weight[level, k])
            p[part, k] = calibration.probability(z[part])
        rounds = max(int(np.median([fold.rounds for fold in by_tier[k]])), 5)
        booster = fit_booster(x.take(known), y, w, rounds, seed, recipe)
        boosters.append(booster)
        heads.append(
            Head(fit_linear(x.take(known), y, w, penalty), forest_of(booster), calibration)
        )
        notes.append(f"{names[k]}: {len(known)} labelled rows, {rounds} trees")
    everything = np.arange(len(score))
    neighbours = fit_neighbours(geometry, target[:, learned], weight[:, learned], everything, width)
    weights = ", ".join(
        f"{name} {level:.2f}/{gap:.2f}"
        for name, level, gap in zip(MEMBERS, blend.level, blend.gap, strict=False)
    )
    notes.append(f"members' weights (level/gap, by cross-fitting): {weights}")
    choices = {"ridge_c": penalty.c, "ridge_dense": penalty.dense, "width": width} | {
        f"{part}_{name}": float(value)
        for part, values in (("level", blend.level), ("gap", blend.gap))
        for name, value in zip(MEMBERS, values, strict=False)
    }
    if x.read.shape[1]:
        margins = np.concatenate([margins, x.read[None].astype(np.float64)])
    return FittedHeads(
        heads=tuple(heads),
        blend=blend,
        neighbours=neighbours,
        boosters=tuple(boosters),
        p=p,
        whole=whole,
        margins=margins,
        notes=tuple(notes),
        choices=choices,
    )


def member_margins(fitted: FittedHeads, x: Matrix) -> NDArray[np.float64]:
    """Margins by the originals (LightGBM's own trees), float64[members, n, learned tiers]."""
    heads = [head for head in fitted.heads if isinstance(head, Head)]
    margins = [
        np.stack([linear_margins(head.linear, x) for head in heads], axis=1),
        np.stack([booster_margins(booster, x) for booster in fitted.boosters], axis=1),
        neighbour_margins(fitted.neighbours, x.dense),
    ]
    if x.read.shape[1]:
        margins.append(x.read.astype(np.float64))
    return np.stack(margins)


def probabilities(fitted: FittedHeads, x: Matrix) -> NDArray[np.float64]:
    """P(tier suffices) by the originals, float64[n, k]: what the exported artifact must repeat."""
    combined = fitted.blend.combine(member_margins(fitted, x))
    columns = iter(combined.T)
    return np.stack(
        [
            np.full(len(x.dense), head.probability)
            if isinstance(head, Constant)
            else head.calibration.probability(next(columns))
            for head in fitted.heads
        ],
        axis=1,
    )


def sort_tiers(
    score: NDArray[np.float64], names: tuple[str, ...]
) -> tuple[list[int], dict[int, float], list[str]]:
    """Which tiers have something to learn, which are constants, and what to say of them."""
    learned: list[int] = []
    constants: dict[int, float] = {}
    notes: list[str] = []
    for k, name in enumerate(names):
        known = score[~np.isnan(score[:, k]), k]
        if not len(known):
            raise BadInput(
                f"tier {name!r}: no labelled row among the fit rows; log or replay some of its "
                "calls (explore: send it 5 % of prompts at random, and log propensities), or "
                "take it out of the tiers file (a top tier that is never called: [label] "
                "assume_top_suffices)"
            )
        if np.ptp(known) == 0:
            assumed = len(known) == len(score) and known[0] == 1.0
            constants[k] = float((known.sum() + 0.5) / (len(known) + 1)) if not assumed else 1.0
            notes.append(f"{name}: every score is {known[0]:g}; its head is a constant")
            continue
        if len(known) < MIN_ROWS:
            raise BadInput(
                f"tier {name!r}: {len(known)} labelled fit rows; at least {MIN_ROWS} are needed"
            )
        learned.append(k)
    if not learned:
        raise BadInput(
            "column score: no tier's scores vary, so there is nothing to learn; label rows on "
            "which a tier fails as well as rows on which it suffices"
        )
    return learned, constants, notes


def _level_rows(score: NDArray[np.float64], firm: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """The rows that a tier is calibrated on: the firm ones, if they are enough and vary."""
    known = np.flatnonzero(~np.isnan(score))
    if firm is None:
        return known
    sure = known[firm[known]]
    return sure if len(sure) >= FIRM_ROWS and np.ptp(score[sure]) > 0 else known


def _folds(group: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Number of the fold in which each row is held out, int64[n]."""
    groups = np.unique(group)
    count = min(FOLDS, len(groups))
    if count < 2:
        raise BadInput("all fit rows belong to one session; cross-fitting needs two or more")
    fold = np.empty(len(group), dtype=np.int64)
    splitter = GroupKFold(count, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(splitter.split(group, groups=group)):
        fold[held_out] = number
    return fold


def _check_folds(
    score: NDArray[np.float64], folds: NDArray[np.int64], learned: list[int], names: tuple[str, ...]
) -> None:
    for k in learned:
        if len(np.unique(folds[~np.isnan(score[:, k])])) < 2:
            raise BadInput(
                f"tier {names[k]!r}: all its labelled fit rows are of one session or one prompt; "
                "cross-fitting needs two or more: log or replay others of its calls"
            )


def _fit_fold(
    x: Matrix,
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    folds: NDArray[np.int64],
    fold: int,
    seed: int,
    recipe: Recipe,
) -> _Fold:
    """Fit linear (each penalty) and forest on the other folds; margins for this one."""
    inside = np.flatnonzero((folds != fold) & ~np.isnan(score))
    outside = np.flatnonzero(folds == fold)
    known = outside[~np.isnan(score[outside])]
    fitting, held_out = x.take(inside), x.take(outside)
    linear = [
        linear_margins(fit_linear(fitting, score[inside], weight[inside], ridge), held_out)
        for ridge in recipe.ridges
    ]
    valid = (x.take(known), score[known]) if len(known) else None
    booster = fit_booster(
        fitting, score[inside], weight[inside], MAX_ROUNDS, seed, recipe, valid, threads=1
    )
    rounds = booster.best_iteration or booster.current_iteration()
    forest = booster_margins(booster, held_out, rounds)
    return _Fold(outside, np.array(linear), forest, rounds)


def _best_penalty(
    by_tier: dict[int, list[_Fold]],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    ridges: tuple[Ridge, ...],
) -> tuple[Ridge, int]:
    losses = np.zeros(len(ridges))
    for k, folds in by_tier.items():
        for fold in folds:
            known = ~np.isnan(score[fold.rows, k])
            rows = fold.rows[known]
            for j in range(len(ridges)):
                losses[j] += log_loss(fold.linear[j, known], score[rows, k], weight[rows, k])
    best = int(np.argmin(losses))
    return ridges[best], best


def _best_width(
    geometry: Geometry,
    x: Matrix,
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    folds: NDArray[np.int64],
    learned: list[int],
) -> tuple[float, NDArray[np.float64]]:
    """Kernel width with the least cross-fitted loss, and its margins float64[n, learned]."""
    seen, weights = score[:, learned], weight[:, learned]
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for width in WIDTHS:
        margins = np.empty_like(seen)
        for fold in range(folds.max() + 1):
            inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            neighbours = fit_neighbours(geometry, seen, weights, inside, width)
            margins[outside] = neighbour_margins(neighbours, x.dense[outside])
        known = ~np.isnan(seen)
        loss = log_loss(margins[known], seen[known], weights[known])
        if best is None or loss < best[0]:
            best = (loss, width, margins)
    assert best is not None
    return best[1], best[2]


def _blend_members(
    margins: NDArray[np.float64],
    read: NDArray[np.float32],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> tuple[Blend, NDArray[np.float64], NDArray[np.bool_]]:
    """Weigh the members, the encoder on the rows that it was not trained on.

    Returns:
        The blend that is served; combined margins float64[n, learned], of rows that the encoder
        was trained on without it; bool[n], the other rows.
    """
    blend = fit_blend(margins, score, weight)
    combined = blend.combine(margins)
    if not read.shape[1]:
        return blend, combined, np.ones(len(read), dtype=np.bool_)
    whole = np.asarray(~np.isnan(read).any(axis=1))
    both = np.concatenate([margins[:, whole], read[None, whole].astype(np.float64)])
    blend = fit_blend(both, score[whole], weight[whole])
    combined[whole] = blend.combine(both)
    return blend, combined, whole


def fit_blend(
    margins: NDArray[np.float64], score: NDArray[np.float64], weight: NDArray[np.float64]
) -> Blend:
    """Weights of the members for level and gap, shrunk towards equal.

    The loss is the heads' cross-entropy plus, on rows where every learned tier was observed, the
    squared error of each tier's gap to the last: what routing turns on.
    """
    members, equal = len(margins), 1.0 / len(margins)
    known = ~np.isnan(score)
    paired = known.all(axis=1)
    gaps = score[paired, -1:] - score[paired, :-1]

    def loss(parameters: NDArray[np.float64]) -> float:
        z = Blend(parameters[:members], parameters[members:]).combine(margins)
        p = expit(z[paired])
        missed = gaps - (p[:, -1:] - p[:, :-1])
        away = parameters - equal
        nats = log_loss(z[known], score[known], weight[known])
        return nats + float((missed**2).sum()) + SHRINKAGE * float(away @ away)

    start = np.full(2 * members, equal)
    found = minimize(loss, start, method="L-BFGS-B", bounds=[(0.0, 2.0)] * (2 * members))
    return Blend(np.asarray(found.x[:members]), np.asarray(found.x[members:]))
