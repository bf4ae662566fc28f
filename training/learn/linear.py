"""The linear member: logistic regression on standardised dense features and n-grams.

It is served on raw features: how they were standardised goes into its weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from router.head import Linear, blended
from router.ngrams import BUCKETS
from training.learn.members import Matrix, Ridge

DEVIATIONS = 5.0  # dense features are clipped at so many standard deviations


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

    def linear(self, slopes: NDArray[np.float64], level: float, known: NDArray[np.int64]) -> Linear:
        """The member on raw features, from weights fitted on standardised ones.

        Args:
            slopes: float64[dim + m], by dense features, then by the n-grams `known`.
            level: the intercept.
            known: int64[m], buckets of the n-grams that some row has; nothing is learned of others.
        """
        dim = len(self.scale)
        weights, terms = slopes[:dim] * self.scale, np.zeros(BUCKETS, dtype=np.float32)
        terms[known] = slopes[dim:]
        bias = float(level - self.mean @ weights)
        return Linear(weights, terms, bias, self.low, self.high)


def standardise(dense: NDArray[np.float32], scale: float) -> tuple[NDArray[np.float64], Axes]:
    """Dense features, float[n, d], clipped, centred and brought to the deviation `scale`."""
    mean, deviation = dense.mean(axis=0, dtype=np.float64), dense.std(axis=0, dtype=np.float64)
    factor = np.where(deviation > 1e-9, scale / np.maximum(deviation, 1e-9), 0.0)
    reach = DEVIATIONS * deviation
    low = np.maximum(dense.min(axis=0), mean - reach).astype(np.float32)
    high = np.maximum(np.minimum(dense.max(axis=0), mean + reach).astype(np.float32), low)
    return (np.clip(dense, low, high) - mean) * factor, Axes(mean, factor, low, high)


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
    known = np.unique(x.terms.indices)
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
                raw = np.concatenate([slopes[:dim] * scale, slopes[dim:]])
                found[k, ridge] = axes.linear(raw, level, known)
    return [[found[k, ridge] for ridge in ridges] for k in range(score.shape[1])]


def merge(
    linears: Sequence[Sequence[Linear]], level: NDArray[np.float64], gap: NDArray[np.float64]
) -> list[Linear]:
    """One member per tier, whose margins are the `blended` margins of its penalties' members.

    Args:
        linears: [tiers][penalties], as of `fit_ridges`.
        level, gap: float64[penalties].
    """

    def blend(name: str) -> NDArray[np.float64]:
        values = np.array([[getattr(one, name) for one in of_tier] for of_tier in linears])
        return blended(level, gap, np.moveaxis(values, 0, -1))

    weights, terms, bias = blend("weights").T, blend("terms").T.astype(np.float32), blend("bias")
    return [
        Linear(weights[k], terms[k], float(bias[k]), of_tier[0].low, of_tier[0].high)
        for k, of_tier in enumerate(linears)
    ]


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
    """float64[n, dim] as sparse with its zeros kept: to find and drop them would take longer."""
    n, dim = dense.shape
    rows, starts = np.tile(np.arange(n, dtype=np.int32), dim), np.arange(0, n * dim + 1, n)
    return sparse.csc_matrix((dense.ravel(order="F"), rows, starts), shape=(n, dim))


def linear_margins(linear: Linear, x: Matrix) -> NDArray[np.float64]:
    """Margins of the linear member, float64[n]."""
    inside = np.clip(x.dense, linear.low, linear.high).astype(np.float64)
    of_terms = x.terms @ linear.terms.astype(np.float64)
    return np.asarray(inside @ linear.weights + of_terms + linear.bias)
