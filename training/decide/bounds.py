"""What a sample of independent, bounded values shows about their mean, at a given risk of error.

Losses that are 0 or 1 have an exact test; for all other bounded values there is a test by betting.
"""

from itertools import pairwise
from math import ceil, log

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri
from scipy.stats import binom

BLOCKS = 50  # how often the bet is recomputed
AIM = 1.05  # aim a little above 1/risk: to fall just short of it gains nothing
LARGEST_BET = 0.9  # share of the bet at which a single value could take all the capital


def per_unit(
    values: NDArray[np.float64], session: NDArray[np.int64], unit: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Means per session, summed per unit and divided by the mean number of sessions per unit.

    Args:
        values: float64[n].
        session, unit: int64[n], numbers.

    Returns:
        float64[units], by rising number; their mean is that of the sessions' means.
    """
    weight = 1.0 / np.bincount(session)[session]
    sums = np.bincount(np.unique(unit, return_inverse=True)[1], weights=values * weight)
    return np.asarray(sums * (len(sums) / max(float(weight.sum()), 1.0)))


def upper_rate(losses: NDArray[np.int64], n: int, risk: float) -> NDArray[np.float64]:
    """Upper confidence limits of rates, float64[m], each from a count of n losses of 0 or 1.

    losses: int64[m], of independent rows.

    Exact binomial (Clopper & Pearson 1934): below the true rate with probability at most `risk`.
    """
    limits = betaincinv(losses + 1, np.maximum(n - losses, 1), 1.0 - risk)
    return np.where(losses < n, limits, 1.0)


def units_needed(rate: float, risk: float, expected: float = 0.0) -> int:
    """Independent units on which `upper_rate` is at most `rate` if the rate seen is `expected`."""
    n = ceil(log(risk) / log(1.0 - rate))
    while binom.cdf(ceil(expected * n), n, rate) > risk:
        n = ceil(n * 1.02) + 1
    return n


def shown_above_zero(
    values: NDArray[np.float64], low: ArrayLike, high: ArrayLike, risk: float
) -> NDArray[np.bool_]:
    """Whether the mean of independent values in [low, high] is shown to be at least 0.

    A test by betting (Waudby-Smith & Ramdas 2024, arXiv 2010.09686): the capital of a gambler who
    bets against "the mean is below 0", never more than there is, passes 1/risk with probability at
    most `risk`, whatever the distribution. The bet is the one that in the Gaussian limit makes it
    likeliest to reach that mark by the last value (Kulldorff 1993, "Optimal control of favorable
    games with a time limit"): there the test needs 1.64 standard errors at a risk of 5 %, a bet
    fixed in advance 2.45. Values are shuffled with a fixed seed, as sessions come in order of time.

    Args:
        values: float64[n, m], m tests on the same n units.
        low, high: their range, for all tests or one per test; low < 0 < high.
        risk: of being wrong, for each test.

    Returns:
        bool[m].
    """
    n, m = values.shape
    low, high = np.broadcast_to(low, m), np.broadcast_to(high, m)
    width = high - low
    x = values[np.random.default_rng(0).permutation(n)] / width  # of width 1, null at 0
    largest = LARGEST_BET * width / -low
    capital, reached = np.zeros(m), np.zeros(m, dtype=bool)  # logarithm
    total, squares = np.zeros(m), np.zeros(m)
    edges = np.unique(np.linspace(0, n, min(n, BLOCKS) + 1).astype(np.int64))
    for start, end in pairwise(edges.tolist()):
        mean = (total + 0.5 + low / width) / (start + 1)
        variance = (0.25 + squares - 2 * mean * total + start * mean**2) / (start + 1)
        deviation = np.sqrt(np.maximum(variance, 1e-12) * (n - start))
        odds = np.clip(np.exp(capital) * risk / AIM, 1e-12, 1 - 1e-9)
        bet = np.exp(-(ndtri(odds) ** 2) / 2) / (np.sqrt(2 * np.pi) * odds * deviation)
        part = x[start:end]
        path = capital + np.cumsum(np.log1p(np.minimum(bet, largest) * part), axis=0)
        reached |= (path >= -np.log(risk)).any(axis=0)
        capital = path[-1]
        total += part.sum(axis=0)
        squares += (part**2).sum(axis=0)
    return reached
