"""The report by slice of traffic: where the promise fails, and where nobody can tell.

A figure of all traffic can hide one application that is badly served. Each slice gets the same
figures from the same resamples as the whole; what too few independent requests say is not shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import ttest_1samp

from router.policy import Promise
from training.measure.intervals import Bootstrap, Estimator, Floats, Interval
from training.measure.limits import choice_limits
from training.measure.metrics import bad_downgrades
from training.measure.reliability import BINS, equal_mass_bins
from training.measure.rows import Rows

MIN_UNITS = 30  # independent requests (sessions) below which a slice gets no figures
MIN_PER_BIN = 40  # rows in a bin of a slice's ECE: fewer would measure their own noise
SIGNIFICANCE = 0.05
SLICES = "slices"  # name of the resampled figures of `slice_metrics` in a `Bootstrap`
TOO_FEW, HOLDS, BELOW, OWN, FAILS, UNJUDGED = (
    "too few rows to tell",
    "holds in the estimate",
    "below in the estimate",
    "below by its own interval, not after correction",  # for the number of slices
    "shown to fail",
    "no promise to judge by",
)


@dataclass(frozen=True, slots=True)
class SliceReport:
    """What is known of one slice.

    Attributes:
        kind, name: of the slice.
        rows, units: requests, and independent ones among them (a session counts once).
        metrics: quality, quality_top, quality_of_top, to_top (the share sent there), saving,
            bad_downgrade, and brier and ece (means over tiers), with 95 % intervals for this slice
            alone (ece: without); None with too few units.
        verdict: on the promise in this slice, one of the words above.
        p_value: chance of a slice as bad as this if the promise holds in it; one-sided, already
            multiplied by the number of slices judged (Bonferroni); NaN where not judged.
    """

    kind: str
    name: str
    rows: int
    units: int
    metrics: dict[str, Interval] | None
    verdict: str
    p_value: float

    def as_json(self) -> dict[str, Any]:
        """For a machine; what is not known is null."""
        metrics = {name: found.as_json() for name, found in (self.metrics or {}).items()}
        return {
            "kind": self.kind,
            "name": self.name,
            "rows": self.rows,
            "sessions": self.units,
            "promise": self.verdict,
            "p_value": self.p_value if isfinite(self.p_value) else None,
            "metrics": metrics or None,
        }


def slice_metrics(rows: Rows, tier: NDArray[np.int64]) -> Estimator:
    """The figures of all slices as one estimator for `intervals`: float64[rounds, slices] each.

    tier: int64[n], the policy's choice.
    """
    p, score, paid, slices = rows.p, rows.score, rows.paid, rows.slices
    n, k = score.shape
    each = np.arange(n)
    own = [np.ones(n), score[each, tier], score[:, -1], paid[each, tier], paid[:, -1]]
    own += [bad_downgrades(tier, rows.sufficed).astype(np.float64), (tier == k - 1) * 1.0]
    own += [((p - score) ** 2).mean(axis=1)]
    table = np.column_stack(own)
    blocks, binned = [], []
    for part in slices:
        blocks.append(_embed(table[part.rows], part.rows, n))
        bins = min(BINS, max(1, len(part.rows) // MIN_PER_BIN))
        for j in range(k):
            x, y = p[part.rows, j], score[part.rows, j]
            inside = equal_mass_bins(x, bins)[:, None] == np.arange(bins)
            binned.append(_embed(inside * (x - y)[:, None], part.rows, n))
    starts = np.cumsum([0, *(block.shape[1] for block in binned)])[:-1]
    # One sparse product makes every sum of every slice; a row is in some six slices of hundreds.
    sums_of = sparse.hstack([*blocks, *binned], format="csc").T.tocsr()
    width = len(own)

    def estimate(weights: Floats) -> dict[str, Floats]:
        sums = (sums_of @ weights.T).T
        parts = sums[:, : width * len(slices)].reshape(len(weights), len(slices), width)
        mass, q, q_top, u, u_top, bad, top, squared = np.moveaxis(parts, 2, 0)
        off = np.add.reduceat(np.abs(sums[:, width * len(slices) :]), starts, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "quality": q / mass,
                "quality_top": q_top / mass,
                "quality_of_top": q / q_top,
                "to_top": top / mass,
                "saving": u_top / u,
                "bad_downgrade": bad / mass,
                "brier": squared / mass,
                "ece": off.reshape(len(weights), len(slices), k).mean(axis=2) / mass,
            }

    return estimate


def judge_slices(
    rows: Rows,
    tier: NDArray[np.int64],
    drawn: Bootstrap,
    promise: Promise | None,
    margins: Floats | None,
) -> tuple[SliceReport, ...]:
    """Figures and verdict of each slice of the rows.

    A one-sided t test on sums per session decides whether the promise is shown to fail. The rare
    large margins are on the bad side, so the test errs towards not showing it.

    Args:
        rows: n of them.
        tier: int64[n], the policy's choice.
        drawn: with rounds of `slice_metrics` under the name `SLICES`.
        promise: of the policy.
        margins: float64[n] of `promise_margins`.
    """
    units = [len(np.unique(rows.session[part.rows])) for part in rows.slices]
    judged = sum(count >= MIN_UNITS for count in units)
    bad = bad_downgrades(tier, rows.sufficed)
    found = []
    for j, (part, count) in enumerate(zip(rows.slices, units, strict=True)):
        at, metrics, verdict, p_value = part.rows, None, TOO_FEW, nan
        if count >= MIN_UNITS:
            session, verdict = rows.session[at], UNJUDGED
            entry = drawn.entry(SLICES, j)
            metrics = choice_limits(entry, tier[at], rows.score[at], bad[at], session)
            # A resample's bins add noise of their own: limits from them may leave out the value.
            metrics["ece"] = replace(metrics["ece"], low=nan, high=nan)
            if promise is not None and margins is not None:
                p_value = min(1.0, judged * _p_below(margins[at], session))
                verdict = _verdict(promise, metrics, margins[at], p_value)
        found.append(SliceReport(part.kind, part.name, len(at), count, metrics, verdict, p_value))
    return tuple(found)


def promise_margins(
    promise: Promise | None,
    tier: NDArray[np.int64],
    score: Floats,
    sufficed: NDArray[np.bool_],
) -> Floats | None:
    """By how much each request keeps the promise, float64[n]: it holds where their mean is ≥ 0.

    None without a promise, or with one that is not about quality.
    """
    if promise is not None and promise.rule == "min_quality":
        return np.asarray(score[np.arange(len(score)), tier] - promise.target * score[:, -1])
    if promise is not None and promise.rule == "max_bad_downgrade":
        return np.asarray(promise.target - bad_downgrades(tier, sufficed))
    return None


def worst(reports: Sequence[SliceReport]) -> list[SliceReport]:
    """Slices with figures, the promise's failures first, then by the share of top quality kept."""
    known = [report for report in reports if report.metrics is not None]
    rank = {FAILS: 0, OWN: 1, BELOW: 2}

    def badness(report: SliceReport) -> tuple[int, float, float]:
        assert report.metrics is not None
        kept = report.metrics["quality_of_top"].value
        chance = report.p_value if isfinite(report.p_value) else 1.0
        return rank.get(report.verdict, 3), chance, kept if isfinite(kept) else 1.0

    return sorted(known, key=badness)


def _verdict(
    promise: Promise, metrics: dict[str, Interval], margins: Floats, p_value: float
) -> str:
    """What may be said of the promise in a slice with these margins, one of the words above."""
    if p_value < SIGNIFICANCE:
        return FAILS
    if margins.mean() < -1e-12:
        return OWN if _excluded(promise, metrics) else BELOW
    return HOLDS


def _excluded(promise: Promise, metrics: dict[str, Interval]) -> bool:
    """Whether a slice's own interval, which readers see, lies on the wrong side of the promise."""
    if promise.rule == "min_quality":
        return metrics["quality_of_top"].high < promise.target
    return metrics["bad_downgrade"].low > promise.target


def _p_below(margins: Floats, session: NDArray[np.int64]) -> float:
    """One-sided p-value of "the mean is at least 0", over sums per session."""
    sums = np.bincount(np.unique(session, return_inverse=True)[1], weights=margins)
    if np.ptp(sums) == 0:
        return 0.0 if sums[0] < 0 else 1.0
    return float(ttest_1samp(sums, 0.0, alternative="less").pvalue)


def _embed(block: NDArray[Any], rows: NDArray[np.int64], n: int) -> sparse.csc_matrix:
    """A block of some rows as columns over all n rows."""
    inside = sparse.coo_matrix(block)
    return sparse.csc_matrix((inside.data, (rows[inside.row], inside.col)), (n, block.shape[1]))
