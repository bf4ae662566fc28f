"""One-sided logs made from a paired one, for notebooks: what is left if one tier had answered."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.errors import BadInput
from training.log.requests import MAX_WEIGHT, Requests


def observe(requests: Requests, propensity: NDArray[np.float64], seed: int) -> Requests:
    """What a log keeps where one tier, drawn at random, answers each request.

    Args:
        requests: n of them, every tier's score known.
        propensity: float64[n, k], the chance of each tier; a row adds up to 1.
        seed: of the draw.

    Returns:
        The same requests with score, tokens and bill of the drawn tier alone, its propensity, and
        weights for fitting as `gather` gives them.

    Raises:
        BadInput: a request of which not every tier is known, or rows that are no chances.
    """
    n, k = requests.score.shape
    if propensity.shape != (n, k) or (propensity < 0).any():
        raise BadInput(f"propensity: chances of shape {(n, k)} are needed, not {propensity.shape}")
    if not np.allclose(propensity.sum(axis=1), 1.0):
        raise BadInput("propensity: the chances of a request must add up to 1")
    if not requests.paired.all():
        lost = int((~requests.paired).sum())
        raise BadInput(f"{lost} requests lack the score of a tier that might have been drawn")
    point = np.random.default_rng(seed).random((n, 1))
    drawn = (point >= propensity.cumsum(axis=1)[:, :-1]).sum(axis=1)
    seen = np.arange(k) == drawn[:, None]
    chance = np.where(seen, propensity, np.nan)
    weight = requests.label_weight / np.maximum(np.nan_to_num(chance, nan=1.0), 1.0 / MAX_WEIGHT)
    hidden = {
        name: np.where(seen, getattr(requests, name), np.nan)
        for name in ("score", "input_tokens", "output_tokens", "cost_usd")
    }
    return replace(requests, propensity=chance, weight=np.where(seen, weight, 1.0), **hidden)
