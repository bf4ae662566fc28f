"""Weak labels as expected scores: what users did next, read in the light of the prompt.

A weak label of weight w is evidence of 2·artanh(w) (`training.label.trust`), the same for every
prompt. What it makes likely depends on the prompt: an answer that nobody questioned to a question
that the tier hardly ever gets right is still likely wrong. So the heads are fitted a second time,
to the posterior means of the weak scores by their own cross-fitted probabilities: one step of
expectation and maximisation (Dempster, Laird and Rubin 1977).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from training.log.requests import Requests

NEVER = 1e-4  # no prior is surer than this


def expected_scores(
    requests: Requests, p: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and weights to fit a second time, float64[n, k]; firm labels stay as they are.

    Args:
        requests: n of them.
        p: float64[n, k], probabilities that no row's own label had a part in.
    """
    trust = requests.label_weight
    evidence = 2.0 * np.arctanh(np.minimum(trust, 1.0 - NEVER)) * (2.0 * requests.score - 1.0)
    posterior = expit(logit(np.clip(p, NEVER, 1.0 - NEVER)) + evidence)
    score = np.where(requests.trusted, requests.score, posterior)
    return score, np.where(requests.trusted, requests.weight, requests.weight / trust)
