"""Weighing the members, by margins of rows that they were not fitted on."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from router.head import MEMBERS, Blend
from training.learn.calibrate import log_loss
from training.learn.gaps import gaps, temper
from training.learn.joint import mostly_unpaired

SHRINKAGE: Final = 30.0  # nats that must be gained to move a weight by 1 from its prior
GAP_SHARES: Final = (6.0, 1.0, 1.0)
"""How much each of `router.head.MEMBERS` but the encoder counts a priori for the gaps.

The linear member's gaps have penalties of their own, which those of forest and neighbours have not:
on 500 and 1,500 rows of nine pairs of models its gaps order prompts better than theirs, alone. For
the level all count alike.
"""
ENCODER: Final = MEMBERS.index("encoder")


def blend_members(
    margins: NDArray[np.float64],
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    firm: NDArray[np.bool_],
    members: Sequence[int] | None = None,
) -> tuple[Blend, NDArray[np.float64], NDArray[np.bool_]]:
    """Weigh the members on all rows, then the encoder against their sum on rows new to it.

    The rows new to the encoder are few: they decide the second weighting only, in which encoder and
    sum count alike a priori.
    Where few requests show every tier's outcome, the gap's weights are tempered (`learn.gaps`).

    Args:
        margins: float64[m, n, k], log-odds that the rows' own labels had no part in; the encoder's
            NaN on rows that it was trained on.
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k].
        firm: bool[n, k], scores that are trusted.
        members: which m of `router.head.MEMBERS` these are, rising; by default the first.

    Returns:
        The blend that is served; combined margins float64[n, k], of rows that the encoder
        was trained on without it; bool[n], the other rows.
    """

    def weighed(
        margins: NDArray[np.float64], rows: NDArray[np.bool_], shares: Sequence[float]
    ) -> Blend:
        blend = fit_blend(margins, score[rows], weight[rows], shares)
        if not mostly_unpaired(score):
            return blend
        return temper(blend, margins, score[rows], weight[rows], firm[rows])

    known = list(range(len(margins)) if members is None else members)
    others = [m for m in known if m != ENCODER]
    whole = np.ones(len(score), dtype=np.bool_)
    blend = weighed(margins[: len(others)], whole, [GAP_SHARES[m] for m in others])
    combined = blend.combine(margins[: len(others)])
    if ENCODER in known:
        whole = np.asarray(~np.isnan(margins[-1]).any(axis=1))
        both = np.stack([combined, margins[-1]])[:, whole]
        pair = weighed(both, whole, (1.0, 1.0))
        combined[whole] = pair.combine(both)
        blend = Blend(
            np.append(blend.level * pair.level[0], pair.level[1]),
            np.append(blend.gap * pair.gap[0], pair.gap[1]),
        )
    return blend, combined, whole


def routing_loss(
    margins: NDArray[np.float64], score: NDArray[np.float64], weight: NDArray[np.float64]
) -> float:
    """Cross-entropy in nats, plus the squared error of each tier's gap to the last.

    The gaps, on which routing turns, are taken from rows where every tier was observed.

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
    shares: Sequence[float],
) -> Blend:
    """Weights of the members for level and gap that minimise `routing_loss`, shrunk to the prior.

    Args:
        margins: float64[m, n, k].
        score: float64[n, k], NaN where not observed.
        weight: float64[n, k].
        shares: how much each of the m counts a priori for the gaps.
    """
    count = len(margins)
    prior = np.concatenate([np.full(count, 1.0 / count), np.divide(shares, sum(shares))])

    def loss(parameters: NDArray[np.float64]) -> float:
        combined = Blend(parameters[:count], parameters[count:]).combine(margins)
        away = parameters - prior
        return routing_loss(combined, score, weight) + SHRINKAGE * float(away @ away)

    found = minimize(loss, prior, method="L-BFGS-B", bounds=[(0.0, 2.0)] * (2 * count))
    return Blend(np.asarray(found.x[:count]), np.asarray(found.x[count:]))
