"""The dial: what every position of the router's only setting would give on the rows of a report."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.measure.curve import Curve, Floats, Walk
from training.measure.intervals import Bootstrap
from training.measure.limits import rate, share_of_top

POSITIONS = 200
DIAL = "dial"  # name of the resampled positions in a `Bootstrap`


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
    """The state of the walk at which a policy stands; None where it is no state of the walk.

    That is so where the policy always takes a tier between the cheapest and the top one.
    """
    if constant is None:
        return int((walk.mu > mu).sum())
    return {0: 0, walk.tiers - 1: len(walk.mu)}.get(constant)


def read_dial(
    walk: Walk,
    curve: Curve,
    at: NDArray[np.int64],
    step: int | None,
    drawn: Bootstrap,
    score: Floats,
    session: NDArray[np.int64],
) -> Dial:
    """Figures of the dial at some states of the router's walk, with their limits.

    Args:
        walk: the router's, of n requests and k tiers.
        curve: what it comes to on these.
        at: int64[m], states of the walk.
        step: the operating point's state, see `step_of`.
        drawn: with rounds of `training.measure.metrics.states` at `at`, under the name `DIAL`.
        score: float64[n, k].
        session: int64[n].
    """
    quality = curve.quality[at]
    top = curve.quality[-1]
    limits = {"cost_usd": drawn.band(DIAL, "cost_usd")}
    limits |= {name: (np.empty(len(at)), np.empty(len(at))) for name in ("quality", "of_top")}
    for j, state in enumerate(at):
        own = score[np.arange(walk.n), walk.tiers_at(int(state))]
        kept = drawn.entry(DIAL, j)["of_top"]
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
