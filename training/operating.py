"""The operating point: the cheapest dial whose promise the choose rows certify.

Fixed-sequence testing (Bauer 1991; Angelopoulos et al., arXiv 2110.01052): the grid of dials is
fixed on the fit rows; it is walked from always-top towards cheaper, and the walk stops at the first
step that cannot be certified, so that no confidence is lost to the number of steps.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy, Promise
from training.curve import policy_walk
from training.errors import BadInput

STEPS = 60
MIN_UNITS = 20
HALF_A_POINT = 0.005


@dataclass(frozen=True, slots=True)
class Evidence:
    """n choose rows, every tier's score known.

    Attributes:
        p: float64[n, k], P(tier suffices).
        usd: float64[n, k], expected cost.
        paid: float64[n, k], cost in the account.
        score: float64[n, k].
        session: int64[n].
    """

    p: NDArray[np.float64]
    usd: NDArray[np.float64]
    paid: NDArray[np.float64]
    score: NDArray[np.float64]
    session: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MinQuality:
    """Keep mean quality at `share` of the top tier's, at `confidence`."""

    share: float = 0.99
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Raise BadInput for a share or a confidence that no policy can mean."""
        if not 0.0 < self.share <= 1.0:
            raise BadInput(f"--policy min_quality must be in (0, 1], got {self.share}")
        if not 0.5 <= self.confidence < 1.0:
            raise BadInput(f"--policy confidence must be in [0.5, 1), got {self.confidence}")


def dial_grid(p: NDArray[np.float64], usd: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most 60 rising dials μ, evenly spread over the prompts that change tier.

    Args:
        p: float64[n, k], cross-fitted probabilities of the fit rows.
        usd: float64[n, k], their expected costs.
    """
    walk = policy_walk(p, usd)
    steps = np.unique(np.linspace(0, len(walk.mu), STEPS).astype(np.int64))
    dials = np.array([walk.dial(int(step)) for step in steps])
    return np.unique(dials[np.isfinite(dials)])


def choose(
    rule: MinQuality, grid: NDArray[np.float64], evidence: Evidence, names: list[str]
) -> Policy:
    """Choose the operating point, once.

    Returns:
        A policy with its promise; the constant always-top where nothing cheaper can be certified,
        or a constant tier that is not dearer and shown to be at most half a point worse.

    Raises:
        BadInput: too few independent choose rows to certify anything.
    """
    top = len(names) - 1
    units = count_units(evidence.session)
    best = Policy(0.0, constant=top, why="no cheaper operating point could be certified")
    for mu in grid:
        step = Policy(float(mu))
        loss = _shortfall(step, rule.share, evidence)
        if not _above_zero(loss, -rule.share, 1.0, rule.confidence):
            break
        best = replace(step, why="the cheapest certified step of a grid fixed on the fit rows")
    best = _or_constant(best, evidence, rule.confidence, names)
    return replace(best, promise=_promise(best, rule, evidence, units))


def count_units(session: NDArray[np.int64]) -> int:
    """Independent units (sessions) among choose rows on which every tier's score is known.

    Raises:
        BadInput: too few to certify anything.
    """
    units = len(np.unique(session))
    if units < MIN_UNITS:
        raise BadInput(
            f"{units} independent choose rows with every tier's score; at least {MIN_UNITS} are "
            "needed to choose an operating point: give more rows, replay some requests on the "
            "tiers that did not answer, or give another --split"
        )
    return units


def _shortfall(policy: Policy, share: float, evidence: Evidence) -> NDArray[np.float64]:
    """Score of the routed tier − share · score of the top tier, one mean per session."""
    rows = np.arange(len(evidence.score))
    routed = evidence.score[rows, policy.choose(evidence.p, evidence.usd)]
    return _per_session(routed - share * evidence.score[:, -1], evidence.session)


def _or_constant(best: Policy, evidence: Evidence, confidence: float, names: list[str]) -> Policy:
    """The cheapest constant that is not dearer and non-inferior by half a point, if any."""
    if best.constant is not None and best.constant == 0:
        return best
    rows = np.arange(len(evidence.score))
    tier = best.choose(evidence.p, evidence.usd)
    score, paid = evidence.score[rows, tier], evidence.paid[rows, tier].mean()
    costs = evidence.paid.mean(axis=0)
    for k in np.argsort(costs, kind="stable"):
        if costs[k] > paid or best.constant == k:
            break
        gain = _per_session(evidence.score[:, k] - score, evidence.session)
        if _above_zero(gain + HALF_A_POINT, HALF_A_POINT - 1.0, 1.0 + HALF_A_POINT, confidence):
            why = "not dearer than routing and at most half a point worse"
            return Policy(0.0, constant=int(k), why=why)
    return best


def _promise(policy: Policy, rule: MinQuality, evidence: Evidence, units: int) -> Promise:
    rows = np.arange(len(evidence.score))
    routed = evidence.score[rows, policy.choose(evidence.p, evidence.usd)]
    top = evidence.score[:, -1]
    estimate = float(routed.mean() / top.mean()) if top.mean() > 0 else 1.0
    if policy.constant == evidence.score.shape[1] - 1:
        bound = 1.0
    else:
        bound = _largest_share(policy, evidence, rule)
    return Promise(
        "min_quality", rule.share, rule.confidence, units, estimate, bound, bound >= rule.share
    )


def _largest_share(policy: Policy, evidence: Evidence, rule: MinQuality) -> float:
    """Lower confidence limit of the share of the top tier's quality, to a ten-thousandth.

    The rule's own share is asked first, so that rounding never denies what was certified.
    """

    def holds(share: float) -> bool:
        return _above_zero(_shortfall(policy, share, evidence), -share, 1.0, rule.confidence)

    low, high = (rule.share, 2.0) if holds(rule.share) else (0.0, rule.share)
    while high - low > 1e-4:
        share = (low + high) / 2
        if holds(share):
            low = share
        else:
            high = share
    return low


def _per_session(values: NDArray[np.float64], session: NDArray[np.int64]) -> NDArray[np.float64]:
    sums, counts = np.bincount(session, weights=values), np.bincount(session)
    return np.asarray(sums[counts > 0] / counts[counts > 0])


def _above_zero(values: NDArray[np.float64], low: float, high: float, confidence: float) -> bool:
    """Whether the mean of independent values in [low, high] is shown to be at least 0.

    A test by betting (Waudby-Smith & Ramdas 2024, arXiv 2010.09686): the capital of a gambler who
    bets against "the mean is below 0" passes 1/α with probability at most α, whatever the
    distribution.
    The order of bets is shuffled with a fixed seed, as sessions come in order of time.
    """
    order = np.random.default_rng(0).permutation(len(values))
    x = (values[order] - low) / (high - low)
    null = -low / (high - low)
    alpha = 1.0 - confidence
    n = len(x)
    count = np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(x)) / (count + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    bet = np.minimum(np.sqrt(2 * np.log(1 / alpha) / (n * before)), 0.75 / max(null, 1e-9))
    capital = np.cumsum(np.log1p(bet * (x - null)))
    return bool(capital.max() >= np.log(1 / alpha))
