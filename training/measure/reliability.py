"""Are the probabilities true, and do they tell good from bad: Brier, ECE, AUC, reliability table.

p: float64[n], P(tier suffices) of ONE tier; outcome: float64[n], its observed score or 0/1.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.errors import BadInput
from training.measure.intervals import Estimator, Floats

BINS = 15
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Reliability:
    """The b ≤ 15 bins of a reliability table, by rising probability.

    Attributes:
        mean_p, mean_outcome: float64[b].
        low, high: float64[b], 95 % limits of the mean outcome (Wilson, 1927): made for outcomes of
            0 or 1, wider than needed for graded ones.
        count: int64[b].
    """

    mean_p: Floats
    mean_outcome: Floats
    low: Floats
    high: Floats
    count: NDArray[np.int64]


def reliability_metrics(
    p: ArrayLike, outcome: ArrayLike, suffices: ArrayLike | None = None
) -> Estimator:
    """`brier`, `ece` and `auc` of one tier's probabilities, for the rounds of a bootstrap.

    - `brier`: mean of (p − outcome)² (Brier, 1950).
    - `ece`: mean over requests of |mean p − mean outcome| of their bin, equal-mass bins whose edges
      are those of the rows themselves; equal probabilities share a bin (Naeini et al., 2015).
    - `auc`: P(p of one that sufficed > p of one that did not), ties count half; NaN if all or none
      sufficed. suffices: bool[n], by default outcome ≥ 0.5.
    """
    p, outcome = _checked(p, outcome)
    good = outcome >= 0.5 if suffices is None else np.asarray(suffices)
    if good.shape != p.shape or good.dtype != np.bool_:
        raise BadInput(f"suffices: bool [{len(p)}] is needed, not {good.dtype} {good.shape}")
    squared = (p - outcome) ** 2
    bin_of = equal_mass_bins(p, BINS)
    residual = np.where(bin_of[:, None] == np.unique(bin_of), (p - outcome)[:, None], 0.0)
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.append(True, p[order][1:] != p[order][:-1]))
    good_in_order = good[order].astype(np.float64)

    def estimate(weights: Floats) -> dict[str, Floats]:
        mass = weights.sum(axis=1)
        return {
            "brier": weights @ squared / mass,
            "ece": np.abs(weights @ residual).sum(axis=1) / mass,
            "auc": _auc(weights[:, order], good_in_order, starts),
        }

    return estimate


def reliability_table(p: ArrayLike, outcome: ArrayLike, bins: int = BINS) -> Reliability:
    """Equal-mass bins of p with their mean outcome; ties share a bin, so there may be fewer."""
    p, outcome = _checked(p, outcome)
    _, bin_of, count = np.unique(equal_mass_bins(p, bins), return_inverse=True, return_counts=True)
    mean_p = np.bincount(bin_of, weights=p) / count
    rate = np.bincount(bin_of, weights=outcome) / count
    shrunk = 1 + _Z95**2 / count
    centre = (rate + _Z95**2 / (2 * count)) / shrunk
    # A mean of rounding above 1 must not give a negative variance.
    variance = np.maximum(rate * (1 - rate), 0.0) / count
    half = _Z95 * np.sqrt(variance + (_Z95 / (2 * count)) ** 2) / shrunk
    return Reliability(mean_p, rate, centre - half, centre + half, count.astype(np.int64))


def debiased_ece(p: Floats, outcome: Floats) -> float:
    """Calibration error free of the noise of its bins: root of the debiased squared error.

    Equal-mass bins; from each bin's squared gap the variance of its mean outcome is taken away
    (Kumar, Liang & Ma, 2019, "Verified uncertainty calibration").

    p, outcome: float64[n].
    """
    _, member = np.unique(equal_mass_bins(p, BINS), return_inverse=True)
    count = np.bincount(member)
    gap = np.bincount(member, weights=p - outcome) / count
    mean = np.bincount(member, weights=outcome) / count
    spread = np.bincount(member, weights=(outcome - mean[member]) ** 2)
    known = count > 1
    noise = spread[known] / (count[known] - 1) / count[known]
    squared = count[known] @ (gap[known] ** 2 - noise) / len(p)
    return sqrt(max(float(squared), 0.0))


def equal_mass_bins(p: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each probability, int64[n] in 0 … bins − 1; equal probabilities share a bin."""
    if bins < 1:
        raise BadInput(f"bins: at least one is needed, not {bins}")
    edges = np.quantile(p, np.arange(1, bins) / bins, method="inverted_cdf")
    found: NDArray[np.int64] = np.searchsorted(edges, p, side="left")
    return found


def _auc(weights: Floats, good: Floats, starts: NDArray[np.int64]) -> Floats:
    """Weights float64[r, n] and outcomes float64[n], both by rising p; ties begin at `starts`."""
    hits = np.add.reduceat(weights * good, starts, axis=1)
    misses = np.add.reduceat(weights * (1 - good), starts, axis=1)
    below = np.cumsum(misses, axis=1) - misses / 2
    pairs = hits.sum(axis=1) * misses.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc: Floats = np.where(pairs > 0, (hits * below).sum(axis=1) / pairs, np.nan)
    return auc


def _checked(p: ArrayLike, outcome: ArrayLike) -> tuple[Floats, Floats]:
    probability, observed = (np.asarray(v, dtype=np.float64) for v in (p, outcome))
    if probability.ndim != 1 or not len(probability) or probability.shape != observed.shape:
        raise BadInput(
            f"p {probability.shape} and outcome {observed.shape}: one of each per request is needed"
        )
    for name, array in (("p", probability), ("outcome", observed)):
        wrong = np.flatnonzero(~((array >= 0) & (array <= 1)))
        if len(wrong):
            raise BadInput(f"{name}: row {wrong[0]} is {array[wrong[0]]}, not inside [0, 1]")
    return probability, observed
