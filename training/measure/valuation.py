"""The report of a one-sided world: what policies are worth, how sure, and where the log can speak.

The value of a policy is estimated three ways, IPS, SNIPS and doubly robust (`measure.offpolicy`).
Differences are paired: the same requests' terms are subtracted before an interval is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy
from router.predictor import Estimates
from training.measure.intervals import Interval, flat_intervals, plain_intervals
from training.measure.limits import allowing, few_sessions
from training.measure.offpolicy import (
    Logged,
    always,
    doubly_robust_terms,
    effective_rows,
    fixed,
    interval,
    ips_terms,
    pseudo_outcomes,
    ratio_terms,
    snips_terms,
)
from training.measure.overlap import (
    TOLERATED,
    Overlap,
    measure_overlap,
    require_support,
    unsupported_share,
)
from training.measure.world import ONE_SIDED

Floats = NDArray[np.float64]
CHOSEN, RANDOM, LOGGING = "policy", "matched random", "logging policy"
FEW = 100  # effective rows


@dataclass(frozen=True, slots=True)
class Valuation:
    """What policies are worth on n one-sided requests.

    Attributes:
        rows: n.
        policy: the router's, called `policy` below.
        names: of the tiers, cheapest first.
        figures: {policy: {metric: Interval}}: `quality` is the doubly robust value (of the logging
            policy: what was observed), beside it `ips` and `snips`; `cost_usd` by the account, of
            one request; of the router's `quality_of_top`, its share of the top tier's quality.
        effective: {policy: how many equally weighted rows its value rests on}.
        against: {other policy: {`quality`, `cost_usd`: the chosen policy's minus the other's}}.
        overlap: who was tried where.
        missing: {policy: why it has no value}.
        notes: what a reader must know, in words.
    """

    rows: int
    policy: Policy
    names: tuple[str, ...]
    figures: dict[str, dict[str, Interval]]
    effective: dict[str, float]
    against: dict[str, dict[str, Interval]]
    overlap: Overlap
    missing: dict[str, str]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Figures for a machine; what does not exist is null."""
        return {
            "world": ONE_SIDED,
            "rows": self.rows,
            "policies": plain_intervals(self.figures),
            "effective_rows": self.effective,
            "suffice_minus": plain_intervals(self.against),
            "overlap": self.overlap.as_json(self.names),
            "undefined": self.missing,
            "notes": list(self.notes),
        }

    def flat(self) -> dict[str, float]:
        """Every figure by a short name, for a tracker: value, low and high."""
        groups = self.figures | {f"minus {name}": one for name, one in self.against.items()}
        rows = {f"effective_rows.{name}": rows for name, rows in self.effective.items()}
        return flat_intervals(groups) | rows


def value_policies(
    logged: Logged,
    estimates: Estimates,
    paid: Floats,
    policy: Policy,
    names: tuple[str, ...],
    warnings: Sequence[str],
) -> Valuation:
    """Value a router's policy on requests that its heads did not see, beside what it has to beat.

    Args:
        logged: n requests.
        estimates: the heads', of the n requests.
        paid: float64[n, k], the account.
        policy: the router's.
        names: of the k tiers.
        warnings: lead the notes.

    Raises:
        BadInput: the policy sends traffic where its tier was never tried.
    """
    p, usd = estimates.p, estimates.usd
    n, k = p.shape
    overlap = measure_overlap(logged, p)
    chosen = fixed(policy.choose(p, usd), k)
    require_support(overlap, chosen, names, "the policy")
    asked = {CHOSEN: chosen}
    asked |= {f"always {name}": always(tier, n, k) for tier, name in enumerate(names)}
    asked[RANDOM] = np.tile(chosen.mean(axis=0), (n, 1))
    terms: dict[str, dict[str, Floats]] = {}
    missing: dict[str, str] = {}
    for name, mix in asked.items():
        terms[name] = {"cost_usd": (mix * paid).sum(axis=1)}
        lost = unsupported_share(overlap, mix)
        if lost > TOLERATED:
            missing[name] = f"on {lost:.0%} of the requests the log never tried what it would do"
        else:
            terms[name] |= {
                "quality": doubly_robust_terms(logged, mix, p),
                "ips": ips_terms(logged, mix),
                "snips": snips_terms(logged, mix),
            }
    for metric, values in (("cost_usd", paid), ("quality", pseudo_outcomes(logged, p))):
        if metric in terms[RANDOM]:
            terms[RANDOM][metric] += _of_shares(chosen, values)
    top = terms[f"always {names[-1]}"].get("quality")
    if top is not None and top.mean() > 0:
        terms[CHOSEN]["quality_of_top"] = ratio_terms(terms[CHOSEN]["quality"], top)
    terms[LOGGING] = _observed(logged, paid)
    figures = {
        name: {metric: interval(values, logged.session) for metric, values in metrics.items()}
        for name, metrics in terms.items()
    }
    for name, mix in asked.items():
        if "quality" in figures[name]:
            figures[name]["quality"] = _unseen(figures[name]["quality"], logged, mix, p)
    below = np.asarray(chosen[:, -1] < 1)  # what the top tier answers, it answers as well as itself
    if "quality_of_top" in figures[CHOSEN] and top is not None and below.any():
        mix, per = chosen * below[:, None], float(top.mean() / below.mean())
        kept = _unseen(figures[CHOSEN]["quality_of_top"], logged, mix, p, per)
        figures[CHOSEN]["quality_of_top"] = kept
    against = {
        name: {
            metric: interval(terms[CHOSEN][metric] - values, logged.session)
            for metric, values in metrics.items()
            if metric in ("quality", "cost_usd")
        }
        for name, metrics in terms.items()
        if name != CHOSEN
    }
    effective = {name: effective_rows(logged, mix) for name, mix in asked.items()}
    notes = (*warnings, *_notes(logged, policy, chosen, against, effective))
    return Valuation(n, policy, names, figures, effective, against, overlap, missing, notes)


def _of_shares(chosen: Floats, values: Floats) -> Floats:
    """What matched random owes to its shares being estimated: their influence, float64[n], mean 0.

    chosen: float64[n, k], the choices whose shares it takes. values: float64[n, k].
    """
    influence: Floats = (chosen - chosen.mean(axis=0)) @ values.mean(axis=0)
    return influence


def _unseen(found: Interval, logged: Logged, mix: Floats, p: Floats, per: float = 1.0) -> Interval:
    """Limits that allow for what is too rare to have been seen of a policy, float64[n, k].

    Where none of a tier's 136 answers failed, as its head foretold, Student's t sees no spread.
    """
    seen = ((mix > 0) & ~np.isnan(logged.score)).any(axis=1)
    if not seen.any():
        return found
    missed = (mix * (np.nan_to_num(logged.score) - p) * ~np.isnan(logged.score)).sum(axis=1)
    return allowing(found, missed[seen], logged.session[seen], per)


def _observed(logged: Logged, paid: Floats) -> dict[str, Floats]:
    """What the logging policy did: the tier with a propensity, else the mean of those observed."""
    seen = ~np.isnan(logged.score)
    chosen = seen & ~np.isnan(logged.propensity)
    did = np.where(chosen.any(axis=1, keepdims=True), chosen, seen).astype(np.float64)
    did /= did.sum(axis=1, keepdims=True)
    return {
        "quality": (did * np.nan_to_num(logged.score)).sum(axis=1),
        "cost_usd": (did * paid).sum(axis=1),
    }


def _notes(
    logged: Logged,
    policy: Policy,
    chosen: Floats,
    against: Mapping[str, Mapping[str, Interval]],
    effective: Mapping[str, float],
) -> tuple[str, ...]:
    notes = []
    if effective[CHOSEN] < FEW:
        notes.append(
            f"the policy's value rests on {effective[CHOSEN]:.0f} effective rows of {len(chosen)}: "
            "intervals from so few are rough; explore more, or give more traffic"
        )
    total = interval((chosen * logged.weight).sum(axis=1), logged.session)
    if total.excludes(1.0) and abs(total.value - 1.0) > 0.05:
        notes.append(
            "the propensities do not fit the log: weights of what the policy would do average "
            f"{total.value:.2f} (95 % {total.low:.2f}–{total.high:.2f}) where they must average 1; "
            "check how they are logged before believing any value here"
        )
    random = against[RANDOM].get("quality")
    if random is not None and policy.constant is None and not random.low > 0:
        notes.append(
            "the operating point is not shown to beat sending the same share at random "
            f"({random.value:+.4f} quality, 95 % {random.low:+.4f} to {random.high:+.4f})"
        )
    return (*notes, *few_sessions(logged.session))
