"""Fitting the knots of `router.calibration` to cross-fitted margins."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit

from router.calibration import Calibration

LABELS_PER_KNOT = 500
MAX_KNOTS = 9
STIFFNESS = 5.0  # nats that must be gained to make a piece's slope e times the common one
OWN_SLOPE = 10.0  # the same for one tier's slope against that of all tiers
STEEP = 4.0  # largest |log slope|
FIRM_ROWS = 100

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def calibrate(margins: Floats, score: Floats, weight: Floats, firm: Bools) -> list[Calibration]:
    """Calibrate tiers on all their rows, then move each to the level of its firm rows.

    A few hundred firm rows suffice for a level, not for a slope; weak labels tell the slope, but
    their level is biased.

    Args:
        margins: float64[n, k], log-odds that the rows' own labels had no part in.
        score: float64[n, k] in [0, 1], NaN where not observed.
        weight: float64[n, k].
        firm: bool[n, k], scores that are trusted.
    """
    found = []
    for k, calibration in enumerate(fit_calibrations(margins, score, weight)):
        known, level = np.flatnonzero(~np.isnan(score[:, k])), level_rows(score[:, k], firm[:, k])
        if len(level) < len(known):
            rows = margins[level, k], score[level, k], weight[level, k]
            calibration = moved(calibration, *rows)
        found.append(calibration)
    return found


def level_rows(score: Floats, firm: Bools) -> NDArray[np.int64]:
    """The rows that hold a tier's level, int64[m]: the firm ones, if they are enough and vary.

    score: float64[n], NaN where not observed; firm: bool[n].
    """
    known = np.flatnonzero(~np.isnan(score))
    sure = known[firm[known]]
    return sure if len(sure) >= FIRM_ROWS and np.ptp(score[sure]) > 0 else known


def fit_calibrations(margins: Floats, score: Floats, weight: Floats) -> list[Calibration]:
    """Fit a rising broken line in log-odds: one shape for all tiers, a level for each.

    With two knots this is Platt's scaling (1999). Each further 500 labels add a knot; a slope that
    differs from the common one is penalised, so that little data cannot bend the line. A tier's
    slope that differs from the other tiers' is penalised more: by chance it would put a wrong gap
    between tiers, and routing turns on the gap.

    Args:
        margins: float64[n, k], log-odds that the rows' own labels had no part in.
        score: float64[n, k] in [0, 1], NaN where not observed.
        weight: float64[n, k].
    """
    known, tiers = ~np.isnan(score), score.shape[1]
    count = int(np.clip(known.sum() // LABELS_PER_KNOT, 2, MAX_KNOTS))
    knots = np.unique(np.quantile(margins[known], np.linspace(0.02, 0.98, count)))
    if len(knots) < 2:
        knots = np.array([knots[0] - 1.0, knots[0] + 1.0])
    rows = [(margins[seen, k], score[seen, k], weight[seen, k]) for k, seen in enumerate(known.T)]
    passed = [_passed(margin, knots) for margin, _, _ in rows]
    start = np.zeros(tiers + (1 + tiers) * (len(knots) - 1))
    for k, (margin, outcome, counted) in enumerate(rows):
        base = np.average(outcome, weights=counted) if len(outcome) else 0.5
        odds = np.log(max(base, 1e-3) / max(1 - base, 1e-3))
        start[k] = odds - (np.average(margin) if len(margin) else knots[0]) + knots[0]

    def parts(parameters: Floats) -> tuple[Floats, Floats, Floats]:
        """Levels; logarithms of the common slopes, then of what each tier adds; tiers' slopes."""
        logs = parameters[tiers:].reshape(1 + tiers, -1)
        return parameters[:tiers], logs, np.exp(np.clip(logs[0] + logs[1:], -STEEP, STEEP))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        level, logs, slopes = parts(parameters)
        own, bend, mean = logs[1:], logs[0] - logs[0].mean(), logs[0].mean()
        nats = STIFFNESS * (bend @ bend) + OWN_SLOPE * (own**2).sum() + 0.5 * mean**2
        lean, tilt = np.empty(tiers), np.empty_like(own)
        for k, (_, outcome, counted) in enumerate(rows):
            odds = level[k] + passed[k] @ slopes[k]
            nats += counted @ (np.logaddexp(0.0, odds) - outcome * odds)
            missed = counted * (expit(odds) - outcome)
            lean[k], tilt[k] = missed.sum(), (missed @ passed[k]) * slopes[k]
        tilt[np.abs(logs[0] + own) >= STEEP] = 0.0
        common = tilt.sum(axis=0) + 2.0 * STIFFNESS * bend + mean / len(bend)
        return float(nats), np.concatenate([lean, common, (tilt + 2.0 * OWN_SLOPE * own).ravel()])

    level, _, slopes = parts(minimize(loss, start, jac=True, method="L-BFGS-B").x)
    rise = np.insert(np.cumsum(slopes * np.diff(knots), axis=1), 0, 0.0, axis=1)
    return [Calibration(knots, line) for line in level[:, None] + rise]


def _passed(margin: Floats, knots: Floats) -> Floats:
    """How far each margin goes through each piece of the line, float64[n, knots - 1].

    The first piece and the last go on beyond their knots, as in `router.calibration`.
    """
    low, high = knots[:-1].copy(), knots[1:].copy()
    low[0], high[-1] = -np.inf, np.inf
    return np.asarray(np.clip(margin[:, None], low, high) - knots[:-1])


def moved(
    calibration: Calibration,
    margin: Floats,
    score: Floats,
    weight: Floats,
) -> Calibration:
    """The same line, shifted in log-odds until its mean probability is these rows' mean score.

    Args:
        calibration: what is moved.
        margin, score, weight: float64[n] each, of the rows that hold the level.
    """

    def missed(shift: float) -> float:
        p = Calibration(calibration.margin, calibration.logit + shift).probability(margin)
        return float((p - score) @ weight)

    return Calibration(calibration.margin, calibration.logit + brentq(missed, -20.0, 20.0))


def log_loss(margin: Floats, score: Floats, weight: Floats) -> float:
    """Summed cross-entropy in nats of margins against scores in [0, 1]."""
    p = np.clip(expit(margin), 1e-9, 1 - 1e-9)
    return float(-(score * np.log(p) + (1 - score) * np.log1p(-p)) @ weight)
