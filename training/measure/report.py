"""The report: what a router is worth on given rows, beside what it has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy
from training.measure.compare import Comparison, comparisons
from training.measure.curve import Curve, Point, Walk, oracle_walk, order_walk, policy_walk, trace
from training.measure.dial import DIAL, Dial, positions, read_dial, step_of
from training.measure.intervals import (
    Bootstrap,
    Estimator,
    Interval,
    bootstrap,
    flat_intervals,
    plain_intervals,
)
from training.measure.limits import allowing, choice_limits, few_sessions
from training.measure.metrics import (
    bad_downgrades,
    best_constant,
    curve_metrics,
    policy_metrics,
    random_metrics,
    states,
    undefined,
)
from training.measure.reliability import (
    Reliability,
    debiased_ece,
    reliability_metrics,
    reliability_table,
)
from training.measure.rows import Rows
from training.measure.slice_report import (
    SLICES,
    SliceReport,
    judge_slices,
    promise_margins,
    slice_metrics,
)
from training.measure.world import PAIRED

RESAMPLES = 1000
GAIN, DOLLAR = "Suffice, by gain", "Suffice, by gain per dollar"
HARD_TO_PREDICT = 0.6


@dataclass(frozen=True, slots=True)
class Report:
    """Metrics with paired bootstrap intervals, and what the plots need.

    Attributes:
        rows: how many requests.
        policy: whose figures they are.
        figures: {method: {metric: Interval}}.
        calibration: {tier: {metric: Interval}} for brier, ece, ece_debiased (these two have no
            limits) and auc.
        against: {baseline: {metric: Interval}}, Suffice's figure minus the baseline's.
        missing: {metric: why it does not exist on these rows}.
        curves: {method: Curve}.
        dial: what each position along Suffice's curve gives, with intervals.
        reliability: {tier: Reliability}.
        constants: always-one-tier points, cheapest first.
        chosen: the operating point.
        slices: what is known of each slice of the traffic.
        notes: what a reader must know, in words.
    """

    rows: int
    policy: Policy
    figures: dict[str, dict[str, Interval]]
    calibration: dict[str, dict[str, Interval]]
    against: dict[str, dict[str, Interval]]
    missing: dict[str, str]
    curves: dict[str, Curve]
    dial: Dial
    reliability: dict[str, Reliability]
    constants: tuple[Point, ...]
    chosen: Point
    slices: tuple[SliceReport, ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tiers, cheapest first."""
        return tuple(self.reliability)

    @property
    def orders(self) -> list[str]:
        """The methods that order prompts, Suffice first.

        Suffice orders by gain and by gain per dollar; with more than two tiers these are the same,
        and only the latter is named.
        """
        found = [name for name, metrics in self.figures.items() if "apgr" in metrics]
        found.sort(key=lambda name: name not in (GAIN, DOLLAR))
        return found if len(self.names) == 2 else [name for name in found if name != GAIN]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The router against everything that it has to beat."""
        return comparisons(self.figures["policy"], self.against)

    def as_json(self) -> dict[str, Any]:
        """Figures for a machine; what does not exist is null."""
        return {
            "world": PAIRED,
            "rows": self.rows,
            "methods": plain_intervals(self.figures),
            "calibration": plain_intervals(self.calibration),
            "suffice_minus": plain_intervals(self.against),
            "answers": [
                {"rival": asked.rival, "measure": asked.measure.words, "better": asked.answer}
                for asked in self.comparisons
            ],
            "slices": [part.as_json() for part in self.slices],
            "undefined": self.missing,
            "notes": list(self.notes),
        }

    def flat(self) -> dict[str, float]:
        """The router's own figures by short names, for a tracker: value, low and high."""
        shown = {"policy": self.figures["policy"], "gain": self.figures[GAIN]}
        shown |= {"dollar": self.figures[DOLLAR]}
        shown |= {f"tier_{name}": values for name, values in self.calibration.items()}
        return flat_intervals(shown)


def build_report(rows: Rows, policy: Policy, warnings: Sequence[str]) -> Report:
    """Measure a router on rows it was neither fitted nor chosen on; `warnings` lead its notes."""
    walks, tier = _walks(rows), policy.choose(rows.p, rows.usd)
    main, best = walks[DOLLAR], best_constant(rows.score, rows.paid, 0.99)
    step = step_of(main, policy.mu, policy.constant)
    at = positions(main, step)
    choices = _choices(rows, tier, best)
    estimators = _estimators(rows, walks, choices) | _per_part(rows, main, at, tier)
    rounds = bootstrap(estimators, len(tier), groups=rows.session, resamples=RESAMPLES)
    curves = {name: trace(walk, rows.score, rows.paid) for name, walk in walks.items()}
    figures = rounds.intervals()
    for name, choice in choices.items():
        bad = bad_downgrades(choice, rows.sufficed)
        figures[name] = choice_limits(figures[name], choice, rows.score, bad, rows.session)
    calibration = _calibration(rows, [figures.pop(f"tier:{name}") for name in rows.names])
    for arrays in (DIAL, SLICES):
        figures.pop(arrays, None)
    margins = promise_margins(policy.promise, tier, rows.score, rows.sufficed)
    return Report(
        rows=len(tier),
        policy=policy,
        figures=figures,
        calibration=calibration,
        against=_differences(
            rows, rounds, [name for name in walks if name not in (GAIN, DOLLAR, "oracle")], choices
        ),
        missing=undefined(rows.score, rows.paid),
        curves=curves,
        dial=read_dial(main, curves[DOLLAR], at, step, rounds, rows.score, rows.session),
        reliability={
            name: reliability_table(rows.p[:, j], rows.score[:, j])
            for j, name in enumerate(rows.names)
        },
        constants=tuple(
            Point(float(rows.paid[:, j].mean()), float(rows.score[:, j].mean()), f"always {name}")
            for j, name in enumerate(rows.names)
        ),
        chosen=_chosen(figures["policy"]),
        slices=judge_slices(rows, tier, rounds, policy.promise, margins),
        notes=(*warnings, *_notes(rows, policy, calibration, figures, best)),
    )


def _calibration(
    rows: Rows, figures: Sequence[Mapping[str, Interval]]
) -> dict[str, dict[str, Interval]]:
    """What `Report.calibration` holds, from the bootstrap's figures of each tier."""
    found = {}
    for j, name in enumerate(rows.names):
        error = debiased_ece(rows.p[:, j], rows.score[:, j])
        found[name] = dict(figures[j]) | {
            # A resample's bins add noise of their own: limits from them may leave out the value.
            "ece": replace(figures[j]["ece"], low=nan, high=nan),
            "ece_debiased": Interval(error, nan, nan, nan, nan),
        }
    return found


def _choices(rows: Rows, tier: NDArray[np.int64], best: int) -> dict[str, NDArray[np.int64]]:
    """The policy's choice and those of constant tiers, {name: int64[n]}."""
    n, k = rows.score.shape
    constants = {"best constant": best, "always cheapest": 0, "always top": k - 1}
    return {"policy": tier} | {name: np.full(n, one) for name, one in constants.items()}


def _estimators(
    rows: Rows, walks: Mapping[str, Walk], choices: Mapping[str, NDArray[np.int64]]
) -> dict[str, Estimator]:
    """The metrics of each method, and of fixed choices, {name: int64[n]}."""
    found = {name: curve_metrics(walk, rows.score, rows.paid) for name, walk in walks.items()}
    found["random"] = random_metrics(rows.score, rows.paid)
    for name, choice in choices.items():
        found[name] = policy_metrics(choice, rows.score, rows.paid, rows.sufficed)
    return found


def _per_part(
    rows: Rows, walk: Walk, at: NDArray[np.int64], tier: NDArray[np.int64]
) -> dict[str, Estimator]:
    """Figures of the states `at` of the router's walk, of each tier's P, and of each slice."""
    found = {DIAL: states(walk, rows.score, rows.paid, at)}
    for j, name in enumerate(rows.names):
        p, score, sufficed = rows.p[:, j], rows.score[:, j], rows.sufficed[:, j]
        found[f"tier:{name}"] = reliability_metrics(p, score, sufficed)
    if rows.slices:
        found[SLICES] = slice_metrics(rows, tier)
    return found


def _walks(rows: Rows) -> dict[str, Walk]:
    k = rows.score.shape[1]
    two = k == 2
    walks = {DOLLAR: policy_walk(rows.p, rows.usd)}
    walks[GAIN] = order_walk(rows.p[:, 1] - rows.p[:, 0]) if two else walks[DOLLAR]
    for name, p in rows.baselines.items():
        walks[name] = order_walk(p[:, 1] - p[:, 0]) if two else policy_walk(p, rows.usd)
    walks["prompt length"] = order_walk(rows.characters, k)
    walks["oracle"] = oracle_walk(rows.score, rows.paid)
    return walks


def _differences(
    rows: Rows,
    rounds: Bootstrap,
    baselines: Sequence[str],
    choices: Mapping[str, NDArray[np.int64]],
) -> dict[str, dict[str, Interval]]:
    pairs = {"apgr": GAIN, "apgr_cost": DOLLAR, "saving_99": DOLLAR, "aiq": DOLLAR}
    found = {
        name: {metric: rounds.difference(metric, ours, name) for metric, ours in pairs.items()}
        for name in (*baselines, "random")
    }
    for name in ("best constant", "always top"):
        found[name] = {
            metric: rounds.difference(metric, "policy", name) for metric in ("quality", "cost_usd")
        }
        own, other = choices["policy"], choices[name]
        if (own != other).any():
            n = np.arange(len(own))
            gain = rows.score[n, own] - rows.score[n, other]
            found[name]["quality"] = allowing(found[name]["quality"], gain, rows.session)
    return found


def _chosen(policy: Mapping[str, Interval]) -> Point:
    saving = policy["saving"].value
    label = f"chosen: {saving:.2f}× cheaper than the top tier" if isfinite(saving) else "chosen"
    return Point(policy["cost_usd"].value, policy["quality"].value, label)


def _notes(
    rows: Rows,
    policy: Policy,
    calibration: Mapping[str, Mapping[str, Interval]],
    figures: Mapping[str, Mapping[str, Interval]],
    best: int,
) -> tuple[str, ...]:
    notes = [f"best constant (cheapest with 99 % of the top tier's quality): {rows.names[best]}"]
    for name, metrics in calibration.items():
        auc = metrics["auc"]
        if isfinite(auc.value) and auc.low < HARD_TO_PREDICT:
            notes.append(
                f"tier {name}: whether it suffices is hardly predictable on this traffic "
                f"(AUC {auc.value:.2f}, 95 % {auc.low:.2f}–{auc.high:.2f}; 0.5 is chance)"
            )
    above = figures["policy"]["above_random"]
    if policy.constant is None and not above.low > 0:
        notes.append(
            "the operating point is not shown to beat sending the same share at random "
            f"({above.value:+.4f} quality, 95 % {above.low:+.4f} to {above.high:+.4f})"
        )
    return (*notes, *few_sessions(rows.session))
