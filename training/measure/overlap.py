"""Where a log can speak of a policy: how often each tier was tried, by the predicted gain.

Where a tier was never tried on a kind of prompt, no estimator knows what it would have done there;
the answer is then a refusal that names the exploration needed, never a number.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import BadInput
from training.measure.offpolicy import (
    Logged,
    always,
    interval,
    largest_weight,
    pseudo_outcomes,
)

PARTS = 10
PART_ROWS = 100  # a part has at least so many requests, or there are fewer parts
ALMOST_NEVER = 0.005  # a tier tried on less than this share of a part counts as never tried there
EXPLORE = 0.05  # the least exploration to ask for: below it a single answer weighs over 20
ANSWERS = 10  # the exploration asked for gives so many answers in each part
TOLERATED = 0.01  # share of a policy's traffic on which the heads' estimate may stand alone
TOLERATED_WEIGHT = 0.25  # mean weights may exceed 1 by this, as labels may be missing
SURELY = 0.999  # confidence that they exceed 1, before a log is refused


@dataclass(frozen=True, slots=True)
class Overlap:
    """n requests cut into d equal parts by the predicted gain of the top over the cheapest tier.

    Attributes:
        part: int64[n], the part of each request, by rising gain.
        gain: float64[d + 1], the parts' edges.
        rows: int64[d].
        share: float64[d, k], share of the part's requests on which each tier was observed.
        smallest: float64[d], the smallest propensity among the part's answers, NaN where none.
        effective: float64[d, k], what the part's weighted answers of each tier are worth in rows.
        supported: bool[n, k]: the tier had a chance on the request, and was tried in its part.
    """

    part: NDArray[np.int64]
    gain: NDArray[np.float64]
    rows: NDArray[np.int64]
    share: NDArray[np.float64]
    smallest: NDArray[np.float64]
    effective: NDArray[np.float64]
    supported: NDArray[np.bool_]

    def as_json(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """One object per part, by rising gain."""
        return [
            {
                "gain": [float(self.gain[d]), float(self.gain[d + 1])],
                "rows": int(self.rows[d]),
                "share": dict(zip(names, self.share[d].tolist(), strict=True)),
                "effective_rows": dict(zip(names, self.effective[d].tolist(), strict=True)),
                "smallest_propensity": None if np.isnan(self.smallest[d]) else self.smallest[d],
            }
            for d in range(len(self.rows))
        ]


def measure_overlap(logged: Logged, p: NDArray[np.float64]) -> Overlap:
    """Count who was tried where.

    Args:
        logged: n requests.
        p: float64[n, k], the heads' estimates, which never looked at who answered.
    """
    n, k = logged.score.shape
    parts = int(np.clip(n // PART_ROWS, 1, PARTS))
    gain = p[:, -1] - p[:, 0]
    order = np.argsort(gain, kind="stable")
    part = np.empty(n, dtype=np.int64)
    part[order] = np.arange(n) * parts // n
    rows = np.bincount(part, minlength=parts)
    weight = logged.weight
    seen = weight > 0

    def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([np.bincount(part, values[:, t], parts) for t in range(k)], axis=1)

    share = sums(seen.astype(np.float64)) / rows[:, None]
    squares = sums(weight**2)
    effective = np.divide(sums(weight) ** 2, squares, np.zeros_like(squares), where=squares > 0)
    asked = np.where(seen, logged.propensity, np.nan)
    smallest = np.array([_least(asked[part == d]) for d in range(parts)])
    tried = share >= ALMOST_NEVER
    supported = seen | (logged.possible & tried[part])
    starts = np.concatenate([[0], np.cumsum(rows)])
    edges = np.append(gain[order[starts[:-1]]], gain[order[-1]])
    return Overlap(part, edges, rows, share, smallest, effective, supported)


def unsupported_share(overlap: Overlap, policy: NDArray[np.float64]) -> float:
    """Share of the policy's traffic (float64[n, k]) that goes where the log cannot speak."""
    return float((policy * ~overlap.supported).sum(axis=1).mean())


def require_support(
    overlap: Overlap, policy: NDArray[np.float64], names: tuple[str, ...], who: str
) -> None:
    """Refuse to value a policy, float64[n, k], that sends traffic where its tier was never tried.

    Raises:
        BadInput: names the tier, the prompts and the exploration that would be needed.
    """
    lost = policy * ~overlap.supported
    if lost.sum(axis=1).mean() <= TOLERATED:
        return
    tier = int(lost.sum(axis=0).argmax())
    where = np.unique(overlap.part[lost[:, tier] > 0])
    rate = _needed_exploration(overlap, where)
    low, high = overlap.gain[where[0]], overlap.gain[where[-1] + 1]
    tried = float((overlap.share[where, tier] * overlap.rows[where]).sum())
    raise BadInput(
        f"{who} sends {lost[:, tier].mean():.0%} of these requests to tier {names[tier]!r} where "
        "the log never, or almost never, tried it (or chose another tier with propensity 1): "
        f"predicted gains from {low:+.3f} to {high:+.3f}, {int(overlap.rows[where].sum())} "
        f"requests, {tried:.0f} answered by {names[tier]!r}. What it would have done there is not "
        f"known. Explore: send at least {rate:.0%} of such prompts to {names[tier]!r} at random "
        "and log the propensity, or replay some of them on it; then evaluate on that traffic"
    )


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Doubly robust scores by which a policy can be certified.

    Attributes:
        score: float64[n, k]; 0 where a cheaper tier was never tried.
        low, high: their range.
        notes: what was never tried, in words.
    """

    score: NDArray[np.float64]
    low: float
    high: float
    notes: tuple[str, ...]


def certifiable(logged: Logged, p: NDArray[np.float64], names: tuple[str, ...]) -> Outcomes:
    """Pseudo-outcomes that flatter no policy: a cheaper tier scores 0 where it was never tried.

    Args:
        logged: n requests.
        p: float64[n, k], estimates of heads that did not see them.
        names: of the tiers.

    Raises:
        BadInput: the propensities do not fit the log; or the top tier, which every promise compares
            with, was never tried somewhere, or a cheaper tier nowhere: the message names the
            exploration needed.
    """
    n, k = p.shape
    _check_weights(logged, names)
    overlap = measure_overlap(logged, p)
    require_support(overlap, always(k - 1, n, k), names, "always-top, the yardstick of a promise,")
    notes = []
    for tier, name in enumerate(names[:-1]):
        lost = unsupported_share(overlap, always(tier, n, k))
        if lost > 1.0 - TOLERATED:
            require_support(overlap, always(tier, n, k), names, "a router with this tier")
        if lost > 0:
            notes.append(
                f"{name}: never, or almost never, tried on {lost:.1%} of the choose rows; there "
                "it counts as failing, so that the promise holds all the same"
            )
    score = pseudo_outcomes(logged, p)
    score[:, :-1][~overlap.supported[:, :-1]] = 0.0
    largest = largest_weight(logged)
    return Outcomes(score, 1.0 - largest, largest, tuple(notes))


def _check_weights(logged: Logged, names: tuple[str, ...]) -> None:
    """Refuse propensities that are shown to be too small.

    The weights 1/propensity of a tier's answers, 0 on all other rows, must average 1 at most.
    """
    for tier, name in enumerate(names):
        found = interval(logged.weight[:, tier], logged.session, SURELY)
        if found.low > 1.0 and found.value > 1.0 + TOLERATED_WEIGHT:
            raise BadInput(
                "column propensity: it does not fit the log. The weights 1/propensity of the rows "
                f"that {name!r} answered add up to {found.value:.2f} of all rows ({SURELY:.1%} "
                f"limits {found.low:.2f} and {found.high:.2f}), which cannot be above 1. Either "
                "it is not the chance with which the tier that answered was chosen (but that of "
                "another), or answers of other tiers are missing far more often (failed, or never "
                "labelled); until that is put right no promise can rest on this log"
            )


def _needed_exploration(overlap: Overlap, parts: NDArray[np.int64]) -> float:
    """Share of the prompts of these parts, int64[m], to explore, so that the log can speak."""
    return float(np.clip(ANSWERS / overlap.rows[parts].min(), EXPLORE, 0.5))


def _least(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.min()) if len(known) else float("nan")
