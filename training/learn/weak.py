"""Weak labels: what users did next, read in the light of the prompt.

A weak label of weight w says that what was seen is r = (1 + w)/(1 − w) times likelier if the label
is right (`training.label.trust`). If p is the probability that it is right, the gradient of its
log-likelihood is that of a certain label with weight ``p · (r − 1) / (p · r + 1 − p)``, which is w
at p = 1/2. So the heads are fitted a second time, with these weights at their own cross-fitted
probabilities: one step of scoring towards the largest likelihood (cf. Dempster, Laird and Rubin
1977). Fitting the posterior means instead would hold the heads to their first answer on every row
that tells little; with these weights such rows hardly count. Only tiers with enough firm labels to
hold the level are treated so: without them users' failures would pull it down with each step.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.learn.calibrate import FIRM_ROWS
from training.log.requests import Requests

NEVER = 1e-4  # no prior and no label is surer than this


def weak_labels(requests: Requests) -> NDArray[np.bool_]:
    """bool[n, k]: weak labels of tiers that also have `FIRM_ROWS` firm ones."""
    known = ~np.isnan(requests.score)
    anchored = (requests.trusted & known).sum(axis=0) >= FIRM_ROWS
    return np.asarray(known & ~requests.trusted & anchored)


def firm_only(requests: Requests) -> Requests:
    """The requests without their weak labels, which become unknown scores."""
    return replace(requests, score=np.where(requests.trusted, requests.score, np.nan))


def matched_labels(
    requests: Requests, p: NDArray[np.float64], weak: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and weights to fit a second time, float64[n, k]; all but the weak stay as they are.

    Args:
        requests: n of them.
        p: float64[n, k], probabilities that no row's own label had a part in.
        weak: bool[n, k], of `weak_labels`.
    """
    trust = np.minimum(requests.label_weight, 1.0 - NEVER)
    sureness = np.abs(2.0 * requests.score - 1.0)  # a score of 1/2 says nothing
    ratio = ((1.0 + trust) / (1.0 - trust)) ** sureness
    side = (requests.score >= 0.5).astype(np.float64)
    prior = np.clip(np.where(side == 1.0, p, 1.0 - p), NEVER, 1.0 - NEVER)
    pull = prior * (ratio - 1.0) / (prior * ratio + 1.0 - prior)
    score = np.where(weak, side, requests.score)
    return score, np.where(weak, requests.weight / requests.label_weight * pull, requests.weight)
