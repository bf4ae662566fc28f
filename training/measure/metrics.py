"""What a router is worth, by definition (DESIGN: metrics), each as an estimator for `intervals`.

PGR, APGR and CPT follow RouteLLM (Ong et al., arXiv 2406.18665), AIQ follows RouterBench (Hu et
al., arXiv 2403.12031). Everything is exact: every threshold is visited, nothing is read off a
grid. `quality` and `cost` are float64[n, k]: observed scores and USD as billed, one column per
tier, cheapest first. Where a figure does not exist it is NaN, and `undefined` says why.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from training.errors import BadInput
from training.measure.curve import Floats, Ints, Walk, matrix
from training.measure.intervals import Estimator

PARITIES = (1.00, 0.99, 0.95)
RECOVERIES = (0.20, 0.50, 0.80)
_ROUNDING = 1e-12  # a mean of scores that differs by less is the same mean


def curve_metrics(walk: Walk, quality: ArrayLike, cost: ArrayLike) -> Estimator:
    """Metrics of a whole curve, for the rounds of a bootstrap.

    With q the mean quality, c the share sent to the top tier, u the mean USD per request:
    - `apgr`: area under PGR = (q − q_cheap) / (q_top − q_cheap) over c ∈ [0, 1], trapezoids between
      all states; two tiers only. Inside a tie that is what breaking it at random would give.
    - `apgr_cost`: the same over (u − u_cheap) / (u_top − u_cheap), any number of tiers.
    - `cpt_20`, `cpt_50`, `cpt_80`: smallest c of a state whose PGR is at least that; `…_cost`: the
      same in normalised cost.
    - `saving_100`, `saving_99`, `saving_95`: u_top / u of the cheapest state with q ≥ r · q_top.
      Read off on the rows it is judged by, so optimistic: see `policy_metrics` for a fixed choice.
    - `aiq`: area under the non-decreasing concave hull of (u, q) over [u_cheap, u_top], divided by
      that range, the same for every method.
    """
    quality, cost = _outcomes(quality, cost, walk.n, walk.tiers)
    top = walk.tiers - 1
    moves = (walk.deltas(quality), walk.deltas(cost))
    to_top = (walk.after == top).astype(np.float64) - (walk.before == top)
    ends = walk.ends
    # Along a path that never falls, the least allowed value is the first: no need to look on.
    c_rises, u_rises = bool((to_top >= 0).all()), bool((moves[1] >= 0).all())
    free = _ROUNDING * cost.max()  # less than this is what adding and subtracting left of zero

    def estimate(weights: Floats) -> dict[str, Floats]:
        moved = np.take(weights, walk.request, axis=1)
        mass = weights.sum(axis=1, keepdims=True)
        q = _along(moved, moves[0], ends, weights @ quality[:, [0, top]]) / mass
        u = _along(moved, moves[1], ends, weights @ cost[:, [0, top]]) / mass
        c = _along(moved, to_top, ends, mass * [[0.0, 1.0]]) / mass
        recovered = _normalised(q)
        spent = _normalised(u)
        found = {"apgr": _area(c, recovered), "apgr_cost": _area(spent, recovered)}
        if walk.tiers > 2:
            found["apgr"] = np.full(len(q), np.nan)
        for x in RECOVERIES:
            enough = recovered >= x - _ROUNDING
            found[f"cpt_{100 * x:.0f}"] = _least(c, enough, c_rises)
            found[f"cpt_{100 * x:.0f}_cost"] = _least(spent, enough, u_rises)
        for r in PARITIES:
            cheapest = _least(u, q >= r * q[:, -1:] - _ROUNDING, u_rises)
            cheapest[cheapest <= free] = 0.0
            found[f"saving_{100 * r:.0f}"] = _ratio(u[:, -1], cheapest)
        found["aiq"] = np.array([aiq(*state) for state in zip(u, q, strict=True)])
        return found

    return estimate


def random_metrics(quality: ArrayLike, cost: ArrayLike) -> Estimator:
    """The metrics of `curve_metrics` for a coin: each request goes to the top with probability c.

    In expectation: a straight line from always-cheapest to always-top.
    """
    quality = matrix("quality", quality)
    quality, cost = _outcomes(quality, cost, *quality.shape)
    ends = [0, quality.shape[1] - 1]

    def estimate(weights: Floats) -> dict[str, Floats]:
        mass = weights.sum(axis=1, keepdims=True)
        q, u = weights @ quality[:, ends] / mass, weights @ cost[:, ends] / mass
        gap, spread = _above(q[:, 1], q[:, 0]), _above(u[:, 1], u[:, 0])
        found = {
            "apgr": np.where(gap, 0.5, np.nan),
            "apgr_cost": np.where(gap & spread, 0.5, np.nan),
        }
        for x in RECOVERIES:
            found[f"cpt_{100 * x:.0f}"] = np.where(gap, x, np.nan)
            found[f"cpt_{100 * x:.0f}_cost"] = np.where(gap & spread, x, np.nan)
        for r in PARITIES:
            need = r * q[:, 1] - q[:, 0]
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(need <= _ROUNDING, 0.0, need / (q[:, 1] - q[:, 0]))
            cheapest = np.minimum(u[:, 0] + share * (u[:, 1] - u[:, 0]), u[:, 1])
            cheapest = np.where(need <= _ROUNDING, u.min(axis=1), cheapest)
            found[f"saving_{100 * r:.0f}"] = _ratio(u[:, 1], cheapest)
        found["aiq"] = np.where(spread, (q[:, 0] + np.maximum(q[:, 1], q[:, 0])) / 2, np.nan)
        return found

    return estimate


def policy_metrics(
    tier: ArrayLike,
    quality: ArrayLike,
    cost: ArrayLike,
    suffices: ArrayLike | None = None,
) -> Estimator:
    """Metrics of one fixed choice of tiers (int[n]), made elsewhere: nothing is chosen here.

    `quality`, `cost_usd` (means), `quality_of_top` (ratio to always-top), `pgr`, `saving` (cost of
    always-top / its own), `share_<t>` for every tier t, `above_random` (mean quality minus that of
    matched random: the same share to each tier, drawn blindly), and `bad_downgrade` (sent to a
    cheaper tier ∧ that tier failed ∧ the top would have sufficed, over all traffic).
    suffices: bool[n, k]; by default score ≥ 0.5.
    """
    quality = matrix("quality", quality)
    n, k = quality.shape
    quality, cost = _outcomes(quality, cost, n, k)
    tier = _tiers(tier, n, k)
    bad = bad_downgrades(tier, sufficed(quality) if suffices is None else suffices)
    rows = np.arange(n)
    sent = np.eye(k)[tier]
    columns = np.column_stack([quality[rows, tier], cost[rows, tier], bad])

    def estimate(weights: Floats) -> dict[str, Floats]:
        mass = weights.sum(axis=1, keepdims=True)
        own, spent, downgraded = (weights @ columns / mass).T
        q, u = weights @ quality / mass, weights @ cost / mass
        share = weights @ sent / mass
        with np.errstate(divide="ignore", invalid="ignore"):
            pgr = (own - q[:, 0]) / (q[:, -1] - q[:, 0])
            pgr[~_above(q[:, -1], q[:, 0])] = np.nan
        return {
            "quality": own,
            "cost_usd": spent,
            "quality_of_top": _ratio(own, q[:, -1]),
            "pgr": pgr,
            "saving": _ratio(u[:, -1], spent),
            "above_random": own - (share * q).sum(axis=1),
            "bad_downgrade": downgraded,
        } | {f"share_{t}": share[:, t] for t in range(k)}

    return estimate


def states(walk: Walk, quality: ArrayLike, cost: ArrayLike, at: Ints) -> Estimator:
    """Means at the states `at` (int[g]) of a walk, for bands: float64[r, g] each.

    `quality`, `cost_usd`, and `of_top`, the quality as a share of always-top's.
    """
    quality, cost = _outcomes(quality, cost, walk.n, walk.tiers)
    moves = {"quality": (walk.deltas(quality), quality), "cost_usd": (walk.deltas(cost), cost)}

    def estimate(weights: Floats) -> dict[str, Floats]:
        moved = np.take(weights, walk.request, axis=1)
        mass = weights.sum(axis=1, keepdims=True)
        found = {
            name: _along(moved, change, walk.ends, weights @ values[:, [0, -1]])[:, at] / mass
            for name, (change, values) in moves.items()
        }
        return found | {"of_top": _ratio(found["quality"], weights @ quality[:, -1:] / mass)}

    return estimate


def aiq(cost: Floats, quality: Floats) -> float:
    """Average quality under the non-decreasing concave hull of the states of one curve.

    cost, quality: float64[s], the first state always-cheapest, the last always-top: they bound
    the range, so that methods on the same rows are averaged over the same dollars. NaN if
    always-top is not dearer. The least concave majorant has the slopes that antitonic regression
    of the chords' slopes gives (Barlow et al., 1972), which SciPy does in linear time.
    """
    low, high = cost[0], cost[-1]
    if not _above(high, low):
        return float("nan")
    by_cost = np.argsort(cost, kind="stable")
    x, best = cost[by_cost], np.maximum.accumulate(quality[by_cost])
    # Only a record can be a corner: the hull never falls, and is flat after the last record.
    record = np.append(True, best[1:] > best[:-1])
    x, best = x[record], best[record]
    last = np.append(x[1:] > x[:-1], True)
    x, best = x[last], best[last]
    if len(x) == 1:
        return float(best[0])
    width = np.diff(x)
    with np.errstate(over="ignore"):
        chords = np.minimum(np.diff(best) / width, np.finfo(float).max / len(x))
    slopes = isotonic_regression(chords, weights=width, increasing=False).x
    hull = best[0] + np.concatenate([[0.0], np.cumsum(slopes * width)])
    inside = np.clip(np.append(x, high), low, high)
    return float(np.trapezoid(np.interp(inside, x, hull), inside) / (high - low))


def sufficed(quality: ArrayLike) -> NDArray[np.bool_]:
    """Whether each score is at least 0.5: bool[n, k]."""
    return matrix("quality", quality) >= 0.5


def bad_downgrades(tier: ArrayLike, suffices: ArrayLike) -> NDArray[np.bool_]:
    """Requests sent to a cheaper tier which failed where the top would have sufficed: bool[n]."""
    good = np.asarray(suffices)
    if good.ndim != 2 or good.dtype != np.bool_:
        raise BadInput(f"suffices: bool [requests, tiers] is needed, not {good.dtype} {good.shape}")
    chosen = _tiers(tier, *good.shape)
    bad: NDArray[np.bool_] = ~good[np.arange(len(good)), chosen] & good[:, -1]
    return bad


def best_constant(quality: ArrayLike, cost: ArrayLike, parity: float = 1.0) -> int:
    """The cheapest single tier whose mean quality is at least `parity` × the top tier's."""
    quality = matrix("quality", quality)
    quality, cost = _outcomes(quality, cost, *quality.shape)
    q, u = quality.mean(axis=0), cost.mean(axis=0)
    return int(np.where(q >= parity * q[-1] - _ROUNDING, u, np.inf).argmin())


def undefined(quality: ArrayLike, cost: ArrayLike) -> dict[str, str]:
    """Which metrics do not exist on these rows, and why, in words: {metric or family: reason}."""
    quality = matrix("quality", quality)
    quality, cost = _outcomes(quality, cost, *quality.shape)
    q, u = quality.mean(axis=0), cost.mean(axis=0)
    reasons = {}
    if quality.shape[1] > 2:
        reasons["apgr"] = (
            "the share sent to the top orders mixes of two tiers only; by cost it is known"
        )
    if not _above(q[-1], q[0]):
        reasons["pgr, apgr, apgr_cost, cpt"] = (
            f"always-top ({q[-1]:.4f}) is not better than always-cheapest ({q[0]:.4f}) here:"
            " there is no gap to recover"
        )
    if not _above(u[-1], u[0]):
        reasons["apgr_cost, cpt_cost, aiq"] = (
            f"always-top ({u[-1]:.3g} USD) is not dearer than always-cheapest ({u[0]:.3g} USD)"
        )
    if not u[-1] > 0:
        reasons["saving"] = "always-top costs nothing, so nothing can be saved"
    return reasons


def _outcomes(quality: ArrayLike, cost: ArrayLike, n: int, k: int) -> tuple[Floats, Floats]:
    q = matrix("quality", quality, shape=(n, k))
    return q, matrix("cost", cost, like=q, nonnegative=True)


def _tiers(tier: ArrayLike, n: int, k: int) -> Ints:
    chosen = np.asarray(tier)
    if chosen.shape != (n,) or chosen.dtype.kind not in "iu":
        raise BadInput(f"tier: whole numbers, one for each of {n} requests, are needed")
    if (chosen < 0).any() or (chosen >= k).any():
        raise BadInput(f"tier: {chosen.min()} … {chosen.max()} is not inside 0 … {k - 1}")
    return chosen.astype(np.int64)


def _along(moved: Floats, change: Floats, ends: Ints, bounds: Floats) -> Floats:
    """Weighted sums at every state: float64[r, s]; `bounds` (float64[r, 2]) are the exact ends."""
    path = np.empty((moved.shape[0], moved.shape[1] + 1))
    path[:, 0] = bounds[:, 0]
    np.multiply(moved, change, out=path[:, 1:])
    np.cumsum(path, axis=1, out=path)
    if len(ends) < len(change):
        path = path[:, np.append(0, ends)]
    path[:, -1] = bounds[:, 1]
    return path


def _above(high: ArrayLike, low: ArrayLike) -> NDArray[np.bool_]:
    """Whether one mean exceeds another by more than rounding can explain."""
    high, low = np.asarray(high), np.asarray(low)
    above: NDArray[np.bool_] = high - low > _ROUNDING * np.abs(high)
    return above


def _normalised(path: Floats) -> Floats:
    """0 at always-cheapest, 1 at always-top; NaN where the top is not above (float64[r, s])."""
    gap = path[:, -1:] - path[:, :1]
    above = path - path[:, :1]
    above /= np.where(_above(path[:, -1:], path[:, :1]), gap, np.nan)
    return above


def _area(x: Floats, y: Floats) -> Floats:
    """Trapezoids under each round's path: float64[r]."""
    area: Floats = np.einsum("ij,ij->i", np.diff(x, axis=1), y[:, 1:] + y[:, :-1]) / 2
    return area


def _least(path: Floats, allowed: NDArray[np.bool_], rises: bool) -> Floats:
    """The least value of allowed states per round; NaN where none is (float64[r])."""
    rows = np.arange(len(path))
    at = allowed.argmax(axis=1) if rises else np.where(allowed, path, np.inf).argmin(axis=1)
    least: Floats = np.where(allowed[rows, at], path[rows, at], np.nan)
    return least


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below; something over nothing is infinite, nothing over nothing is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.divide(above, below)
    return ratio
