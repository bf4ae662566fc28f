"""How far the gap between tiers may follow the members, on logs where no request shows both tiers.

Blending weighs the members' deviations between tiers by each tier's own cross-entropy, in which no
gap is ever seen. On some logs, not on all, these weights come out too high, so each log is tested.
From a request that one tier answered, a doubly robust estimate of the gap has the right mean
(Robins, Rotnitzky and Zhao, 1994). It is regressed on two parts of the predicted gap: what would be
left without the deviations, and what they add (the best linear predictor of Chernozhukov, Demirer,
Duflo and Fernández-Val, 2018). The slopes say how far to follow each part; only their ratio changes
the order of prompts.
"""

import numpy as np
from numpy.typing import NDArray

from router.head import Blend
from training.learn.calibrate import FIRM_ROWS, calibrate

SPREAD = 0.7  # prior standard deviation of each slope about 1, the slope that blending assumes
LEAST, MOST = 0.25, 2.0


def temper(
    blend: Blend,
    margins: NDArray[np.float64],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    firm: NDArray[np.bool_],
) -> Blend:
    """The blend, its gap weights multiplied by the ratio of the two slopes.

    Args:
        blend: of the members.
        margins: float64[members, n, k], of rows that no member was fitted on.
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k], 1/propensity of a label.
        firm: bool[n, k], scores that are trusted. Only these are used; where a tier has fewer
            than `FIRM_ROWS` of them the blend is returned as it is.
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
    """Slope of `gap` on `own` over that on `level` (float64[n, gaps] each), shrunk towards 1."""
    centred = [(part - part.mean(axis=0)).ravel() for part in (level, own, gap)]
    x, y = np.stack(centred[:2], axis=1), centred[2]
    noise, prior = max(float(y @ y) / len(y), 1e-12), np.full(2, SPREAD**-2)
    slopes = np.linalg.solve(x.T @ x / noise + np.diag(prior), x.T @ y / noise + prior)
    return float(np.clip(slopes[1] / max(slopes[0], 1e-3), LEAST, MOST))
