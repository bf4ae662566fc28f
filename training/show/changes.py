"""What would change a decision: another dial, other probabilities, other prices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy


@dataclass(frozen=True, slots=True)
class Rival:
    """What it would take for another tier to be chosen, all else as it is.

    Attributes:
        tier: its index.
        dials: the lowest and highest dial at which it wins, or None: at no dial.
        p_own: the rival wins where the chosen tier's probability is below this; None: it never is,
            or a third tier wins first.
        p_rival: or where its own probability is above this; None: not even certainty is enough.
        usd_rival: or where its expected cost is below this, USD; None: not even if it were free.
        usd_own: or where the chosen tier's expected cost is above this; None: at no cost,
            or a third tier wins first.
    """

    tier: int
    dials: tuple[float, float] | None
    p_own: float | None
    p_rival: float | None
    usd_rival: float | None
    usd_own: float | None


def rivals(p: NDArray[np.float64], usd: NDArray[np.float64], policy: Policy) -> tuple[Rival, ...]:
    """Every other tier's way to win, under a policy that has a dial.

    Args:
        p: float64[tiers].
        usd: float64[tiers].
    """
    chosen, mu = int(policy.choose(p[None], usd[None])[0]), policy.mu
    value = p - mu * usd
    runner_up = int(np.argmax(np.where(np.arange(len(p)) == chosen, -inf, value)))
    found = []
    for rival in range(len(p)):
        if rival == chosen:
            continue
        second = rival == runner_up  # no fall of the chosen tier makes any other win
        p_own = value[rival] + mu * usd[chosen] if second else -inf
        p_rival = value[chosen] + mu * usd[rival]
        found.append(
            Rival(
                tier=rival,
                dials=_dials(rival, p, usd),
                p_own=float(p_own) if 0.0 <= p_own <= 1.0 else None,
                p_rival=float(p_rival) if p_rival <= 1.0 else None,
                usd_rival=_cost(float(p[rival] - value[chosen]), mu),
                usd_own=_cost(float(p[chosen] - value[rival]), mu) if second else None,
            )
        )
    return tuple(found)


def _cost(quality: float, mu: float) -> float | None:
    """The cost at which so much quality is just paid for; None where there is none."""
    return quality / mu if mu > 0 and quality > 0 else None


def _dials(
    tier: int, p: NDArray[np.float64], usd: NDArray[np.float64]
) -> tuple[float, float] | None:
    """The dials at which a tier's p − mu · usd is the largest: an interval, as all are lines."""
    low, high = -inf, inf
    for other in range(len(p)):
        gain, extra = float(p[tier] - p[other]), float(usd[tier] - usd[other])
        if extra > 0:
            high = min(high, gain / extra)
        elif extra < 0:
            low = max(low, gain / extra)
        elif gain < 0 or (gain == 0 and other < tier):
            return None
    return (low, high) if low < high else None


def flipping(
    pushes: Mapping[str, NDArray[np.float64]], decide: Callable[[NDArray[np.float64]], float]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which parts carry a decision.

    Args:
        pushes: {part: float64[tiers]}, what it adds to the margins.
        decide: lead of the chosen tier after margins moved by float64[tiers]; below 0 it loses.

    Returns:
        The parts each of which alone carries the decision: without it, another tier would be
        chosen. And, only where there is no such part, the fewest of the strongest parts that carry
        it together; empty if the decision stays even without all of them.
    """
    leads = {name: decide(-push) for name, push in pushes.items()}
    alone = tuple(sorted((name for name in pushes if leads[name] < 0), key=leads.__getitem__))
    if alone:
        return alone, ()
    ordered = sorted(pushes, key=leads.__getitem__)
    for count in range(2, len(ordered) + 1):
        if decide(-np.sum([pushes[name] for name in ordered[:count]], axis=0)) < 0:
            return (), tuple(ordered[:count])
    return (), ()
