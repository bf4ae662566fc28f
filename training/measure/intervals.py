"""How sure: paired bootstrap over requests, or over whole sessions, by counts as weights.

A metric is written once, as an *estimator*: weights float64[r, n] → {name: float64[r, ...]}, one
result per round. A round of ones gives the value on the rows themselves; rounds of multinomial
counts give resamples (Efron, 1979). All estimators see the same rounds, so the difference between
two methods is paired by construction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.errors import BadInput

Floats = NDArray[np.float64]
Estimator = Callable[[Floats], dict[str, Floats]]

_CELLS_PER_BLOCK = 1 << 15  # 256 kB of weights at once stay in the cache


@dataclass(frozen=True, slots=True)
class Interval:
    """One metric: its value on the rows, and the mean and 95 % limits over the rounds.

    `undefined` is the share of rounds in which the metric does not exist (say, no gap between the
    tiers); where it exceeds the tail mass, the limits cannot be known and are NaN.
    """

    value: float
    mean: float
    low: float
    high: float
    undefined: float

    def excludes(self, value: float) -> bool:
        """Whether the whole interval lies on one side of `value`; never where it is unknown."""
        return self.low > value or self.high < value

    def as_json(self) -> dict[str, float | None]:
        """Value and limits; what does not exist is null."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {end: number if isfinite(number) else None for end, number in ends.items()}

    def times(self, factor: float) -> "Interval":
        """In another unit: a cost of one request as that of 1,000."""
        value, mean, low, high = (factor * x for x in (self.value, self.mean, self.low, self.high))
        return Interval(value, mean, low, high, self.undefined)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The rounds of every metric of every method, drawn from the same resamples.

    value: {method: {metric: float64[...]}}; rounds: {method: {metric: float64[resamples, ...]}}.
    """

    value: dict[str, dict[str, Floats]]
    rounds: dict[str, dict[str, Floats]]
    confidence: float

    def interval(self, method: str, metric: str) -> Interval:
        """Percentile interval of one scalar metric."""
        return self._summary(self.value[method][metric], self.rounds[method][metric])

    def difference(self, metric: str, method: str, other: str) -> Interval:
        """Paired interval of `method` minus `other` in one scalar metric."""
        ours, theirs = self.value[method][metric], self.value[other][metric]
        with np.errstate(invalid="ignore"):
            rounds = self.rounds[method][metric] - self.rounds[other][metric]
            return self._summary(ours - theirs, rounds)

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Every scalar metric of every method."""
        return {
            method: {m: self.interval(method, m) for m, v in metrics.items() if v.ndim == 0}
            for method, metrics in self.value.items()
        }

    def entry(self, method: str, place: int) -> dict[str, Interval]:
        """Every metric of a method whose metrics are arrays, at one place of them."""
        return {
            metric: self._summary(value[place], self.rounds[method][metric][:, place])
            for metric, value in self.value[method].items()
        }

    def band(self, method: str, metric: str) -> tuple[Floats, Floats]:
        """Pointwise limits (low, high) of a metric that is an array: float64[...] each."""
        low, high = _limits(self.rounds[method][metric], self.confidence)
        return low, high

    def _summary(self, value: Floats, rounds: Floats) -> Interval:
        known = rounds[~np.isnan(rounds)]
        undefined = 1 - len(known) / len(rounds)
        low = high = mean = float("nan")
        if len(known):
            mean = float(known.mean())
        if undefined <= (1 - self.confidence) / 2:
            low, high = (float(limit) for limit in _limits(known, self.confidence))
        return Interval(float(value), mean, low, high, undefined)


def plain_intervals(groups: Mapping[str, Mapping[str, Interval]]) -> dict[str, Any]:
    """{group: {metric: {value, low, high}}} for JSON; what does not exist is null."""
    return {
        group: {metric: interval.as_json() for metric, interval in metrics.items()}
        for group, metrics in groups.items()
    }


def flat_intervals(groups: Mapping[str, Mapping[str, Interval]]) -> dict[str, float]:
    """{group.metric: value, group.metric.low: …} for a tracker; what does not exist is left out."""
    found = {}
    for group, metrics in groups.items():
        for metric, interval in metrics.items():
            for end in ("value", "low", "high"):
                if isfinite(number := getattr(interval, end)):
                    found[f"{group}.{metric}{'' if end == 'value' else f'.{end}'}"] = number
    return found


def values(estimator: Estimator, n: int) -> dict[str, Floats]:
    """The metrics on the n rows themselves, each counted once: numbers, or float64[parts]."""
    return {name: rounds[0] for name, rounds in estimator(np.ones((1, n))).items()}


def bootstrap(
    estimators: Mapping[str, Estimator],
    n: int,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Bootstrap:
    """Resample n requests with replacement, or whole `groups` of them (labels [n]: sessions).

    Where sessions are given they are drawn whole, so that requests that depend on each other do not
    pose as independent ones. The same seed gives the same rounds, whatever the estimators.
    Raises BadInput on no rows, on labels of another length, on fewer than two groups, and on a
    confidence outside (0, 1) or too few resamples to show it.
    """
    if n < 1 or not 0 < confidence < 1 or resamples * (1 - confidence) / 2 < 1 - 1e-9:
        raise BadInput(
            f"bootstrap: {n} rows, {resamples} resamples, confidence {confidence}: at least one"
            " row, a confidence inside (0, 1) and 2 / (1 − confidence) resamples are needed"
        )
    member = _members(n, groups)
    units = n if member is None else int(member.max()) + 1
    rng = np.random.default_rng(seed)
    parts: dict[str, dict[str, list[Floats]]] = {method: {} for method in estimators}
    done = 0
    while done < resamples:
        rounds = min(max(1, _CELLS_PER_BLOCK // n), resamples - done)
        counts = _counts(rng, rounds, units)
        weights = counts if member is None else np.take(counts, member, axis=1)
        for method, estimator in estimators.items():
            for metric, result in estimator(weights).items():
                parts[method].setdefault(metric, []).append(result)
        done += rounds
    return Bootstrap(
        value={method: values(estimator, n) for method, estimator in estimators.items()},
        rounds={
            method: {metric: np.concatenate(blocks) for metric, blocks in metrics.items()}
            for method, metrics in parts.items()
        },
        confidence=confidence,
    )


def _members(n: int, groups: ArrayLike | None) -> NDArray[np.int64] | None:
    if groups is None:
        return None
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise BadInput(f"groups: one label per request is needed, {n} of them, not {labels.shape}")
    unique, member = np.unique(labels, return_inverse=True)
    if len(unique) < 2:
        raise BadInput("groups: all requests are of one session; an interval needs at least two")
    return member.astype(np.int64)


def _counts(rng: np.random.Generator, rounds: int, units: int) -> Floats:
    """How often each unit was drawn in `units` draws: float64[rounds, units].

    Row by row, so that the rounds do not depend on the size of the blocks.
    """
    drawn = [np.bincount(rng.integers(units, size=units), minlength=units) for _ in range(rounds)]
    return np.stack(drawn).astype(np.float64)


def _limits(rounds: Floats, confidence: float) -> tuple[Floats, Floats]:
    # Order statistics, not interpolation: a saving may be infinite where the cheap tier is free.
    tail = (1 - confidence) / 2
    low, high = np.quantile(rounds, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high
