"""Which requests to take when not all can be taken, and with what probability each was.

A later estimate stays honest only if every request could have been taken and the probability is
known: each strategy gives exact inclusion probabilities, and none of them is ever 0.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from training.errors import BadInput

Floats = NDArray[np.float64]

STRATEGIES = ("random", "stratified", "informative")
EVERYWHERE = 0.25  # share of an informative sample that is drawn evenly: no weight above 4x


@dataclass(frozen=True, slots=True)
class Sampling:
    """How requests are drawn.

    Attributes:
        size: how many; None: all of them.
        strategy: one of `STRATEGIES`.
        artifact: by which ``informative`` tells what is worth knowing; None with the others.
        seed: of the draw.
    """

    size: int | None = None
    strategy: str = "random"
    artifact: Path | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Draw:
    """A sample of requests.

    Attributes:
        rows: int64[m], in random order.
        probability: float64[m] in (0, 1], the inclusion probability of each.
    """

    rows: NDArray[np.int64]
    probability: Floats


def everything(n: int, rng: np.random.Generator) -> Draw:
    """All n requests, in random order, so that those a run gets to before it stops are a sample."""
    return Draw(rng.permutation(n), np.ones(n))


def uniform(n: int, size: int, rng: np.random.Generator) -> Draw:
    """`size` of n requests, each as likely as any other."""
    return Draw(rng.permutation(n)[:size], np.full(size, size / n))


def stratified(strata: NDArray[np.int64], size: int, rng: np.random.Generator) -> Draw:
    """`size` requests, from each stratum (int64[n], 0 …) in proportion to the root of its size.

    Power allocation (Bankier, 1988) with exponent 1/2: rare kinds are seen, large ones precisely.
    """
    counts = np.bincount(strata)
    if size < (counts > 0).sum():
        raise BadInput(
            f"--sample {size}: there are {(counts > 0).sum()} strata (source and tier); take at "
            "least one request from each, or --strategy random"
        )
    taken = _allocate(counts, size)
    rows = [
        rng.permutation(np.flatnonzero(strata == s))[: taken[s]] for s in np.flatnonzero(counts)
    ]
    drawn = np.concatenate(rows)
    share = taken / np.maximum(counts, 1)
    return _shuffled(drawn, share[strata[drawn]], rng)


def informative(use: Floats, size: int, rng: np.random.Generator) -> Draw:
    """`size` requests, mostly with probability proportional to `use` (float64[n], ≥ 0).

    A share of EVERYWHERE is drawn evenly, so that no request is out of reach.
    Systematic sampling in random order (Madow, 1949): the inclusion probabilities are exact.
    """
    n = len(use)
    total = use.sum()
    weight = np.full(n, 1.0 / n)
    if total > 0:
        weight = EVERYWHERE / n + (1 - EVERYWHERE) * use / total
    chance = _inclusion(weight, size)
    order = rng.permutation(n)
    ticks = np.floor(np.cumsum(chance[order]) + rng.random())
    taken = order[np.diff(ticks, prepend=0.0) > 0]
    return _shuffled(taken, chance[taken], rng)


def usefulness(p: Floats, usd: Floats, mu: float) -> Floats:
    """What an observed outcome is expected to be worth to the choice of a tier, float64[n].

    The choice is between the two tiers with the highest p − μ · cost. Its expected opportunity loss
    is σ · φ(d/σ) − d · Φ(−d/σ) (Raiffa & Schlaifer, 1961), where d is the distance between the two
    and σ² = Σ p(1 − p) the variance of the difference of their outcomes: large where the router is
    near its threshold and unsure.

    Args:
        p: float64[n, k], P(tier suffices).
        usd: float64[n, k], expected cost, USD.
        mu: the policy's dial.
    """
    value = p - mu * usd
    best = np.argsort(-value, axis=1)[:, :2]
    first, second = np.take_along_axis(value, best, axis=1).T
    chances = np.take_along_axis(p, best, axis=1)
    sigma = np.sqrt(np.maximum((chances * (1 - chances)).sum(axis=1), 1e-6))
    z = (first - second) / sigma
    loss: Floats = sigma * (stats.norm.pdf(z) - z * stats.norm.cdf(-z))
    return np.maximum(loss, 0.0)


def _allocate(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Whole numbers that add up to `size`, near the roots of `counts`, from 1 to each count."""
    taken = np.minimum(counts, 1)
    pull = np.sqrt(counts)
    while taken.sum() < size:
        short = np.where(taken < counts, pull / (taken + 0.5), -1.0)  # Sainte-Laguë's divisors
        taken[np.argmax(short)] += 1
    return np.asarray(taken)


def _inclusion(weight: Floats, size: int) -> Floats:
    """Probabilities proportional to `weight` that sum to `size`, those above 1 set to 1."""
    chance = np.zeros(len(weight))
    free = np.ones(len(weight), bool)
    while True:
        left = size - (~free).sum()
        chance[free] = left * weight[free] / weight[free].sum()
        over = free & (chance >= 1.0)
        if not over.any():
            return chance
        chance[over] = 1.0
        free &= ~over
        if not free.any():
            return chance


def _shuffled(rows: NDArray[np.int64], chance: Floats, rng: np.random.Generator) -> Draw:
    order = rng.permutation(len(rows))
    return Draw(rows[order], chance[order])
