"""Fitting the heads: members cross-fitted, weighted, calibrated, then fitted on all fit rows.

Nothing here sees a choose or a test row. Every choice (the ridge penalty, the number of trees, the
width of the neighbours' kernel, the weights of the members, the calibration) is made on margins of
rows that the member at hand was not fitted on; a fold never divides a group of the split. Where few
requests show every tier's outcome, so are whether the tiers learn together (`learn.joint`) and how
far their gap follows the members (`learn.gaps`).
"""

from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from router.head import MEMBERS, Blend, Constant, Head
from router.neighbours import Neighbours
from training.errors import BadInput
from training.learn.blending import blend_members
from training.learn.calibrate import calibrate
from training.learn.crossfit import (
    Lessons,
    LinearBlend,
    Way,
    all_boosters,
    all_linears,
    best_forest,
    best_linear,
    check_folds,
    cross_fit,
    divide,
)
from training.learn.flatten import Growth, flatten
from training.learn.linear import linear_margins
from training.learn.members import STANDARD, Matrix, Recipe
from training.learn.prototypes import Geometry, fit_geometry, fit_neighbours, neighbour_margins
from training.learn.trees import Bins, booster_margins

WIDTHS = (0.05, 0.1, 0.2)
MAX_ROUNDS = 300
MIN_ROWS = 30


@dataclass(frozen=True, slots=True)
class FittedHeads:
    """What `router` serves, and what only training needs.

    Attributes:
        heads: one per tier.
        blend: weights of the members.
        neighbours: the shared member.
        boosters: the LightGBM originals of the learned tiers' forests, for parity.
        growths: how many fitting rows took each branch of them.
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
    growths: tuple[Growth, ...]
    p: NDArray[np.float64]
    whole: NDArray[np.bool_]
    margins: NDArray[np.float64]
    notes: tuple[str, ...]
    choices: dict[str, float]

    @property
    def weights(self) -> str:
        """How much each member counts, in words."""
        parts = zip(MEMBERS, self.blend.level, self.blend.gap, strict=False)
        told = ", ".join(f"{name} {level:.2f} and {gap:.2f}" for name, level, gap in parts)
        return (
            "how much each member counts, for what all tiers share and for what they differ by "
            f"(weights, by cross-fitting): {told}"
        )


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
    kind: NDArray[np.int64] | None = None,
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
            where a tier has `FIRM_ROWS` firm ones, these alone hold its level. Default: all are.
        kind: int64[n], requests that say together how far tiers differ on them
            (`training.learn.pooling`). Default: all are of one kind.

    Raises:
        BadInput: a tier without rows, too few rows, or no tier whose scores vary.
    """
    learned, constants, notes = sort_tiers(score, names)
    firm = np.ones(score.shape, dtype=np.bool_) if firm is None else firm
    target = recipe.target(score, firm)[:, learned]
    outcome, counted, sure = score[:, learned], weight[:, learned], firm[:, learned]
    folds = divide(group, seed)
    check_folds(score, folds, learned, names)
    geometry = fit_geometry(x.dense, surface, sessions, seed)
    kind = np.zeros(len(score), dtype=np.int64) if kind is None else kind
    lessons = Lessons(x, Bins.of(x), target, counted, kind, folds, MAX_ROUNDS, seed, recipe)
    ways = cross_fit(lessons)
    line, trees = best_linear(ways, lessons), best_forest(ways, lessons)
    width, near = _best_width(geometry, lessons)
    margins = np.stack([line.margins(), trees.forest(), near])
    if x.read.shape[1]:
        margins = np.concatenate([margins, x.read[None].astype(np.float64)])
    blend, combined, whole = blend_members(margins, outcome, counted, sure)
    calibrations = calibrate(combined, outcome, counted, sure)
    linears, boosters = all_linears(lessons, line), all_boosters(lessons, trees)
    flat = [flatten(booster) for booster in boosters]
    heads: dict[int, Head | Constant] = {k: Constant(p) for k, p in constants.items()}
    p = np.empty_like(score)
    for k, constant in constants.items():
        p[:, k] = constant
    for j, k in enumerate(learned):
        heads[k] = Head(linears[j], flat[j][0], calibrations[j])
        p[:, k] = calibrations[j].probability(combined[:, j])
        notes.append(f"{names[k]}: {len(lessons.rows(j))} labelled rows, {trees.rounds()[j]} trees")
    return FittedHeads(
        heads=tuple(heads[k] for k in range(len(names))),
        blend=blend,
        neighbours=fit_neighbours(geometry, target, counted, np.arange(len(score)), width),
        boosters=tuple(boosters),
        growths=tuple(growth for _, growth in flat),
        p=p,
        whole=whole,
        margins=margins,
        notes=(*notes, *_sharing(line.way, trees), *_pooling(lessons)),
        choices=_choices(line, width, blend),
    )


def _choices(line: LinearBlend, width: float, blend: Blend) -> dict[str, float]:
    """What cross-fitting chose, by name."""
    penalty = line.penalty
    return {"ridge_c": penalty.c, "ridge_dense": penalty.dense, "width": width} | {
        f"{part}_{name}": float(value)
        for part, values in (("level", blend.level), ("gap", blend.gap))
        for name, value in zip(MEMBERS, values, strict=False)
    }


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
                f"tier {name!r}: {len(known)} labelled fit rows; at least {MIN_ROWS} are needed: "
                "log, replay or label more of its calls, or take it out of the tiers file (its "
                "rows are then left out)"
            )
        learned.append(k)
    if not learned:
        raise BadInput(
            "column score: no tier's scores vary, so there is nothing to learn; label rows on "
            "which a tier fails as well as rows on which it suffices"
        )
    return learned, constants, notes


def _sharing(line: Way, trees: Way) -> list[str]:
    """Which members the tiers learned together, in words."""
    shared = [name for name, way in zip(MEMBERS, (line, trees), strict=False) if way.together]
    if not shared:
        return []
    members = f"{' and '.join(shared)} member{'s' * (len(shared) > 1)}"
    return [f"few requests show every tier's outcome; by cross-fitting tiers share the {members}"]


def _pooling(lessons: Lessons) -> list[str]:
    """Whether kinds share what tiers differ by, in words."""
    if np.array_equal(lessons.score, lessons.taught(), equal_nan=True):
        return []
    count = len(np.unique(lessons.kind))
    return [f"requests of {count} kinds (source and tags) share what tiers differ by"]


def _best_width(geometry: Geometry, lessons: Lessons) -> tuple[float, NDArray[np.float64]]:
    """Kernel width with the least cross-fitted loss, and its margins float64[n, learned]."""
    score, weight, folds = lessons.score, lessons.weight, lessons.folds

    def cross_fitted(width: float) -> NDArray[np.float64]:
        margins = np.empty_like(score)
        for fold in range(folds.max() + 1):
            inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            neighbours = fit_neighbours(geometry, score, weight, inside, width)
            margins[outside] = neighbour_margins(neighbours, lessons.x.dense[outside])
        return margins

    tried = [(width, cross_fitted(width)) for width in WIDTHS]
    return min(tried, key=lambda one: lessons.loss(one[1]))
