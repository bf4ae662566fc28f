"""Fitting the knots of `router.calibration` to cross-fitted margins."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit

from router.calibration import Calibration

ROWS_PER_KNOT = 500
MAX_KNOTS = 9
STIFFNESS = 5.0  # nats that a slope e times the common one must earn
FIRM_ROWS = 100


def calibrate(
    margin: NDArray[np.float64],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    firm: NDArray[np.bool_],
) -> Calibration:
    """Calibrate a tier on all its rows, and move it to the level of the firm ones.

    A few hundred firm rows tell a level well but no slope, and tiers whose slopes are off by chance
    are apart by the wrong gap. Weak labels tell the slope: it is their level that is off.

    Args:
        margin: float64[n], log-odds that the rows' own labels had no part in.
        score: float64[n] in [0, 1], NaN where not observed.
        weight: float64[n].
        firm: bool[n], scores that are trusted.
    """
    known = np.flatnonzero(~np.isnan(score))
    calibration = fit_calibration(margin[known], score[known], weight[known])
    level = level_rows(score, firm)
    if len(level) == len(known):
        return calibration
    return moved(calibration, margin[level], score[level], weight[level])


def level_rows(score: NDArray[np.float64], firm: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows that hold a tier's level: the firm ones, if they are enough and vary."""
    known = np.flatnonzero(~np.isnan(score))
    sure = known[firm[known]]
    return sure if len(sure) >= FIRM_ROWS and np.ptp(score[sure]) > 0 else known


def fit_calibration(
    margin: NDArray[np.float64], score: NDArray[np.float64], weight: NDArray[np.float64]
) -> Calibration:
    """Fit a rising broken line in log-odds.

    With two knots this is Platt's scaling (1999); each further 500 rows add a knot whose slope may
    differ from the common one at a price, so that little data cannot bend the line.

    Args:
        margin: float64[n], log-odds that the rows' own labels had no part in.
        score: float64[n] in [0, 1].
        weight: float64[n].
    """
    count = int(np.clip(len(margin) // ROWS_PER_KNOT, 2, MAX_KNOTS))
    knots = np.unique(np.quantile(margin, np.linspace(0.02, 0.98, count)))
    if len(knots) < 2:
        knots = np.array([knots[0] - 1.0, knots[0] + 1.0])
    base = float(np.average(score, weights=weight))
    start = np.zeros(len(knots))
    start[0] = np.log(max(base, 1e-3) / max(1 - base, 1e-3)) - np.average(margin) + knots[0]

    def build(parameters: NDArray[np.float64]) -> Calibration:
        slopes = np.exp(np.clip(parameters[1:], -4.0, 4.0))
        rise = np.concatenate([[0.0], np.cumsum(slopes * np.diff(knots))])
        return Calibration(knots, parameters[0] + rise)

    def loss(parameters: NDArray[np.float64]) -> float:
        p = build(parameters).probability(margin)
        nats = -(score * np.log(p) + (1 - score) * np.log1p(-p)) @ weight
        bend = parameters[1:] - parameters[1:].mean()
        return float(nats + STIFFNESS * (bend @ bend) + 0.5 * parameters[1:].mean() ** 2)

    return build(minimize(loss, start, method="L-BFGS-B").x)


def moved(
    calibration: Calibration,
    margin: NDArray[np.float64],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> Calibration:
    """The same line, as far up or down (log-odds) as these rows' mean score asks.

    Args:
        calibration: what is moved.
        margin, score, weight: float64[n] each, of the rows that hold the level.
    """

    def missed(shift: float) -> float:
        p = Calibration(calibration.margin, calibration.logit + shift).probability(margin)
        return float((p - score) @ weight)

    return Calibration(calibration.margin, calibration.logit + brentq(missed, -20.0, 20.0))


def log_loss(
    margin: NDArray[np.float64], score: NDArray[np.float64], weight: NDArray[np.float64]
) -> float:
    """Summed cross-entropy in nats of margins against scores in [0, 1]."""
    p = np.clip(expit(margin), 1e-9, 1 - 1e-9)
    return float(-(score * np.log(p) + (1 - score) * np.log1p(-p)) @ weight)
