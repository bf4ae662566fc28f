"""Which tier stands above which, by which signals know an escalation.

For each pair the first of these that knows decides: the tiers file; what a token cost in the log,
where one tier's price is at least 1.5 times the other's; the words for sizes in the names of two
models of one family (gpt-4o-mini under gpt-4o, llama-8b under llama-70b). A pair that none of them
knows is not ordered, and nothing between the two is an escalation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.tier import Tier
from training.log.models import plain_model, tiers_by_model

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

    Raises:
        BadInput: a model stands for two of the tiers, and no tier says which of them answered.
    """
    ranks, names = _ranks(answerers, tiers), [answerer.name for answerer in answerers]
    rungs = [_Rung(*known) for known in zip(names, ranks, usd_per_token, strict=True)]
    above = np.zeros((len(rungs), len(rungs)), dtype=bool)
    told: dict[str, str] = {}
    for i, low in enumerate(rungs):
        for j, high in enumerate(rungs):
            if low.name == high.name and (low.rank is None or high.rank is None):
                continue
            above[i, j], by = _is_above(low, high)
            if above[i, j]:
                told.setdefault(f"{low.name} < {high.name}", by)
    parts = [f"{pair} ({by})" for pair, by in told.items()]
    return Ladder(above, ", ".join(parts) or "none known: give --tiers")


@dataclass(frozen=True, slots=True)
class _Rung:
    """One who answered: by name, by the tiers file (None: not in it), by USD per token."""

    name: str
    rank: int | None
    usd: float


def _is_above(low: _Rung, high: _Rung) -> tuple[bool, str]:
    """Whether the second stands above the first, and what decided."""
    if low.rank is not None and high.rank is not None:
        return high.rank > low.rank, "by the tiers file"
    priced = low.usd > 0 and high.usd > 0
    if priced and max(low.usd / high.usd, high.usd / low.usd) >= PRICE_RATIO:
        return high.usd > low.usd, "by price"
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


def _ranks(answerers: Sequence[Answerer], tiers: Sequence[Tier]) -> list[int | None]:
    """Index of each one's tier, by the tier's name, else by the model's; None where it has none."""
    by_name = {tier.name: k for k, tier in enumerate(tiers)}
    unnamed = {one.model for one in answerers if one.model and one.tier not in by_name}
    by_model = tiers_by_model(sorted(unnamed), tiers)
    return [by_name.get(one.tier or "", by_model.get(one.model or "")) for one in answerers]
