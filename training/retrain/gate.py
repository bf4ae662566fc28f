"""The gate: whether a challenger may take the champion's place, one check a row.

Every comparison is paired: all policies are judged on the same test rows, which none of them was
fitted or chosen on. Intervals are Student's t, requests of one session taken together; those of
quality against the champion and the anchor also allow for losses too rare to have been seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import NDArray

from router.policy import Promise
from training.measure.intervals import Floats, Interval
from training.measure.limits import allowing
from training.measure.offpolicy import interval
from training.measure.reliability import debiased_ece
from training.measure.slice_report import promise_margins
from training.measure.slices import Slice
from training.retrain.verdict import GAIN, Check, Verdict

Ints = NDArray[np.int64]
REFUTED_AT = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What a challenger must reach; every field can be set in ``[gate]`` of retrain.toml.

    Attributes:
        margin: quality (mean score) that may be lost to the champion, the anchor, or in a slice.
        confidence: of every interval, two-sided.
        min_rows: test rows below which nothing is decided.
        slice_rows: rows from which a slice is judged.
        max_ece: debiased calibration error allowed to each tier.
        ece_rows: observed scores from which calibration is judged.
        latency_p50_ms: of `Router.route`, on the test prompts.
    """

    margin: float = 0.005
    confidence: float = 0.95
    min_rows: int = 200
    slice_rows: int = 200
    max_ece: float = 0.05
    ece_rows: int = 2000
    latency_p50_ms: float = 5.0


@dataclass(frozen=True, slots=True)
class Holdout:
    """The n held-out test rows on which policies are compared, and k tiers.

    Attributes:
        names: of the tiers, cheapest first.
        quality: float64[n, k], scores; of one-sided rows doubly robust pseudo-outcomes.
        paid: float64[n, k], USD in the account.
        session: int64[n].
        observed: float64[n, k], scores as logged, NaN where a tier was not seen.
        sufficed: bool[n, k] by the label rule; None on one-sided rows.
        slices: of the traffic.
    """

    names: tuple[str, ...]
    quality: Floats
    paid: Floats
    session: Ints
    observed: Floats
    sufficed: NDArray[np.bool_] | None
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True, slots=True)
class Entrant:
    """The challenger as the gate sees it on the holdout.

    Attributes:
        tier: int64[n], its choices.
        p: float64[n, k], its probabilities.
        constant: the one tier it always takes, or None.
        promise: of its operating point, or None.
        golden: largest difference of a golden probability after export.
        latency_ms: float64[m], times of `Router.route`.
    """

    tier: Ints
    p: Floats
    constant: int | None
    promise: Promise | None
    golden: float
    latency_ms: Floats


def judge(
    holdout: Holdout,
    entrant: Entrant,
    standing: Mapping[str, Ints],
    limits: Limits,
) -> Verdict:
    """Hold a challenger against every limit.

    Args:
        holdout: the test rows.
        entrant: the challenger.
        standing: {``champion``, ``anchor``: int64[n] choices}, as far as there are any.
        limits: what to reach.
    """
    rows = len(holdout.session)
    checks = [Check("test rows", rows, limits.min_rows, rows >= limits.min_rows)]
    if rows < 2:
        return Verdict(tuple(checks))
    checks += _against_blind(holdout, entrant, limits)
    for name in ("champion", "anchor"):
        if name in standing:
            checks += _against(holdout, entrant.tier, standing[name], name, limits)
    if "champion" in standing:
        checks += _slices(holdout, entrant.tier, standing["champion"], limits)
    checks += _calibration(holdout, entrant.p, limits)
    checks += _promise(holdout, entrant)
    checks += [
        Check("golden replay, largest difference", entrant.golden, 1e-6, entrant.golden <= 1e-6),
        _latency(entrant.latency_ms, limits),
    ]
    return Verdict(tuple(checks))


def _against_blind(holdout: Holdout, entrant: Entrant, limits: Limits) -> list[Check]:
    """Shown better than matched random; shown better or cheaper than each tier alone."""
    quality, paid, tier = holdout.quality, holdout.paid, entrant.tier
    own, spent = _taken(quality, tier), _taken(paid, tier)
    checks = []
    if entrant.constant is None:
        share = np.bincount(tier, minlength=quality.shape[1]) / len(tier)
        mean = quality.mean(axis=0)
        # The shares are estimated, too: their part of the influence function is mean[tier].
        gain = own - mean[tier] + share @ mean - quality @ share
        found = interval(gain, holdout.session, limits.confidence)
        checks.append(
            Check("better than matched random", found.value, 0.0, found.low > 0, _words(found))
        )
    for k, name in enumerate(holdout.names):
        if k == entrant.constant:
            continue
        better = interval(own - quality[:, k], holdout.session, limits.confidence)
        cheaper = interval(spent - paid[:, k], holdout.session, limits.confidence)
        if better.low > 0 or not cheaper.high < 0:  # NaN: of one session it is unknown
            passed, told = better.low > 0, (better, "quality")
        else:
            passed, told = True, (cheaper, "USD")
        checks.append(
            Check(
                f"better or cheaper than always {name}",
                told[0].value,
                0.0,
                passed,
                f"{told[1]} {_words(told[0])}",
            )
        )
    return checks


def _against(holdout: Holdout, tier: Ints, other: Ints, name: str, limits: Limits) -> list[Check]:
    """Non-inferior to another router in quality; of the champion also shown cheaper or better."""
    gain = _taken(holdout.quality, tier) - _taken(holdout.quality, other)
    better = interval(gain, holdout.session, limits.confidence)
    if holdout.sufficed is not None and (tier != other).any():  # gains of paired scores
        better = allowing(better, gain, holdout.session, confidence=limits.confidence)
    checks = [
        Check(
            f"quality not below the {name}'s",
            better.value,
            -limits.margin,
            better.low >= -limits.margin,
            _words(better),
        )
    ]
    if name == "champion":
        saved = _taken(holdout.paid, tier) - _taken(holdout.paid, other)
        cheaper = interval(saved, holdout.session, limits.confidence)
        passed = better.low > 0 or cheaper.high < 0
        sure = f"quality {_words(better)}; USD {_words(cheaper)}"
        checks.append(Check(GAIN, better.value, 0.0, passed, sure))
    return checks


def _slices(holdout: Holdout, tier: Ints, other: Ints, limits: Limits) -> list[Check]:
    """No slice may be shown to fall by more than the margin, corrected for how many there are."""
    judged = [part for part in holdout.slices if len(part.rows) >= limits.slice_rows]
    if not judged:
        return []
    gain = _taken(holdout.quality, tier) - _taken(holdout.quality, other)
    sure = 1 - 2 * (1 - limits.confidence) / len(judged)  # one-sided
    found = []
    for part in judged:
        change = interval(gain[part.rows], holdout.session[part.rows], sure)
        found.append((float(np.nan_to_num(change.high, nan=inf)), part, change))
    upper, part, change = min(found, key=lambda item: item[0])
    return [
        Check(
            f"worst of {len(judged)} slices ({part.kind} {part.name})",
            change.value,
            -limits.margin,
            upper >= -limits.margin,
            f"upper limit {upper:+.4f}, corrected for {len(judged)} slices",
        )
    ]


def _calibration(holdout: Holdout, p: Floats, limits: Limits) -> list[Check]:
    checks = []
    for k, name in enumerate(holdout.names):
        seen = ~np.isnan(holdout.observed[:, k])
        if seen.sum() < limits.ece_rows:
            continue
        error = debiased_ece(p[seen, k], holdout.observed[seen, k])
        words = f"debiased, {int(seen.sum())} rows"
        checks.append(
            Check(f"calibration of {name}", error, limits.max_ece, error <= limits.max_ece, words)
        )
    return checks


def _promise(holdout: Holdout, entrant: Entrant) -> list[Check]:
    promise = entrant.promise
    if promise is None or (promise.rule == "max_bad_downgrade" and holdout.sufficed is None):
        return []
    sufficed = holdout.sufficed
    if sufficed is None:  # no two tiers are seen together, and this promise does not ask it
        sufficed = np.ones(holdout.quality.shape, bool)
    margins = promise_margins(promise, entrant.tier, holdout.quality, sufficed)
    if margins is None:
        return []
    found = interval(margins, holdout.session, 1 - 2 * REFUTED_AT)  # one-sided
    refuted = found.high < 0
    words = f"95 % upper limit {found.high:+.4f}"
    return [Check("the promise is not refuted", found.value, 0.0, not refuted, words)]


def _latency(times: Floats, limits: Limits) -> Check:
    median = float(np.median(times)) if len(times) else nan
    slow = float(np.quantile(times, 0.99)) if len(times) else nan
    limit = limits.latency_p50_ms
    return Check("route(), p50 in ms", median, limit, median <= limit, f"p99 {slow:.3g}")


def _taken(values: Floats, tier: Ints) -> Floats:
    return np.asarray(values[np.arange(len(tier)), tier])


def _words(found: Interval) -> str:
    digits = ".4f" if abs(found.value) > 1e-3 or found.value == 0 else ".2e"
    return f"{found.low:+{digits}} to {found.high:+{digits}}"
