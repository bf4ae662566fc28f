"""How far the gap between tiers may follow the members, on logs where no request shows both tiers.

Blending weighs the members' deviations between tiers by the cross-entropy of each tier alone, where
no gap is ever seen. They come out too high on some logs and not on others, so each log is asked.
A request that one tier answered has a gap of which the mean is right (doubly robust: Robins,
Rotnitzky and Zhao, 1994), and the best linear predictor of the gap (Chernozhukov, Demirer, Duflo
and Fernández-Val, 2018) in two parts, what would be left without the deviations and what they add,
says how far to follow each. Only their ratio changes the order of prompts.
"""

import numpy as np
from numpy.typing import NDArray

from router.head import Blend
from training.learn.calibrate import FIRM_ROWS, calibrate

SPREAD = 0.7  # standard deviation of each slope, a priori, about 1: what blending took for granted
LEAST, MOST = 0.25, 2.0


def temper(
    blend: Blend,
    margins: NDArray[np.float64],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    firm: NDArray[np.bool_],
) -> Blend:
    """The blend with its gap weights times what the log says of them.

    Args:
        blend: of the members.
        margins: float64[members, n, k], of rows that no member was fitted on.
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k], of a label 1/propensity.
        firm: bool[n, k], scores that are trusted. Only these are looked at, and where a tier has
            under `FIRM_ROWS` of them the blend is returned as it is.
    """
    sure = firm & ~np.isnan(score)
    if (sure.sum(axis=0) < FIRM_ROWS).any():
        return blend

    def probabilities(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """With these gap weights, float64[n, k]."""
        combined = Blend(blend.level, weights).combine(margins)
        found = calibrate(combined, score, weight, firm)
        return np.stack(
            [tier.probability(margin) for tier, margin in zip(found, combined.T, strict=True)],
            axis=1,
        )

    p = probabilities(blend.gap)
    level = gaps(probabilities(np.zeros_like(blend.gap)))
    # Pseudo-outcomes as in `measure.offpolicy`, for members instead of policies.
    outcome = p + np.where(sure, weight, 0.0) * (np.nan_to_num(score) - p)
    both = sure.all(axis=1)
    outcome[both] = score[both]
    rows = sure.any(axis=1)
    factor = _ratio(level[rows], (gaps(p) - level)[rows], gaps(outcome)[rows])
    return Blend(blend.level, blend.gap * factor)


def gaps(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the last tier is ahead of each other one: float64[n, k] → float64[n, k − 1]."""
    return np.asarray(values[:, -1:] - values[:, :-1])


def _ratio(level: NDArray[np.float64], own: NDArray[np.float64], gap: NDArray[np.float64]) -> float:
    """The slope of `gap` by `own` over that by `level`, float64[n, gaps] each; shrunk to 1."""
    centred = [(part - part.mean(axis=0)).ravel() for part in (level, own, gap)]
    x, y = np.stack(centred[:2], axis=1), centred[2]
    noise, prior = max(float(y @ y) / len(y), 1e-12), np.full(2, SPREAD**-2)
    slopes = np.linalg.solve(x.T @ x / noise + np.diag(prior), x.T @ y / noise + prior)
    return float(np.clip(slopes[1] / max(slopes[0], 1e-3), LEAST, MOST))
