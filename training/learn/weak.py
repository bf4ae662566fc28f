"""Weak labels as expected scores: what users did next, read in the light of the prompt.

A weak label of weight w is evidence of 2·artanh(w) (`training.label.trust`), the same for every
prompt. What it makes likely depends on the prompt: an answer that nobody questioned to a question
that the tier hardly ever gets right is still likely wrong. So the heads are fitted a second time,
to the posterior means of the weak scores by their own cross-fitted probabilities: one step of
expectation and maximisation (Dempster, Laird and Rubin 1977). Only of tiers with firm labels that
hold the level: without them users' failures alone would pull it further down with each step.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from training.learn.heads import FIRM_ROWS
from training.log.requests import Requests

NEVER = 1e-4  # no prior is surer than this


def weak_labels(requests: Requests) -> NDArray[np.bool_]:
    """bool[n, k]: weak labels of tiers that have `FIRM_ROWS` firm ones, too."""
    known = ~np.isnan(requests.score)
    anchored = (requests.trusted & known).sum(axis=0) >= FIRM_ROWS
    return np.asarray(known & ~requests.trusted & anchored)


def expected_scores(
    requests: Requests, p: NDArray[np.float64], weak: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and weights to fit a second time, float64[n, k]; all but the weak stay as they are.

    Args:
        requests: n of them.
        p: float64[n, k], probabilities that no row's own label had a part in.
        weak: bool[n, k], of `weak_labels`.
    """
    trust = requests.label_weight
    evidence = 2.0 * np.arctanh(np.minimum(trust, 1.0 - NEVER)) * (2.0 * requests.score - 1.0)
    posterior = expit(logit(np.clip(p, NEVER, 1.0 - NEVER)) + evidence)
    score = np.where(weak, posterior, requests.score)
    return score, np.where(weak, requests.weight / trust, requests.weight)
