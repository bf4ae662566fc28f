"""The operating point: the cheapest policy whose promise the choose rows certify, or what a goal
without a promise asks for.

Fixed-sequence testing (Bauer 1991; Angelopoulos et al., arXiv 2110.01052): the order in which to
try policies is fixed on the fit rows; it is walked from always-top towards always-cheapest, and the
walk stops at the first step that cannot be certified, so that no confidence is lost to the number
of steps. With three or more tiers the rate need not be monotone along the walk: a later step may
hold where an earlier one fails. It is then not found, and the promise is valid all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy, Promise
from training.decide.bounds import units_needed
from training.decide.evidence import Evidence
from training.decide.goals import Goal, MaxBadDowngrade, MaxCost, TopShare, Value
from training.decide.promises import Promised, holds, non_inferior, promise
from training.errors import BadInput
from training.label.rule import LabelRule
from training.log.requests import Requests
from training.measure.curve import policy_walk, trace
from training.measure.world import World, paired_world, pick_world, valuable

STEPS = 240  # with 60, operating points cost 1 to 5 % more than need be
AT_ONCE = 60  # steps that are judged together: all of them on many rows would take much memory
MIN_UNITS = 20
HALF_A_POINT = 0.005
NOTHING_CHEAPER = "no cheaper operating point could be certified"
RIVALS_PART = 0.2  # share of the risk of error that is spent on `Course.rivals`


@dataclass(frozen=True, slots=True)
class Course:
    """What to try, fixed on the fit rows: dials, then always-cheapest; and single tiers beside it.

    Attributes:
        dials: float64[s], rising: from the dearest mix to the cheapest.
        rivals: single tiers to be tested beside the walk: a middle one that looks within half a
            point of the mix that costs the same, the cheapest one where it looks within half a
            point of the top tier. On few rows the walk's first steps differ too little from
            always-top to show anything, even where a single tier is much better.
    """

    dials: NDArray[np.float64]
    rivals: tuple[int, ...] = ()

    @property
    def steps(self) -> tuple[Policy, ...]:
        """What is tried, in this order."""
        return (*(Policy(float(mu)) for mu in self.dials), Policy(0.0, constant=0))

    def to_dict(self) -> dict[str, Any]:
        """As kept in the manifest."""
        return {"dials": self.dials.tolist(), "rivals": list(self.rivals)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Course":
        """Read what `to_dict` wrote."""
        return cls(np.array(values["dials"], dtype=np.float64), tuple(values["rivals"]))


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the course on the choose rows.

    Attributes:
        policy: what is tried.
        cost_usd: mean cost of a request.
        to_top: share of requests sent to the top tier.
        promise: the estimate and the limit, as if this step alone were tried.
    """

    policy: Policy
    cost_usd: float
    to_top: float
    promise: Promise


def plan_course(p: NDArray[np.float64], usd: NDArray[np.float64]) -> Course:
    """Fix what to try, and in which order.

    Args:
        p: float64[n, k], cross-fitted probabilities of the fit rows.
        usd: float64[n, k], their expected costs.
    """
    dials = dial_grid(p, usd)
    rows, rivals = np.arange(len(p)), []
    tiers = [Policy(float(mu)).choose(p, usd) for mu in dials]
    costs = np.array([usd[rows, tier].mean() for tier in tiers])
    for k in range(p.shape[1] - 1):
        dearer = np.flatnonzero(costs >= usd[:, k].mean())
        mixed = p[rows, tiers[dearer[-1]]].mean() if k and len(dearer) else p[:, -1].mean()
        if p[:, k].mean() >= mixed - HALF_A_POINT:
            rivals.append(k)
    return Course(dials, tuple(rivals))


def dial_grid(p: NDArray[np.float64], usd: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `STEPS` rising dials μ, evenly spread over the prompts that change tier.

    p, usd: float64[n, k], P(tier suffices) and expected cost.
    """
    walk = policy_walk(p, usd)
    steps = np.unique(np.linspace(0, len(walk.mu), STEPS).astype(np.int64))
    dials = np.array([walk.dial(int(step)) for step in steps])
    return np.unique(dials[np.isfinite(dials)])


def choose(goal: Goal, course: Course, evidence: Evidence, names: Sequence[str]) -> Policy:
    """Choose the operating point, once.

    Returns:
        For a goal with a promise, a policy that carries it, the constant always-top where nothing
        cheaper can be certified; for the others, the dial that does what was asked.

    Raises:
        BadInput: too few independent choose rows, a goal that needs paired rows and has none, or
            one that is impossible at these prices.
    """
    if isinstance(goal, Value):
        why = f"a score higher by 0.01 is worth {goal.usd_per_point:g} USD on one request"
        return _told(Policy(goal.mu, why=why), evidence, names)
    check_units(goal, evidence.partitions, evidence.sufficed is not None)
    if isinstance(goal, MaxCost | TopShare):
        return _told(_spend(goal, evidence), evidence, names)
    return _certified(goal, course, evidence)


def walk_steps(goal: Promised, course: Course, evidence: Evidence) -> tuple[Step, ...]:
    """What the choose rows say of every step, including those after the walk has stopped."""
    risk = _risks(goal, course, evidence)[2]
    rows, top = np.arange(len(evidence.p)), evidence.p.shape[1] - 1
    found = []
    for policy in course.steps:
        tier = evidence.tiers(policy)
        cost = float(evidence.paid[rows, tier].mean())
        told = promise(goal, policy, evidence, risk)
        found.append(Step(policy, cost, float((tier == top).mean()), told))
    return tuple(found)


def check_units(goal: Goal, partitions: NDArray[np.int64], paired: bool) -> None:
    """Refuse where choose rows cannot bear the goal, before any work is done.

    Args:
        goal: what is asked for.
        partitions: int64[partitions, n], of the choose rows that will be used.
        paired: whether every tier's score is known on them.

    Raises:
        BadInput: too few independent rows; for `MaxBadDowngrade` with the number to buy.
    """
    possible = paired or not isinstance(goal, MaxBadDowngrade)
    units = min(len(np.unique(unit)) for unit in partitions) if possible else 0
    if isinstance(goal, Value) or units >= MIN_UNITS:
        return
    if isinstance(goal, MaxBadDowngrade):
        risk = 1.0 - goal.confidence
        least, likely = units_needed(goal.rate, risk), units_needed(goal.rate, risk, goal.rate / 2)
        raise BadInput(
            f"max_bad_downgrade compares two tiers' answers to the same request, and {units} "
            "independent choose rows have every tier's score: to certify "
            f"{goal.rate:.2%} at {goal.confidence:.0%} confidence, send at least {least} more "
            "requests to every tier (shadow calls) if no downgrade among them is bad, about "
            f"{likely} if half the limit is; min_quality does without them"
        )
    told = " with every tier's score" if paired else " that can be judged"
    raise BadInput(
        f"{units} independent choose rows{told}; at least {MIN_UNITS} are "
        "needed to choose an operating point: give more rows, replay some requests on the "
        "tiers that did not answer, or give another --split"
    )


def choice_world(goal: Goal, rule: LabelRule, requests: Requests) -> World:
    """The world in which a goal is to be chosen: paired wherever two tiers' answers are compared.

    Raises:
        BadInput: too few requests of either world (see `training.measure.world`).
    """
    if isinstance(goal, MaxBadDowngrade) or rule.margin is not None:
        return paired_world(requests)
    if isinstance(goal, Value) and not valuable(requests).any():
        return paired_world(requests)  # without a request: the goal needs none
    return pick_world(requests, 1 if isinstance(goal, Value) else MIN_UNITS)


def _certified(goal: Promised, course: Course, evidence: Evidence) -> Policy:
    top = evidence.p.shape[1] - 1
    risk = 1.0 - goal.confidence
    part, held, spared = _risks(goal, course, evidence)
    steps = course.steps
    count = _walked(goal, steps, evidence, spared)
    paid = evidence.paid.mean(axis=0)
    alone = [Policy(0.0, constant=top, why=NOTHING_CHEAPER), *held]
    best = min(alone, key=lambda policy: float(paid[policy.constant]))
    if count == len(steps):
        best = replace(steps[-1], why="the cheapest tier alone could be certified")
    elif count:
        why = "the cheapest step that could be certified, in an order fixed on the fit rows"
        best = replace(steps[count - 1], why=why)
    risks = {r.constant: part for r in held} | {top: risk}
    chosen = _or_constant(best, goal, evidence, set(risks))
    level = spared if chosen is best and count else risks.get(chosen.constant, risk)
    found = promise(goal, chosen, evidence, level)
    if chosen is not best and chosen.constant not in risks:
        found = replace(found, certified=False)
    return replace(chosen, promise=found)


def _walked(goal: Promised, steps: Sequence[Policy], evidence: Evidence, risk: float) -> int:
    """How many steps are shown to hold the goal before the first that is not."""
    for start in range(0, len(steps), AT_ONCE):
        passed = holds(goal, steps[start : start + AT_ONCE], evidence, risk)
        if not passed.all():
            return start + int(np.argmin(passed))
    return len(steps)


def _risks(goal: Promised, course: Course, evidence: Evidence) -> tuple[float, list[Policy], float]:
    """The risk of error of one rival, the rivals that are certified, and the risk of the walk.

    Graphical testing (Bretz et al. 2009): each rival is tested at a part of the risk, which passes
    to the walk if the rival is certified.
    """
    risk = 1.0 - goal.confidence
    part = RIVALS_PART * risk / max(len(course.rivals), 1)
    why = "the cheapest single tier that could be certified"
    rivals = [Policy(0.0, constant=k, why=why) for k in course.rivals]
    held = [r for r in rivals if holds(goal, [r], evidence, part)[0]]
    return part, held, risk - part * (len(rivals) - len(held))


def _or_constant(best: Policy, goal: Promised, evidence: Evidence, held: set[int | None]) -> Policy:
    """The cheapest constant that is not dearer and at most half a point worse, if any.

    It must hold the promise, too, unless `MaxBadDowngrade.or_constant` asks for any.
    """
    if best.constant is not None:
        return best
    asked = isinstance(goal, MaxBadDowngrade) and goal.or_constant
    paid = evidence.paid[np.arange(len(evidence.paid)), evidence.tiers(best)]
    costs = evidence.paid.mean(axis=0)
    for k in np.argsort(costs, kind="stable").tolist():
        if costs[k] > paid.mean():
            break
        allowed = asked or k in held
        if allowed and non_inferior(k, best, evidence, HALF_A_POINT, 1.0 - goal.confidence):
            why = "not dearer than routing and at most half a point worse"
            return Policy(0.0, constant=k, why=why)
    return best


def _spend(goal: MaxCost | TopShare, evidence: Evidence) -> Policy:
    """The lowest dial, 0 or more, that spends at most what the goal allows on the choose rows."""
    stages = evidence.stages
    walk = policy_walk(evidence.p if stages is None else stages.p, evidence.usd)
    curve = trace(walk, evidence.score, evidence.paid)
    dials = np.array([walk.dial(step) for step in range(len(curve.mu))])
    dials = np.where((curve.mu > 0) & (dials < 0), 0.0, dials)  # below 0 it would pay to spend
    cost, share = curve.cost_usd.copy(), curve.share[:, -1].copy()
    if stages is not None:  # what the dial does depends on both
        inner = dials[1:-1]  # the ends are constants
        tiers = [evidence.tiers(Policy(float(mu))) for mu in inner]
        rows = np.arange(len(evidence.p))
        cost[1:-1] = [evidence.paid[rows, tier].mean() for tier in tiers]
        share[1:-1] = [np.mean(tier == walk.tiers - 1) for tier in tiers]
    if isinstance(goal, MaxCost):
        spent, limit = 1000 * cost, goal.usd_per_1k
        why = f"the most that {limit:g} USD per 1,000 requests buy"
    else:
        spent, limit = share, goal.share
        why = f"at most {limit:.1%} of requests to the top tier"
    fits = np.flatnonzero((spent <= limit * (1 + 1e-9)) & (dials >= 0))
    if not len(fits):
        raise BadInput(
            f"max_cost_usd_per_1k = {limit:g} is impossible at these prices: on the choose rows "
            f"the cheapest mix costs {spent.min():.4g} USD per 1,000 requests, always the "
            f"cheapest tier {spent[0]:.4g}, always the top tier {spent[-1]:.4g}"
        )
    dial = float(dials[fits[-1]])
    return Policy(dial, why=why) if np.isfinite(dial) else Policy(0.0, constant=0, why=why)


def _told(policy: Policy, evidence: Evidence, names: Sequence[str]) -> Policy:
    """The policy, its `why` extended by its cost and score on the choose rows: no promise."""
    n = len(evidence.p)
    if not n:
        return policy
    tier, rows = evidence.tiers(policy), np.arange(n)
    cost, quality = evidence.paid[rows, tier].mean(), evidence.score[rows, tier].mean()
    why = (
        f"{policy.why}; on {n} choose rows that is {1000 * cost:.4g} USD per 1,000 requests, "
        f"{np.mean(tier == len(names) - 1):.1%} of them to {names[-1]}, and a mean score of "
        f"{quality:.4f}"
    )
    return replace(policy, why=why)
