"""The cost–quality curve: every mix of tiers that one dial can choose, in the order it is reached.

A *walk* is a decision rule alone: in which order requests leave the cheapest tier as the dial is
turned, until every request is with the top tier. A *curve* is what a walk did to outcomes.

Arrays have one row per request and one column per tier, cheapest first; the last is the top tier.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.errors import BadInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Walk:
    """Moves of single requests between tiers, from always-cheapest to always-top.

    Every request begins with tier 0 and ends with tier `tiers - 1`. Moves whose dial value is
    equal belong to one step: no threshold can separate them, so they happen together.

    request, before, after: int64[m], who moves, from which tier, to which.
    mu: float64[s - 1], descending, the dial value of each step (for `order_walk` the score).
    ends: int64[s - 1], how many moves have been made when the step is complete.
    """

    n: int
    tiers: int
    request: Ints
    before: Ints
    after: Ints
    mu: Floats
    ends: Ints

    def deltas(self, values: Floats) -> Floats:
        """By how much each move changes the sum of `values` (float64[n, k]): float64[m]."""
        change: Floats = values[self.request, self.after] - values[self.request, self.before]
        return change

    def dial(self, step: int) -> float:
        """A μ well inside the range that gives state `step` of the curve (0 … s - 1).

        A breakpoint itself is a tie that rounding could decide either way; this is not. The two
        ends are +inf (always-cheapest) and -inf (always-top).
        """
        if step <= 0:
            return float("inf")
        if step >= len(self.mu):
            return float("-inf")
        above, below = float(self.mu[step - 1]), float(self.mu[step])
        if np.isinf(above):
            return 2 * abs(below) + 1 if np.isfinite(below) else 0.0
        return (above + below) / 2 if np.isfinite(below) else -2 * abs(above) - 1

    def tiers_at(self, step: int) -> Ints:
        """The tier of every request at state `step`: int64[n]."""
        tier = np.zeros(self.n, dtype=np.int64)
        made = self.ends[step - 1] if step else 0
        # A request moves to dearer and dearer tiers in walk order, so its last move is what counts.
        tier[self.request[:made]] = self.after[:made]
        return tier


@dataclass(frozen=True, slots=True)
class Curve:
    """Means over requests at each of the s states of a walk; state 0 is always-cheapest.

    mu: float64[s], +inf first; state j is chosen by any μ between mu[j + 1] and mu[j] (exclusive).
    quality: float64[s], mean score. cost_usd: float64[s], mean USD per request.
    share: float64[s, k], share of requests sent to each tier.
    """

    mu: Floats
    quality: Floats
    cost_usd: Floats
    share: Floats


@dataclass(frozen=True, slots=True)
class Point:
    """What one policy comes to: mean USD per request, mean score, and its label in a picture."""

    cost_usd: float
    quality: float
    label: str


def policy_walk(p: ArrayLike, expected_cost: ArrayLike) -> Walk:
    """Walk of the policy family tier = argmax_t p[:, t] − μ · expected_cost[:, t].

    p: float64[n, k], P(tier suffices); expected_cost: float64[n, k], USD, known before the call.
    As μ falls from +∞ to −∞ a request climbs the upper concave hull of its points
    (expected_cost, p); the slopes of that hull are the dial values, exactly. With two tiers that
    is the order of (p_top − p_cheap) / (cost_top − cost_cheap), requests with a negative gain
    included. Of tiers that cost the same, the one likelier to suffice is used, then the first. At
    a breakpoint all requests tied there move together, each to the dearest of its tied tiers. The
    walk begins with everything in tier 0 and ends with everything in the top tier, also where the
    expected costs of a request are not in tier order: such requests are moved in the first
    (μ = +inf) or in the last step (μ = −inf). O(n·k² + m log m) for m ≤ n·(k + 1) moves.
    Raises BadInput on other shapes and on values that are not finite.
    """
    p = matrix("p", p)
    dear = matrix("expected_cost", expected_cost, like=p)
    n, k = p.shape
    rows = np.arange(n)
    moves = list(_climbs(p, dear))
    last = np.zeros(n, dtype=np.int64)
    for request, _, after, _ in moves:
        last[request] = after
    left = rows[last != k - 1]
    moves.append((left, last[left], np.full(len(left), k - 1), np.full(len(left), -np.inf)))
    request, before, after, mu = (np.concatenate(part) for part in zip(*moves, strict=True))
    return _in_order(n, k, (request, before, after), mu)


def order_walk(order: ArrayLike, tiers: int = 2) -> Walk:
    """Walk in which requests go from tier 0 to the top one by descending `order` (float64[n]).

    For scores that order prompts and name no tier: the expected gain between two tiers, or a
    baseline such as prompt length, by which no request goes to a tier between. Requests with equal
    scores move together. Raises BadInput unless the scores are finite and one-dimensional.
    """
    score = np.asarray(order, dtype=np.float64)
    if score.ndim != 1 or not len(score) or not np.isfinite(score).all():
        raise BadInput(f"order: finite scores of shape [n] are needed, not {_describe(score)}")
    n = len(score)
    cheapest, top = np.zeros(n, dtype=np.int64), np.full(n, tiers - 1)
    return _in_order(n, tiers, (np.arange(n), cheapest, top), score)


def oracle_walk(quality: ArrayLike, cost: ArrayLike) -> Walk:
    """Walk of an oracle that knows every outcome and bill: no policy's hull lies above its own."""
    return policy_walk(quality, cost)


def trace(walk: Walk, quality: ArrayLike, cost: ArrayLike) -> Curve:
    """What the walk did: means of quality and cost (float64[n, k]) and shares at every state."""
    quality = matrix("quality", quality, shape=(walk.n, walk.tiers))
    cost = matrix("cost", cost, like=quality, nonnegative=True)
    shares = [_path(walk, np.eye(walk.tiers)[[t]].repeat(walk.n, 0)) for t in range(walk.tiers)]
    return Curve(
        mu=np.concatenate([[np.inf], walk.mu]),
        quality=_path(walk, quality),
        cost_usd=_path(walk, cost),
        share=np.stack(shares, axis=1),
    )


def matrix(
    name: str,
    values: ArrayLike,
    *,
    like: Floats | None = None,
    shape: tuple[int, int] | None = None,
    nonnegative: bool = False,
) -> Floats:
    """`values` as a checked float64[n, k] with n ≥ 1 and k ≥ 2; BadInput names what is wrong."""
    array = np.asarray(values, dtype=np.float64)
    wanted = like.shape if like is not None else shape
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise BadInput(f"{name}: shape [requests, tiers ≥ 2] is needed, not {array.shape}")
    if wanted is not None and array.shape != wanted:
        raise BadInput(f"{name}: shape {array.shape} does not fit {wanted} of the other arrays")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise BadInput(f"{name}: row {row}, tier {column} is {array[row, column]}, not a number")
    if nonnegative and (array < 0).any():
        row, column = np.argwhere(array < 0)[0]
        raise BadInput(f"{name}: row {row}, tier {column} is {array[row, column]}, below zero")
    return array


def _climbs(p: Floats, dear: Floats) -> Iterator[tuple[Ints, Ints, Ints, Floats]]:
    """Each request's walk along its own upper hull: (request, before, after, mu) per round."""
    n, k = p.shape
    rows = np.arange(n)
    # Cheapest first, then likeliest, then by position: the choice as μ → +∞.
    cheapest = dear == dear.min(axis=1, keepdims=True)
    at = np.where(cheapest, p, -np.inf).argmax(axis=1)
    moved = np.flatnonzero(at != 0)
    yield moved, np.zeros(len(moved), dtype=np.int64), at[moved], np.full(len(moved), np.inf)
    reached = np.full(n, np.inf)
    for _ in range(k - 1):
        extra = dear - dear[rows, at][:, None]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slope = (p - p[rows, at][:, None]) / extra
        slope = np.where(extra > 0, slope, -np.inf)
        best = slope.max(axis=1)
        # Of tiers on one line the dearest, of equally dear ones the likeliest (same slope).
        to = np.where((slope == best[:, None]) & (extra > 0), dear, -np.inf).argmax(axis=1)
        moved = np.flatnonzero((extra > 0).any(axis=1))
        if not len(moved):
            return
        # A hull is concave; rounding must not make a later move come first.
        reached[moved] = np.minimum(best, reached)[moved]
        yield moved, at[moved], to[moved], reached[moved]
        at[moved] = to[moved]


def _in_order(n: int, k: int, moves: tuple[Ints, Ints, Ints], mu: Floats) -> Walk:
    # Stable, so that the moves of one request at one dial value keep their order.
    by_dial = np.argsort(-mu, kind="stable")
    request, before, after = (part[by_dial] for part in moves)
    mu = mu[by_dial]
    ends = np.append(np.flatnonzero(mu[1:] != mu[:-1]) + 1, len(mu)).astype(np.int64)
    return Walk(n, k, request, before, after, mu[ends - 1], ends)


def _path(walk: Walk, values: Floats) -> Floats:
    """Mean of `values` (float64[n, k]) over requests at every state: float64[s]."""
    moved = np.cumsum(walk.deltas(values))[walk.ends - 1]
    sums = values[:, 0].sum() + np.concatenate([[0.0], moved])
    sums[-1] = values[:, -1].sum()  # exactly always-top, not what rounding left of it
    mean: Floats = sums / walk.n
    return mean


def _describe(array: Floats) -> str:
    return f"shape {array.shape}" + ("" if np.isfinite(array).all() else " with NaN or infinity")
