"""RouteLLM's matrix factorisation (Ong et al., arXiv 2406.18665): who wins, tier by prompt.

A tier's strength on a prompt is bilinear, δ(t, q) = v_t · (W q + b), and tier t wins against tier s
with probability σ(δ(t, q) − δ(s, q)). As there, model vectors v, the projection W and b are learned
together from compared answers. Two answers of the same score count half a win for each: then
2σ − 1 is the expected difference of their scores. (RouteLLM drops ties: on the outcomes of this
project's benchmarks that orders prompts far worse, MMLU APGR 0.59 instead of 0.64.)
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Floats = NDArray[np.float64]

STEPS = 200


def fit_factorisation(
    embedding: NDArray[np.float32], score: Floats, penalty: float, seed: int
) -> Callable[[NDArray[np.float32]], Floats]:
    """Fit on all pairs of tiers by L-BFGS.

    Args:
        embedding: float32[n, dim].
        score: float64[n, k] in [0, 1].
        penalty: on the squared length of v and W.
        seed: of the start, from which factors must differ.

    Returns:
        A function float32[m, dim] → float64[m, k]: the expected difference of each tier's score to
        the top tier's.
    """
    tiers, dim = score.shape[1], embedding.shape[1]
    mean, deviation = embedding.mean(axis=0), embedding.std(axis=0)
    scale = np.where(deviation > 1e-9, deviation, 1.0).astype(np.float64)

    def with_one(asked: NDArray[np.float32]) -> Floats:
        return np.column_stack([(asked - mean) / scale, np.ones(len(asked))])

    rows = with_one(embedding)
    pairs = list(combinations(range(tiers), 2))
    won = np.stack([(1.0 + score[:, b] - score[:, a]) / 2 for a, b in pairs], axis=1)
    less, more = (np.eye(tiers)[[pair[side] for pair in pairs]] for side in (0, 1))
    signs = more - less  # [pairs, tiers]
    rank = tiers  # more directions could not tell them apart any better
    cut = tiers * rank

    def loss(flat: Floats) -> tuple[float, Floats]:
        v, w = flat[:cut].reshape(tiers, rank), flat[cut:].reshape(rank, dim + 1)
        small = rows @ w.T  # [n, rank]
        z = small @ v.T @ signs.T  # [n, pairs]
        nats = float((np.logaddexp(0.0, z) - won * z).sum())
        slope = (expit(z) - won) @ signs  # [n, tiers]
        kept = w.copy()
        kept[:, -1] = 0.0  # the level is free
        of_v, of_w = slope.T @ small + penalty * v, (slope @ v).T @ rows + penalty * kept
        size = float((v**2).sum() + (kept**2).sum())
        return nats + penalty / 2 * size, np.concatenate([of_v.ravel(), of_w.ravel()])

    start = np.random.default_rng(seed).normal(0.0, 0.1, cut + rank * (dim + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x
    strength = found[:cut].reshape(tiers, rank) @ found[cut:].reshape(rank, dim + 1)
    against_top = strength - strength[-1:]

    def worth(asked: NDArray[np.float32]) -> Floats:
        return np.asarray(2.0 * expit(with_one(asked) @ against_top.T) - 1.0)

    return worth
