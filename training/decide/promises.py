"""Whether choose rows certify a promise of a policy, and by how much; a session counts once.

The loss of a session is the mean over its requests. Sessions that ask the same are one unit of
evidence (`learn.splits.independent`), whose loss is their sum, in units of the mean number of
sessions: so the mean over units is that over sessions, and what can be lost on one unit grows with
it. Where there are two partitions into units, both have to show it. Where every unit is one request
and the loss is 0 or 1, the test is the exact binomial one, else it is by betting (`decide.bounds`).
MAPIE's ``risk_control`` (1.6) was looked at: its p-value for binary losses is the same binomial
tail, but its betting bound adds maxima over two halves (which no capital does), it has no sessions,
and it judges a classifier's predictions, not tiers' outcomes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy, Promise
from training.decide.bounds import per_unit, shown_above_zero, upper_rate
from training.decide.evidence import Evidence
from training.decide.goals import MaxBadDowngrade, MinQuality
from training.errors import BadInput

Floats = NDArray[np.float64]
Promised = MinQuality | MaxBadDowngrade
LARGEST_SHARE = 2.0  # of the top tier's quality, where the search for a bound ends
TINY = 1e-6
BY_DEFINITION = "by definition"  # the test of a promise that the top tier keeps itself


def holds(
    goal: Promised, policies: Sequence[Policy], evidence: Evidence, risk: float
) -> NDArray[np.bool_]:
    """Whether each policy is shown to hold the goal, each at this risk of error: bool[policies]."""
    shown = [_holds(goal, policies, view, risk) for view in evidence.views]
    return np.asarray(np.logical_and.reduce(shown))


def _holds(
    goal: Promised, policies: Sequence[Policy], evidence: Evidence, risk: float
) -> NDArray[np.bool_]:
    if isinstance(goal, MaxBadDowngrade):
        rates = np.stack([_bad(policy, evidence) for policy in policies], axis=1)
        if _single(evidence):
            return upper_rate(_count(rates), len(rates), risk) <= goal.rate
        return _rates_below(np.full(len(policies), goal.rate), rates, evidence, risk)
    pairs = [_qualities(policy, evidence) for policy in policies]
    routed, top = (np.stack(part, axis=1) for part in zip(*pairs, strict=True))
    return _shares_above(np.full(len(policies), goal.share), routed, top, evidence, risk)


def promise(goal: Promised, policy: Policy, evidence: Evidence, risk: float) -> Promise:
    """Estimate and one-sided limit of a policy on the choose rows.

    Of several partitions into units, those of the one that shows least.
    """
    told = [_promise(goal, policy, view, risk) for view in evidence.views]
    sign = 1.0 if isinstance(goal, MinQuality) else -1.0
    strictest = min(told, key=lambda one: (one.certified, sign * one.bound))
    return replace(strictest, n=min(one.n for one in told))


def _promise(goal: Promised, policy: Policy, evidence: Evidence, risk: float) -> Promise:
    n = len(np.unique(evidence.partitions[0]))
    name, target = (
        ("min_quality", goal.share)
        if isinstance(goal, MinQuality)
        else ("max_bad_downgrade", goal.rate)
    )
    top = policy.constant == evidence.p.shape[1] - 1
    certified = top or bool(_holds(goal, [policy], evidence, risk)[0])
    estimated = " on doubly robust estimates" if evidence.sufficed is None else ""
    test = BY_DEFINITION if top else f"betting{estimated}"
    if isinstance(goal, MinQuality):
        routed, best = _qualities(policy, evidence)
        estimate = float(routed.mean() / best.mean()) if best.mean() > 0 else 1.0
        bound = 1.0 if top else _share_bound(goal, routed, best, evidence, risk, certified)
    else:
        bad = _bad(policy, evidence)
        estimate = float(bad.mean())
        if top:
            bound = 0.0
        elif _single(evidence):
            test, bound = "exact binomial", float(upper_rate(_count(bad), n, risk))
        else:
            bound = _rate_bound(goal, bad, evidence, risk, certified)
    return Promise(name, target, goal.confidence, n, estimate, bound, certified, test)


def non_inferior(tier: int, policy: Policy, evidence: Evidence, by: float, risk: float) -> bool:
    """Whether a constant tier is shown to be at most `by` of mean score worse than a policy."""
    rows = np.arange(len(evidence.score))
    gain = evidence.score[:, tier] - evidence.score[rows, evidence.tiers(policy)] + by
    low, high = (end + by for end in evidence.gap_range(np.ones(1)))

    def shown(view: Evidence) -> bool:
        reach, values = _sizes(view).max(), _per_unit(gain, view)[:, None]
        return bool(shown_above_zero(values, low * reach, high * reach, risk)[0])

    return all(map(shown, evidence.views))


def _qualities(policy: Policy, evidence: Evidence) -> tuple[Floats, Floats]:
    """Score of the routed tier and of the top tier, per unit."""
    rows = np.arange(len(evidence.score))
    routed = evidence.score[rows, evidence.tiers(policy)]
    return _per_unit(routed, evidence), _per_unit(evidence.score[:, -1], evidence)


def _bad(policy: Policy, evidence: Evidence) -> Floats:
    """Share of bad downgrades, per unit."""
    if evidence.sufficed is None:
        raise BadInput("max_bad_downgrade needs requests on which two tiers are seen together")
    rows = np.arange(len(evidence.score))
    tier = evidence.tiers(policy)
    bad = evidence.sufficed[:, -1] & ~evidence.sufficed[rows, tier]
    return _per_unit(bad.astype(np.float64), evidence)


def _count(losses: Floats) -> NDArray[np.int64]:
    return np.asarray(losses.sum(axis=0), dtype=np.int64)


def _single(evidence: Evidence) -> bool:
    return len(np.unique(evidence.partitions[0])) == len(evidence.session)


def _per_unit(values: Floats, evidence: Evidence) -> Floats:
    """`per_unit` of evidence in one partition (`Evidence.views`)."""
    return per_unit(values, evidence.session, evidence.partitions[0])


def _sizes(evidence: Evidence) -> Floats:
    """How many sessions each unit has, over their mean, float64[units]: 1 where no two are tied."""
    return _per_unit(np.ones(len(evidence.session)), evidence)


def _shares_above(
    shares: Floats, routed: Floats, top: Floats, evidence: Evidence, risk: float
) -> NDArray[np.bool_]:
    """Whether mean(routed) ≥ share · mean(top) is shown, per column of shares: float64[m]."""
    low, high = evidence.gap_range(shares)
    reach = _sizes(evidence).max()
    return shown_above_zero(routed - shares * top, low * reach, high * reach, risk)


def _rates_below(rates: Floats, bad: Floats, evidence: Evidence, risk: float) -> NDArray[np.bool_]:
    """Whether mean(bad) ≤ rate is shown, per column of rates: float64[m]."""
    sizes = _sizes(evidence)
    margins, reach = sizes[:, None] * rates - bad, sizes.max()
    return shown_above_zero(margins, (rates - 1.0) * reach, rates * reach, risk)


def _share_bound(
    goal: MinQuality, routed: Floats, top: Floats, evidence: Evidence, risk: float, certified: bool
) -> float:
    ends = (goal.share, LARGEST_SHARE) if certified else (TINY, goal.share)
    return _strictest(
        *ends,
        lambda shares: _shares_above(shares, routed[:, None], top[:, None], evidence, risk),
        otherwise=0.0,
    )


def _rate_bound(
    goal: MaxBadDowngrade, bad: Floats, evidence: Evidence, risk: float, certified: bool
) -> float:
    ends = (goal.rate, TINY) if certified else (1.0 - TINY, goal.rate)
    return _strictest(
        *ends, lambda rates: _rates_below(rates, bad[:, None], evidence, risk), otherwise=1.0
    )


def _strictest(
    easy: float, strict: float, test: Callable[[Floats], NDArray[np.bool_]], otherwise: float
) -> float:
    """The strictest target that is shown with all easier ones, to 1/4,000 of the range.

    The goal's own target is one end of the range, so that rounding never denies what was certified.
    """
    for _ in range(2):
        targets = np.linspace(easy, strict, 65)
        shown = test(targets)
        if shown.all():
            return strict
        last = int(np.argmin(shown)) - 1
        if last < 0:
            return otherwise
        easy, strict = float(targets[last]), float(targets[last + 1])
    return easy
