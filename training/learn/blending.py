"""Weighing the members, by margins of rows that they were not fitted on."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from router.head import Blend
from training.learn.calibrate import log_loss
from training.learn.gaps import gaps, temper
from training.learn.joint import mostly_unpaired

SHRINKAGE: Final = 30.0  # nats that moving one member's whole weight must earn
GAP_SHARES: Final = (6.0, 1.0, 1.0, 6.0)
"""How much each of `router.head.MEMBERS` counts a priori for the gaps; for the level all do alike.

The linear member's gaps have penalties of their own, which those of forest and neighbours have not:
on 500 and 1,500 rows of nine pairs of models its gaps order prompts better than theirs, alone.
"""


def blend_members(
    margins: NDArray[np.float64],
    read: NDArray[np.float32],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    firm: NDArray[np.bool_],
) -> tuple[Blend, NDArray[np.float64], NDArray[np.bool_]]:
    """Weigh the members, the encoder on the rows that it was not trained on.

    Where few requests show every tier's outcome, the gap's weights are tempered (`learn.gaps`).

    Args:
        margins: float64[members, n, k], log-odds by the members but the encoder, cross-fitted.
        read: float32[n, k], the encoder's, NaN on rows that it was trained on; float32[n, 0] where
            there is none.
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k].
        firm: bool[n, k], scores that are trusted.

    Returns:
        The blend that is served; combined margins float64[n, k], of rows that the encoder
        was trained on without it; bool[n], the other rows.
    """

    def weighed(members: NDArray[np.float64], rows: NDArray[np.bool_]) -> Blend:
        blend = fit_blend(members, score[rows], weight[rows])
        if not mostly_unpaired(score):
            return blend
        return temper(blend, members, score[rows], weight[rows], firm[rows])

    everything = np.ones(len(score), dtype=np.bool_)
    blend = weighed(margins, everything)
    combined = blend.combine(margins)
    if not read.shape[1]:
        return blend, combined, everything
    whole = np.asarray(~np.isnan(read).any(axis=1))
    both = np.concatenate([margins[:, whole], read[None, whole].astype(np.float64)])
    blend = weighed(both, whole)
    combined[whole] = blend.combine(both)
    return blend, combined, whole


def routing_loss(
    margins: NDArray[np.float64], score: NDArray[np.float64], weight: NDArray[np.float64]
) -> float:
    """Cross-entropy in nats, plus the squared error of each tier's gap to the last.

    The gaps, which are what routing turns on, are of rows where every tier was observed.

    Args:
        margins: float64[n, k].
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k].
    """
    known = ~np.isnan(score)
    paired = known.all(axis=1)
    missed = gaps(score[paired]) - gaps(expit(margins[paired]))
    return log_loss(margins[known], score[known], weight[known]) + float((missed**2).sum())


def fit_blend(
    margins: NDArray[np.float64],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    members: Sequence[int] | None = None,
) -> Blend:
    """Weights of the members for level and gap, by `routing_loss`, shrunk to what holds a priori.

    Args:
        margins: float64[m, n, k].
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k].
        members: which m of `router.head.MEMBERS` these are; by default the first.
    """
    count = len(margins)
    shares = np.array(GAP_SHARES)[list(range(count) if members is None else members)]
    prior = np.concatenate([np.full(count, 1.0 / count), shares / shares.sum()])

    def loss(parameters: NDArray[np.float64]) -> float:
        combined = Blend(parameters[:count], parameters[count:]).combine(margins)
        away = parameters - prior
        return routing_loss(combined, score, weight) + SHRINKAGE * float(away @ away)

    found = minimize(loss, prior, method="L-BFGS-B", bounds=[(0.0, 2.0)] * (2 * count))
    return Blend(np.asarray(found.x[:count]), np.asarray(found.x[count:]))
