"""Cross-fitting linear and forest: each tier on its own rows, or the tiers together.

They learn together only where few requests show every tier's outcome (`learn.joint`), and there
only the members, linear or forest, whose cross-fitted loss it lowers.

The linear member has a penalty for the level that the tiers share and others for each tier's
deviation from it: every row tells how hard a prompt is, but few tell on which prompts tiers differ,
and noise there misleads routing. The deviations are averaged over several penalties, each weighed
by exp(−cross-fitted loss) (pseudo-BMA: Yao, Vehtari, Simpson and Gelman, 2018): with few rows all
of them count, with many only the best.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import lightgbm as lgb
import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from router.head import Linear, blended
from training.errors import BadInput
from training.learn.blending import routing_loss
from training.learn.calibrate import log_loss
from training.learn.joint import fit_linears, grow_shared, mostly_unpaired
from training.learn.linear import fit_ridges, linear_margins, merge
from training.learn.members import Matrix, Recipe, Ridge
from training.learn.pooling import pooled
from training.learn.trees import Bins, booster_margins, fit_booster

FOLDS = 4
MIN_ROUNDS = 5
LEAST_SHARE = 0.05  # a penalty with less than this share of the best one's weight is left out


@dataclass(frozen=True, slots=True)
class Fold:
    """Margins of one tier's rows outside a fold's fitting rows."""

    rows: NDArray[np.int64]
    linear: NDArray[np.float64]  # [penalties, rows]
    forest: NDArray[np.float64]
    rounds: int


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is learned from, of the k tiers whose scores vary.

    Attributes:
        x: vectors of n rows.
        bins: the same, for forests.
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k].
        kind: int64[n], of each row (`learn.pooling`).
        folds: int64[n], the fold in which each row is held out.
        rounds: trees at most.
        seed: of the trees.
        recipe: the members' parameters.
    """

    x: Matrix
    bins: Bins
    score: NDArray[np.float64]
    weight: NDArray[np.float64]
    kind: NDArray[np.int64]
    folds: NDArray[np.int64]
    rounds: int
    seed: int
    recipe: Recipe

    def rows(self, k: int) -> NDArray[np.int64]:
        """Numbers of one tier's labelled rows, int64[m]."""
        return np.flatnonzero(~np.isnan(self.score[:, k]))

    def taught(self, fold: int | None = None) -> NDArray[np.float64]:
        """What linear and forest learn outside a fold, or of all rows: scores, pooled over kinds.

        float64[n, k]; rows of the fold, whose labels have no part in it, are NaN.
        """
        found = np.full_like(self.score, np.nan)
        rows = np.flatnonzero(self.folds != (-1 if fold is None else fold))
        found[rows] = pooled(self.score[rows], self.weight[rows], self.kind[rows])
        return found

    def labelled(
        self, taught: NDArray[np.float64]
    ) -> tuple[Matrix, NDArray[np.float64], NDArray[np.float64]]:
        """Vectors, what is taught and weights, float64[m, k], of rows with a label of any tier."""
        rows = np.flatnonzero(~np.isnan(taught).all(axis=1))
        return self.x.take(rows), taught[rows], self.weight[rows]

    def loss(self, margins: NDArray[np.float64]) -> float:
        """Cross-entropy of margins float64[n, k] over what was observed."""
        known = ~np.isnan(self.score)
        return log_loss(margins[known], self.score[known], self.weight[known])


@dataclass(frozen=True, slots=True)
class Way:
    """One way to learn, cross-fitted: the tiers `together`, or each apart from the others.

    Attributes:
        folds: of each tier.
        ridges: the penalties under each of which the linear member was fitted.
        together: whether the tiers learned together.
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
        """The linear member's margins under one of the penalties, float64[n, k]."""
        return self.margins(lambda fold: fold.linear[ridge])

    def linears(self) -> NDArray[np.float64]:
        """The same under each of the penalties, float64[ridges, n, k]."""
        return np.stack([self.linear(ridge) for ridge in range(len(self.ridges))])

    def forest(self) -> NDArray[np.float64]:
        """The forest's margins, float64[n, k]."""
        return self.margins(lambda fold: fold.forest)

    def rounds(self) -> list[int]:
        """How many trees each tier's forest needs."""
        return [max(int(np.median([f.rounds for f in folds])), MIN_ROUNDS) for folds in self.folds]


@dataclass(frozen=True, slots=True)
class LinearBlend:
    """How the linear member is learned.

    Attributes:
        way: each tier apart, or together.
        level, gap: float64[ridges of the way], weight of each penalty, as in `Blend`.
    """

    way: Way
    level: NDArray[np.float64]
    gap: NDArray[np.float64]

    @property
    def penalty(self) -> Ridge:
        """The one of the level."""
        return self.way.ridges[int(self.level.argmax())]

    def margins(self) -> NDArray[np.float64]:
        """What it says of rows that it was not fitted on, float64[n, k]."""
        return blended(self.level, self.gap, self.way.linears())


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
    """BadInput where all labelled rows of a tier are in one fold.

    score: float64[n, k], NaN where not observed; folds: int64[n]; learned: tiers to look at.
    """
    for k in learned:
        if len(np.unique(folds[~np.isnan(score[:, k])])) < 2:
            raise BadInput(
                f"tier {names[k]!r}: all its labelled fit rows are of one session or one prompt; "
                "cross-fitting needs two or more: log or replay others of its calls"
            )


def cross_fit(lessons: Lessons) -> list[Way]:
    """Each tier apart and, where less than half of the labelled rows are paired, also together.

    Together, the linear member takes the penalty that was best apart: to try all takes minutes.
    """
    folds = _in_folds(partial(fit_fold, lessons), lessons)
    apart = Way(folds, lessons.recipe.ridges, together=False)
    if not mostly_unpaired(lessons.score):
        return [apart]
    best = best_linear([apart], lessons).penalty
    folds = _in_folds(partial(fit_fold_jointly, lessons, best), lessons)
    return [apart, Way(folds, (best,), together=True)]


def best_linear(ways: list[Way], lessons: Lessons) -> LinearBlend:
    """Way and penalty with the least cross-fitted loss, and the penalties' weights for the gap."""
    way, best = min(
        ((way, ridge) for way in ways for ridge in range(len(way.ridges))),
        key=lambda found: lessons.loss(found[0].linear(found[1])),
    )
    margins, alone = way.linears(), np.eye(len(way.ridges))
    tried = [j for j, ridge in enumerate(way.ridges) if ridge in lessons.recipe.gap_ridges]
    tried = tried or [best]  # tiers that learned together, under the one penalty
    losses = np.array(
        [
            routing_loss(blended(alone[best], alone[j], margins), lessons.score, lessons.weight)
            for j in tried
        ]
    )
    share = np.exp(losses.min() - losses)
    share[share < LEAST_SHARE] = 0.0
    return LinearBlend(way, alone[best], share @ alone[tried] / share.sum())


def best_forest(ways: list[Way], lessons: Lessons) -> Way:
    """Way with the least cross-fitted loss of the forest."""
    return min(ways, key=lambda way: lessons.loss(way.forest()))


def all_linears(lessons: Lessons, line: LinearBlend) -> list[Linear]:
    """Each tier's linear member, fitted on all rows."""
    rows = lessons.labelled(lessons.taught())
    if line.way.together:
        return fit_linears(*rows, line.penalty)
    used = np.flatnonzero(line.level + line.gap)
    linears = fit_ridges(*rows, [line.way.ridges[j] for j in used])
    return merge(linears, line.level[used], line.gap[used])


def all_boosters(lessons: Lessons, way: Way) -> list[lgb.Booster]:
    """Each tier's forest, grown on all rows."""
    seed, recipe, rounds, taught = lessons.seed, lessons.recipe, way.rounds(), lessons.taught()
    if way.together:  # of the same trees, so rounds are the same, too
        return grow_shared(*lessons.labelled(taught), rounds[0], seed, recipe)
    found = []
    for k, count in enumerate(rounds):
        rows = lessons.rows(k)
        learned = taught[rows, k], lessons.weight[rows, k]
        found.append(fit_booster(lessons.bins, rows, *learned, count, seed, recipe))
    return found


def _in_folds(fit: Callable[[int], list[Fold]], lessons: Lessons) -> tuple[tuple[Fold, ...], ...]:
    """What `fit` says of each fold, by tier; on as many cores as this job may use."""
    count = int(lessons.folds.max()) + 1
    with threadpool_limits(1):  # a thread a fold: more of them would wait for each other
        done = Parallel(n_jobs=min(cpu_count(), count), prefer="threads")(
            delayed(fit)(number) for number in range(count)
        )
    return tuple(zip(*done, strict=True))


def fit_fold(lessons: Lessons, number: int) -> list[Fold]:
    """Fit each tier's linear (each penalty) and forest on the other folds; margins for this one."""
    score, weight, taught = lessons.score, lessons.weight, lessons.taught(number)
    outside = np.flatnonzero(lessons.folds == number)
    held_out, ridges = lessons.x.take(outside), lessons.recipe.ridges
    found = []
    for k, linears in enumerate(fit_ridges(*lessons.labelled(taught), ridges)):
        rows = np.flatnonzero(~np.isnan(taught[:, k]))
        known = outside[~np.isnan(score[outside, k])]
        booster = fit_booster(
            lessons.bins,
            rows,
            taught[rows, k],
            weight[rows, k],
            lessons.rounds,
            lessons.seed,
            lessons.recipe,
            (known, score[known, k]) if len(known) else None,
            threads=1,
        )
        rounds = booster.best_iteration or booster.current_iteration()
        linear = np.array([linear_margins(one, held_out) for one in linears])
        found.append(Fold(outside, linear, booster_margins(booster, held_out, rounds), rounds))
    return found


def fit_fold_jointly(lessons: Lessons, ridge: Ridge, number: int) -> list[Fold]:
    """As `fit_fold`, of all tiers at once."""
    outside = np.flatnonzero(lessons.folds == number)
    rows = lessons.labelled(lessons.taught(number))
    held_out = lessons.x.take(outside), lessons.score[outside], lessons.weight[outside]
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
