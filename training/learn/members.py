"""The members of a head: linear, forest, neighbours; how each is fitted, for serving without them.

Each `fit_*` returns what `router` serves; each `*_margins` gives the same margins for many rows at
once, for cross-fitting.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression

from router.head import Linear
from router.neighbours import Neighbours
from router.ngrams import BUCKETS
from router.vectorizer import Vector

DEVIATIONS = 5.0  # beyond so many standard deviations a dense feature says no more

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

SMALL_DIM = 64
SESSIONS_PER_PROTOTYPE = 10
MAX_PROTOTYPES = 2000
PRIOR_ROWS = 10.0


@dataclass(frozen=True, slots=True)
class Matrix:
    """Vectors of n prompts.

    Attributes:
        dense: float32[n, dim].
        terms: sparse float64[n, BUCKETS], TF-IDF weights.
        tokens: float64[n], counted input tokens.
        read: float32[n, learned tiers], margins by the fine-tuned encoder, NaN for rows that it
            was trained on; float32[n, 0] where there is no encoder.
    """

    dense: NDArray[np.float32]
    terms: sparse.csr_matrix
    tokens: NDArray[np.float64]
    read: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> "Matrix":
        """The vectors at `rows`, int64[m]."""
        return Matrix(self.dense[rows], self.terms[rows], self.tokens[rows], self.read[rows])

    def vectors(self) -> Iterator[Vector]:
        """The rows as serving sees them."""
        starts = self.terms.indptr
        rows = zip(self.dense, self.tokens, self.read, strict=True)
        for i, (dense, tokens, read) in enumerate(rows):
            known = slice(starts[i], starts[i + 1])
            terms = self.terms.indices[known], self.terms.data[known]
            yield Vector(dense, *terms, float(tokens), read)


@dataclass(frozen=True, slots=True)
class Ridge:
    """The linear member's penalty.

    Attributes:
        c: inverse strength for the n-grams, whose rows have length one.
        dense: factor on the standardised dense features. They enter small, so that under one
            penalty the n-grams may say more than a few broad directions do.
    """

    c: float
    dense: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a search may change: the labels learned from, LightGBM's parameters, the ridges.

    Attributes:
        learning_rate, num_leaves, feature_fraction, lambda_l2: LightGBM's.
        ridges: the linear member's penalties, among which is chosen.
        firm_only: weak labels (what users did next) are not learned from.
        sufficed_at: members learn whether the score is at least this instead of the score; their
            weights and the calibration remain the score's, so a head estimates the same.
    """

    learning_rate: float = 0.06
    num_leaves: int = 15
    feature_fraction: float = 0.3
    lambda_l2: float = 5.0
    ridges: tuple[Ridge, ...] = (
        Ridge(0.3, 1 / 40),
        Ridge(1.0, 1 / 40),
        Ridge(3.0, 1 / 40),
        Ridge(1.0, 1 / 80),
    )
    firm_only: bool = False
    sufficed_at: float | None = None

    @property
    def forest(self) -> dict[str, float]:
        """The parameters that LightGBM takes."""
        names = ("learning_rate", "num_leaves", "feature_fraction", "lambda_l2")
        return {name: getattr(self, name) for name in names}

    def target(self, score: NDArray[np.float64], firm: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What members learn, float64[n, k]; weak scores, which are chances, stay as they are."""
        if self.sufficed_at is None:
            return score
        sure = firm & ~np.isnan(score)
        return np.where(sure, score >= self.sufficed_at, score)


STANDARD = Recipe()


@dataclass(frozen=True, slots=True)
class Axes:
    """How dense features were standardised for a linear member, float64[dim] or float32[dim] each.

    Attributes:
        mean: what was taken off.
        scale: what was multiplied by, 0 for features that do not vary.
        low, high: what values were held between, before that.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def linear(self, coefficients: NDArray[np.float64], intercept: float) -> Linear:
        """The member on raw features, of coefficients float64[dim + BUCKETS] on standard ones."""
        dim = len(self.scale)
        weights = coefficients[:dim] * self.scale
        bias = float(intercept - self.mean @ weights)
        return Linear(weights, coefficients[dim:].astype(np.float32), bias, self.low, self.high)


def standardise(dense: NDArray[np.float32], scale: float) -> tuple[NDArray[np.float64], Axes]:
    """Dense features clipped, centred and brought to the deviation `scale`."""
    mean, deviation = dense.mean(axis=0, dtype=np.float64), dense.std(axis=0, dtype=np.float64)
    factor = np.where(deviation > 1e-9, scale / np.maximum(deviation, 1e-9), 0.0)
    reach = DEVIATIONS * deviation
    low = np.maximum(dense.min(axis=0), mean - reach).astype(np.float32)
    high = np.maximum(np.minimum(dense.max(axis=0), mean + reach).astype(np.float32), low)
    return (np.clip(dense, low, high) - mean) * factor, Axes(mean, factor, low, high)


def fit_linear(
    x: Matrix, score: NDArray[np.float64], weight: NDArray[np.float64], ridge: Ridge
) -> Linear:
    """`fit_ridges` of one tier with one penalty, score and weight float64[n]."""
    return fit_ridges(x, score[:, None], weight[:, None], (ridge,))[0][0]


def fit_ridges(
    x: Matrix, score: NDArray[np.float64], weight: NDArray[np.float64], ridges: Sequence[Ridge]
) -> list[list[Linear]]:
    """Logistic regression on scores in [0, 1] (a score is that share of a success).

    Args:
        x: vectors of n rows.
        score: float64[n, k] in [0, 1], NaN where not observed.
        weight: float64[n, k].
        ridges: the penalties.

    Returns:
        Each tier's model under each of them; where no score is above 0, or none below 1, a level
        without slopes.
    """
    known = np.unique(x.terms.indices)  # of the other n-grams nothing is learned
    standard, axes = standardise(x.dense, 1.0)
    dim = len(axes.scale)
    rows = sparse.hstack([_as_sparse(standard), x.terms[:, known].tocsc()], format="csc").tocsr()
    of_dense = rows.indices < dim
    found: dict[tuple[int, Ridge], Linear] = {}
    for scale in {ridge.dense for ridge in ridges}:
        values = np.where(of_dense, rows.data * scale, rows.data)
        scaled = sparse.csr_matrix((values, rows.indices, rows.indptr), shape=rows.shape)
        penalties = [ridge for ridge in ridges if ridge.dense == scale]
        for k in range(score.shape[1]):
            models = _regress(scaled, score[:, k], weight[:, k], [ridge.c for ridge in penalties])
            for ridge, (slopes, level) in zip(penalties, models, strict=True):
                weights = np.zeros(dim + BUCKETS)
                weights[:dim], weights[dim + known] = slopes[:dim] * scale, slopes[dim:]
                found[k, ridge] = axes.linear(weights, level)
    return [[found[k, ridge] for ridge in ridges] for k in range(score.shape[1])]


def _regress(
    rows: sparse.csr_matrix,
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    strengths: Sequence[float],
) -> list[tuple[NDArray[np.float64], float]]:
    """Slopes and level of one tier under each penalty."""
    seen = np.flatnonzero(~np.isnan(score))
    wins, losses = weight[seen] * score[seen], weight[seen] * (1.0 - score[seen])
    won, lost = seen[wins > 0], seen[losses > 0]
    if not len(won) or not len(lost):
        total = score[seen].sum()
        level = float(np.log((total + 0.5) / (len(seen) - total + 0.5)))
        return [(np.zeros(rows.shape[1]), level)] * len(strengths)
    examples = rows[np.concatenate([won, lost])]
    outcome = np.repeat([1, 0], [len(won), len(lost)])
    share = np.concatenate([wins[wins > 0], losses[losses > 0]])
    given = examples, outcome, share
    models = [LogisticRegression(C=c, max_iter=400).fit(*given) for c in strengths]
    return [(model.coef_[0], float(model.intercept_[0])) for model in models]


def _as_sparse(dense: NDArray[np.float64]) -> sparse.csc_matrix:
    """All values of float64[n, dim], zeros among them: what finds them takes longer than they."""
    n, dim = dense.shape
    rows, starts = np.tile(np.arange(n, dtype=np.int32), dim), np.arange(0, n * dim + 1, n)
    return sparse.csc_matrix((dense.ravel(order="F"), rows, starts), shape=(n, dim))


def linear_margins(linear: Linear, x: Matrix) -> NDArray[np.float64]:
    """Margins of the linear member, float64[n]."""
    inside = np.clip(x.dense, linear.low, linear.high).astype(np.float64)
    of_terms = x.terms @ linear.terms.astype(np.float64)
    return np.asarray(inside @ linear.weights + of_terms + linear.bias)


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
    held_out: lgb.Dataset | None = None,
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


@dataclass(frozen=True, slots=True)
class Geometry:
    """Prototypes of the fit rows, before any outcome is looked at.

    Attributes:
        projection: float32[dim, small]; offset: float32[small].
        centroids: float32[prototypes, small], of length one.
        nearest: int64[n], the prototype of each fit row.
    """

    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    centroids: NDArray[np.float32]
    nearest: NDArray[np.int64]

    def place(self, dense: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows in the small space, float32[n, small], of length one."""
        small = dense @ self.projection - self.offset
        length = np.linalg.norm(small, axis=1, keepdims=True)
        return np.asarray(small / np.where(length > 0, length, 1.0), dtype=np.float32)


def fit_geometry(
    dense: NDArray[np.float32], surface: int, sessions: NDArray[np.int64], seed: int
) -> Geometry:
    """Cluster the fit rows in a 64-dimensional PCA of embedding and n-grams.

    Args:
        dense: float32[n, dim]; its first `surface` columns are not used.
        sessions: int64[n]; no prototype stands for fewer than ten of them.
    """
    part = dense[:, surface:].astype(np.float64)
    mean = part.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(part, rowvar=False))
    kept = vectors[:, np.argsort(values)[::-1][:SMALL_DIM]]
    projection = np.zeros((dense.shape[1], kept.shape[1]), dtype=np.float32)
    projection[surface:] = kept
    offset = (mean @ kept).astype(np.float32)
    blank = Geometry(projection, offset, projection[:0], np.zeros(0, dtype=np.int64))
    small = blank.place(dense)
    wanted = len(np.unique(sessions)) // SESSIONS_PER_PROTOTYPE
    wanted = int(np.clip(wanted, 1, min(MAX_PROTOTYPES, len(small))))
    model = MiniBatchKMeans(wanted, n_init=1, batch_size=4096, max_iter=30, random_state=seed)
    nearest = _without_small(small, model.fit_predict(small), sessions)
    centroids = np.stack([small[nearest == j].mean(axis=0) for j in range(nearest.max() + 1)])
    length = np.linalg.norm(centroids, axis=1, keepdims=True)
    centroids = (centroids / np.where(length > 0, length, 1.0)).astype(np.float32)
    return Geometry(projection, offset, centroids, nearest)


def _without_small(
    small: NDArray[np.float32], label: NDArray[np.int64], sessions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give the rows of prototypes with under ten sessions to the nearest that keeps its own."""
    pairs = np.unique(np.stack([label, sessions]), axis=1)
    counts = np.bincount(pairs[0], minlength=int(label.max()) + 1)
    kept = np.flatnonzero(counts >= SESSIONS_PER_PROTOTYPE)
    if not len(kept):
        return np.zeros(len(label), dtype=np.int64)
    centres = np.stack([small[label == j].mean(axis=0) for j in kept])
    number = np.full(len(counts), -1)
    number[kept] = np.arange(len(kept))
    found = number[label]
    lost = np.flatnonzero(found < 0)
    found[lost] = np.argmax(small[lost] @ centres.T, axis=1)
    return np.asarray(found, dtype=np.int64)


def fit_neighbours(
    geometry: Geometry,
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    rows: NDArray[np.int64],
    width: float,
) -> Neighbours:
    """Count each tier's outcomes at the prototypes.

    Args:
        geometry: of all fit rows.
        score: float64[n, k] of the fit rows, NaN where not observed.
        weight: float64[n, k].
        rows: int64[m], the fit rows whose outcomes may be counted.
        width: kernel width, a squared distance.
    """
    seen = ~np.isnan(score[rows])
    weights = np.where(seen, weight[rows], 0.0)
    count, success = (
        _at_prototypes(geometry, rows, values)
        for values in (weights, weights * np.nan_to_num(score[rows]))
    )
    mean = (success.sum(axis=1) + 0.5) / (count.sum(axis=1) + 1.0)
    return Neighbours(
        projection=geometry.projection,
        offset=geometry.offset,
        centroids=geometry.centroids,
        rows=count,
        successes=np.minimum(success, count),
        mean=mean,
        width=width,
        prior=PRIOR_ROWS,
    )


def _at_prototypes(
    geometry: Geometry, rows: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums of values float64[m, k] over the rows of each prototype, float64[k, prototypes]."""
    size = len(geometry.centroids)
    where = geometry.nearest[rows]
    return np.stack([np.bincount(where, weights=column, minlength=size) for column in values.T])


def neighbour_margins(neighbours: Neighbours, dense: NDArray[np.float32]) -> NDArray[np.float64]:
    """Margins of the neighbours, float64[n, k]."""
    return np.array([neighbours.margins(row) for row in dense])
