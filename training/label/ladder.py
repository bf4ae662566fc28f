"""Which tier stands above which: what an escalation is measured by.

For each pair the first of these that knows decides: the tiers file; what a token cost in the log,
where one tier's price is at least 1.5 times the other's; the words for sizes in the names of two
models of one family (gpt-4o-mini under gpt-4o, llama-8b under llama-70b). A pair that none of them
knows is not ordered, and nothing between the two is an escalation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.tier import Tier
from training.log.models import plain_model

PRICE_RATIO = 1.5
_SIZES = {
    **dict.fromkeys(("nano", "tiny"), 0.0),
    **dict.fromkeys(("mini", "small", "lite", "flash", "haiku"), 1.0),
    **dict.fromkeys(("medium", "turbo", "sonnet"), 2.0),
    **dict.fromkeys(("large", "pro", "plus", "opus", "ultra", "max"), 4.0),
}
_PLAIN_SIZE = 3.0  # of a name without such a word: gpt-4o
_BILLIONS = re.compile(r"\d+(?:\.\d+)?b")


@dataclass(frozen=True, slots=True)
class Answerer:
    """Who answered a row: its tier and its model, either may be unknown."""

    tier: str | None
    model: str | None

    @property
    def name(self) -> str:
        return self.tier or plain_model(self.model or "")


@dataclass(frozen=True, slots=True)
class Ladder:
    """above: bool[m, m], true where column j stands above row i; how: what was decided by what."""

    above: NDArray[np.bool_]
    how: str


def build_ladder(
    answerers: Sequence[Answerer], usd_per_token: Sequence[float], tiers: Sequence[Tier] = ()
) -> Ladder:
    """The order of those who answered.

    Args:
        answerers: m of them.
        usd_per_token: mean price of each in the log; 0 or NaN where it is not known.
        tiers: of a tiers file, cheapest first.
    """
    places = _places(tiers)
    ranks = [_rank(answerer, places) for answerer in answerers]
    above = np.zeros((len(answerers), len(answerers)), dtype=bool)
    told: dict[str, str] = {}
    for i, low in enumerate(answerers):
        for j, high in enumerate(answerers):
            if low.name == high.name and (ranks[i] is None or ranks[j] is None):
                continue
            up, by = _is_above(ranks[i], ranks[j], usd_per_token[i], usd_per_token[j], low, high)
            above[i, j] = up
            if up:
                told.setdefault(f"{low.name} < {high.name}", by)
    parts = [f"{pair} ({by})" for pair, by in told.items()]
    return Ladder(above, ", ".join(parts) or "none known: give --tiers")


def _is_above(
    low_rank: int | None,
    high_rank: int | None,
    low_usd: float,
    high_usd: float,
    low: Answerer,
    high: Answerer,
) -> tuple[bool, str]:
    if low_rank is not None and high_rank is not None:
        return high_rank > low_rank, "by the tiers file"
    if low_usd > 0 and high_usd > 0 and max(low_usd / high_usd, high_usd / low_usd) >= PRICE_RATIO:
        return high_usd > low_usd, "by price"
    return _larger(low.name, high.name), "by name"


def _larger(low: str, high: str) -> bool:
    """Whether two names of one family say that the second is larger."""
    (stem, size, billions), (other, other_size, other_billions) = map(_sized, (low, high))
    if stem != other:
        return False
    if billions and other_billions:
        return other_billions > billions
    return not billions and not other_billions and other_size > size


def _sized(name: str) -> tuple[tuple[str, ...], float, float]:
    """A name's family, its size by words, and its billions of parameters (0 where not named)."""
    stem, size, billions = [], _PLAIN_SIZE, 0.0
    for part in re.split(r"[-_:/ ]+", name.lower()):
        if part in _SIZES:
            size = _SIZES[part]
        elif _BILLIONS.fullmatch(part):
            billions = float(part[:-1])
        else:
            stem.append(part)
    return tuple(stem), size, billions


def _places(tiers: Sequence[Tier]) -> Mapping[str, int]:
    """Rank by plain model name, model name (two snapshots may be two tiers), tier name."""
    by_model = {plain_model(tier.model): k for k, tier in enumerate(tiers)}
    by_model |= {tier.model: k for k, tier in enumerate(tiers)}
    return by_model | {tier.name: k for k, tier in enumerate(tiers)}


def _rank(answerer: Answerer, places: Mapping[str, int]) -> int | None:
    names = (answerer.tier, answerer.model, plain_model(answerer.model or ""))
    return next((places[name] for name in names if name and name in places), None)
