"""The dial: what every position of the router's only setting would give on the rows of a report."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.measure.curve import Curve, Floats, Walk
from training.measure.intervals import Bootstrap
from training.measure.limits import rate, share_of_top

POSITIONS = 200


@dataclass(frozen=True, slots=True)
class Dial:
    """g positions along the router's curve, from always-cheapest to always-top.

    Attributes:
        mu: float64[g], +inf first, −inf last.
        cost_usd, quality: float64[g], means per request.
        of_top: float64[g], quality as a share of always-top's.
        share: float64[g, k], of requests to each tier.
        limits: {"cost_usd", "quality", "of_top": (float64[g], float64[g])}, pointwise 95 %.
        chosen: the position of the policy's own setting; None where it is not on the curve.
    """

    mu: Floats
    cost_usd: Floats
    quality: Floats
    of_top: Floats
    share: Floats
    limits: dict[str, tuple[Floats, Floats]]
    chosen: int | None


def positions(walk: Walk, step: int | None) -> NDArray[np.int64]:
    """States to show: spread evenly over the walk, with the chosen one among them; int64[g]."""
    even = np.linspace(0, len(walk.mu), POSITIONS).astype(np.int64)
    return np.unique(even if step is None else np.append(even, step))


def step_of(walk: Walk, mu: float, constant: int | None) -> int | None:
    """The state of the walk that a policy is in; None for a tier between the ends, constant."""
    if constant is None:
        return int((walk.mu > mu).sum())
    return {0: 0, walk.tiers - 1: len(walk.mu)}.get(constant)


def read_dial(
    walk: Walk,
    curve: Curve,
    at: NDArray[np.int64],
    step: int | None,
    drawn: Bootstrap,
    method: str,
    score: Floats,
    session: NDArray[np.int64],
) -> Dial:
    """Gather positions of the curve with their limits.

    Args:
        walk: of n requests and k tiers.
        curve: what it did.
        at: int64[m], states of the walk.
        step: the state of the operating point, None off the walk.
        drawn: rounds of `training.measure.metrics.states`.
        method: its name there.
        score: float64[n, k].
        session: int64[n].
    """
    quality = curve.quality[at]
    top = curve.quality[-1]
    limits = {"cost_usd": drawn.band(method, "cost_usd")}
    limits |= {name: (np.empty(len(at)), np.empty(len(at))) for name in ("quality", "of_top")}
    for j, state in enumerate(at):
        own = score[np.arange(walk.n), walk.tiers_at(int(state))]
        kept = drawn.entry(method, j)["of_top"]
        if top > 0 and state < len(walk.mu):
            kept = share_of_top(kept, own, score[:, -1], session)
        for name, found in (("quality", rate(own, session)), ("of_top", kept)):
            limits[name][0][j], limits[name][1][j] = found.low, found.high
    return Dial(
        mu=np.array([walk.dial(int(state)) for state in at]),
        cost_usd=curve.cost_usd[at],
        quality=quality,
        of_top=quality / top if top > 0 else np.full(len(at), np.nan),
        share=curve.share[at],
        limits=limits,
        chosen=None if step is None else int(np.searchsorted(at, step)),
    )
