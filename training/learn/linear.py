"""The linear member: logistic regression on standardised dense features and n-grams.

It is served on raw features: how they were standardised goes into its weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

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


@dataclass(frozen=True, slots=True)
class Rows:
    """One tier's labelled rows.

    Attributes:
        dense: float64[n, dim], standardised.
        terms: sparse float64[n, m], TF-IDF weights of known n-grams.
        score: float64[n] in [0, 1].
        weight: float64[n].
    """

    dense: NDArray[np.float64]
    terms: sparse.csr_matrix
    score: NDArray[np.float64]
    weight: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        dense: NDArray[np.float64],
        terms: sparse.csr_matrix,
        score: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> "Rows":
        """Those whose score is observed, not NaN; if all are, nothing is copied."""
        seen = ~np.isnan(score)
        if seen.all():
            return cls(dense, terms, score, weight)
        return cls(dense[seen], terms[seen], score[seen], weight[seen])

    def loss(
        self, weights: NDArray[np.float64], bias: float
    ) -> tuple[float, NDArray[np.float64], float]:
        """Cross-entropy of a linear model, and its slope by weights and by bias."""
        dim = self.dense.shape[1]
        margin = self.dense @ weights[:dim] + self.terms @ weights[dim:] + bias
        nats = float(self.weight @ (np.logaddexp(0.0, margin) - self.score * margin))
        missed = self.weight * (expit(margin) - self.score)
        return nats, np.append(missed @ self.dense, self.terms.T @ missed), float(missed.sum())


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
    dense, axes = standardise(x.dense, 1.0)
    terms = x.terms[:, known]
    found = []
    for k in range(score.shape[1]):
        rows = Rows.of(dense, terms, score[:, k], weight[:, k])
        found.append([axes.linear(*_regress(rows, ridge), known) for ridge in ridges])
    return found


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


def _regress(rows: Rows, ridge: Ridge) -> tuple[NDArray[np.float64], float]:
    """Slopes, by standardised dense features and by n-grams, and level of one tier.

    The mean loss is minimised, as far as scikit-learn's `LogisticRegression` goes by default.
    """
    dim, width = rows.dense.shape[1], rows.dense.shape[1] + rows.terms.shape[1]
    won, lost = rows.weight * rows.score, rows.weight * (1.0 - rows.score)
    if not (won.any() and lost.any()):
        count, wins = len(rows.score), float(rows.score.sum())
        return np.zeros(width), float(np.log((wins + 0.5) / (count - wins + 0.5)))
    total = float(rows.weight.sum())
    stretch = np.ones(width)
    stretch[:dim] = ridge.dense

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat[:-1]
        nats, slope, lean = rows.loss(stretch * weights, flat[-1])
        nats += 0.5 * float(weights @ weights) / ridge.c
        return nats / total, np.append(stretch * slope + weights / ridge.c, lean) / total

    options = {"maxiter": 400, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(np.float64).eps}
    found = minimize(loss, np.zeros(width + 1), jac=True, method="L-BFGS-B", options=options).x
    return stretch * found[:-1], float(found[-1])


def linear_margins(linear: Linear, x: Matrix) -> NDArray[np.float64]:
    """Margins of the linear member, float64[n]."""
    inside = np.clip(x.dense, linear.low, linear.high).astype(np.float64)
    of_terms = x.terms @ linear.terms.astype(np.float64)
    return np.asarray(inside @ linear.weights + of_terms + linear.bias)
