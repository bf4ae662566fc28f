"""Cross-fitting linear and forest: each tier on its own rows, or the tiers together.

Together only where few requests show every tier's outcome (`learn.joint`), and there for each of
the two members only if rows that it was not fitted on lose less: that is how far to share.
"""

from collections.abc import Callable
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from router.head import Linear
from training.errors import BadInput
from training.learn.calibrate import log_loss
from training.learn.joint import fit_linears, grow_shared, mostly_unpaired
from training.learn.members import (
    Matrix,
    Recipe,
    Ridge,
    booster_margins,
    fit_booster,
    fit_linear,
    linear_margins,
)

FOLDS = 4
MIN_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Fold:
    """Margins of one tier's rows outside a fold's fitting rows."""

    rows: NDArray[np.int64]
    linear: NDArray[np.float64]  # [penalties, rows]
    forest: NDArray[np.float64]
    rounds: int


@dataclass(frozen=True, slots=True)
class Lessons:
    """What the k tiers that have something to learn learn from.

    Attributes:
        x: vectors of n rows.
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k].
        folds: int64[n], the fold in which each row is held out.
        rounds: trees at most.
        seed: of the trees.
        recipe: the members' parameters.
    """

    x: Matrix
    score: NDArray[np.float64]
    weight: NDArray[np.float64]
    folds: NDArray[np.int64]
    rounds: int
    seed: int
    recipe: Recipe

    def of(self, k: int) -> tuple[Matrix, NDArray[np.float64], NDArray[np.float64]]:
        """Vectors, scores and weights of one tier's labelled rows."""
        rows = np.flatnonzero(~np.isnan(self.score[:, k]))
        return self.x.take(rows), self.score[rows, k], self.weight[rows, k]

    def labelled(self) -> tuple[Matrix, NDArray[np.float64], NDArray[np.float64]]:
        """Vectors, scores and weights of the rows with a label of any tier."""
        rows = np.flatnonzero(~np.isnan(self.score).all(axis=1))
        return self.x.take(rows), self.score[rows], self.weight[rows]

    def loss(self, margins: NDArray[np.float64]) -> float:
        """Cross-entropy of margins float64[n, k] over what was observed."""
        known = ~np.isnan(self.score)
        return log_loss(margins[known], self.score[known], self.weight[known])


@dataclass(frozen=True, slots=True)
class Way:
    """Cross-fitted folds of each tier, learned `together` with the others or apart from them.

    The linear member is that of each of the `ridges`.
    """

    folds: tuple[tuple[Fold, ...], ...]
    ridges: tuple[Ridge, ...]
    together: bool

    def margins(self, member: Callable[[Fold], NDArray[np.float64]]) -> NDArray[np.float64]:
        """What a member says of rows that it was not fitted on, float64[n, k]."""
        count = sum(len(fold.rows) for fold in self.folds[0])
        found = np.empty((count, len(self.folds)))
        for k, folds in enumerate(self.folds):
            for fold in folds:
                found[fold.rows, k] = member(fold)
        return found

    def linear(self, ridge: int) -> NDArray[np.float64]:
        """The linear member's margins under one of the penalties."""
        return self.margins(lambda fold: fold.linear[ridge])

    def forest(self) -> NDArray[np.float64]:
        """The forest's margins."""
        return self.margins(lambda fold: fold.forest)

    def rounds(self) -> list[int]:
        """How many trees each tier's forest needs."""
        return [max(int(np.median([f.rounds for f in folds])), MIN_ROUNDS) for folds in self.folds]


def divide(group: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
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


def check_folds(
    score: NDArray[np.float64], folds: NDArray[np.int64], learned: list[int], names: tuple[str, ...]
) -> None:
    """BadInput where all labelled rows of a tier are in one fold."""
    for k in learned:
        if len(np.unique(folds[~np.isnan(score[:, k])])) < 2:
            raise BadInput(
                f"tier {names[k]!r}: all its labelled fit rows are of one session or one prompt; "
                "cross-fitting needs two or more: log or replay others of its calls"
            )


def cross_fit(lessons: Lessons) -> list[Way]:
    """Each tier apart; together, too, where less than half of the labelled rows are paired.

    Together the linear member keeps the penalty that was best apart: to try them all takes minutes.
    """
    apart = _apart(lessons)
    if not mostly_unpaired(lessons.score):
        return [apart]
    best = apart.ridges[best_linear([apart], lessons)[1]]
    return [apart, _together(lessons, best)]


def best_linear(ways: list[Way], lessons: Lessons) -> tuple[Way, int]:
    """Way, and number of its ridge penalty, with the least cross-fitted loss."""
    return min(
        ((way, ridge) for way in ways for ridge in range(len(way.ridges))),
        key=lambda found: lessons.loss(found[0].linear(found[1])),
    )


def best_forest(ways: list[Way], lessons: Lessons) -> Way:
    """Way with the least cross-fitted loss of the forest."""
    return min(ways, key=lambda way: lessons.loss(way.forest()))


def all_linears(lessons: Lessons, way: Way, ridge: Ridge) -> list[Linear]:
    """Each tier's linear member, fitted on all rows."""
    if way.together:
        return fit_linears(*lessons.labelled(), ridge)
    return [fit_linear(*lessons.of(k), ridge) for k in range(len(way.folds))]


def all_boosters(lessons: Lessons, way: Way) -> list[lgb.Booster]:
    """Each tier's forest, grown on all rows."""
    seed, recipe, rounds = lessons.seed, lessons.recipe, way.rounds()
    if way.together:  # of the same trees, so rounds are the same, too
        return grow_shared(*lessons.labelled(), rounds[0], seed, recipe)
    return [fit_booster(*lessons.of(k), count, seed, recipe) for k, count in enumerate(rounds)]


def _apart(lessons: Lessons) -> Way:
    """Each tier on its own rows."""
    tiers, numbers = range(lessons.score.shape[1]), range(int(lessons.folds.max()) + 1)
    jobs = [(k, fold) for k in tiers for fold in numbers]
    workers = min(cpu_count(), len(jobs))  # those this job may use, not all the machine has
    done = Parallel(n_jobs=workers)(delayed(fit_fold)(lessons, k, fold) for k, fold in jobs)
    size = len(numbers)
    return Way(
        tuple(tuple(done[k * size : (k + 1) * size]) for k in tiers), lessons.recipe.ridges, False
    )


def _together(lessons: Lessons, ridge: Ridge) -> Way:
    """All tiers on all rows."""
    count = int(lessons.folds.max()) + 1
    done = Parallel(n_jobs=min(cpu_count(), count))(
        delayed(fit_fold_jointly)(lessons, ridge, fold) for fold in range(count)
    )
    return Way(tuple(zip(*done, strict=True)), (ridge,), True)


def fit_fold(lessons: Lessons, k: int, number: int) -> Fold:
    """Fit one tier's linear (each penalty) and forest on the other folds; margins for this one."""
    x, score, weight, folds = lessons.x, lessons.score[:, k], lessons.weight[:, k], lessons.folds
    inside = np.flatnonzero((folds != number) & ~np.isnan(score))
    outside = np.flatnonzero(folds == number)
    known = outside[~np.isnan(score[outside])]
    rows, held_out = (x.take(inside), score[inside], weight[inside]), x.take(outside)
    linear = [linear_margins(fit_linear(*rows, ridge), held_out) for ridge in lessons.recipe.ridges]
    valid = (x.take(known), score[known]) if len(known) else None
    told = lessons.rounds, lessons.seed, lessons.recipe
    booster = fit_booster(*rows, *told, valid, threads=1)
    rounds = booster.best_iteration or booster.current_iteration()
    forest = booster_margins(booster, held_out, rounds)
    return Fold(outside, np.array(linear), forest, rounds)


def fit_fold_jointly(lessons: Lessons, ridge: Ridge, number: int) -> list[Fold]:
    """As `fit_fold`, of all tiers at once."""
    x, score, weight, folds = lessons.x, lessons.score, lessons.weight, lessons.folds
    inside = np.flatnonzero((folds != number) & ~np.isnan(score).all(axis=1))
    outside = np.flatnonzero(folds == number)
    rows = x.take(inside), score[inside], weight[inside]
    held_out = x.take(outside), score[outside], weight[outside]
    linears = fit_linears(*rows, ridge)
    told = lessons.rounds, lessons.seed, lessons.recipe
    boosters = grow_shared(*rows, *told, held_out, threads=1)
    return [
        Fold(
            outside,
            linear_margins(linear, held_out[0])[None],
            booster_margins(booster, held_out[0]),
            booster.num_trees(),
        )
        for linear, booster in zip(linears, boosters, strict=True)
    ]
