"""A model tier: who answers, at which price, and what it can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.hints import hint


@dataclass(frozen=True, slots=True)
class Tier:
    """One choice of the router.

    Attributes:
        name: what logs and decisions call it, e.g. ``"small"``.
        model: the provider's model id, e.g. ``"gpt-4o-mini"``.
        input_usd_per_mtok: price of a million input tokens, in USD.
        output_usd_per_mtok: price of a million output tokens, in USD.
        context_window: tokens that fit, or None where unknown.
        capabilities: any of ``"tools"``, ``"vision"``, ``"json"``; None where unknown.
    """

    name: str
    model: str
    input_usd_per_mtok: float
    output_usd_per_mtok: float
    context_window: int | None = None
    capabilities: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The tier as JSON values, as kept in the manifest."""
        return {
            "name": self.name,
            "model": self.model,
            "input_usd_per_mtok": self.input_usd_per_mtok,
            "output_usd_per_mtok": self.output_usd_per_mtok,
            "context_window": self.context_window,
            "capabilities": None if self.capabilities is None else list(self.capabilities),
        }


def parse_tiers(tables: Sequence[Mapping[str, Any]]) -> tuple[Tier, ...]:
    """Check and build the ordered tiers, cheapest first; the last is the top tier.

    Raises:
        ValueError: fewer than two tiers, a name used twice, an unknown or missing key, a bad value.
    """
    tiers = tuple(_parse_tier(i, table) for i, table in enumerate(tables, start=1))
    if len(tiers) < 2:
        raise ValueError(f"{len(tiers)} tier(s) given; routing needs two or more, cheapest first")
    names = [tier.name for tier in tiers]
    if len(set(names)) < len(names):
        raise ValueError(f"tier names must differ, got {names}")
    return tiers


_REQUIRED = ("name", "model", "input_usd_per_mtok", "output_usd_per_mtok")
_OPTIONAL = ("context_window", "capabilities")
_MAX_PRICE = 1e9  # USD for a million tokens; keeps every expected cost finite


def _parse_tier(number: int, table: Mapping[str, Any]) -> Tier:
    place = f"tier {number}"
    known = (*_REQUIRED, *_OPTIONAL)
    for key in table:
        if key not in known:
            raise ValueError(f"{place}: unknown key {key!r}{hint(str(key), known)}")
    if missing := [key for key in _REQUIRED if key not in table]:
        named = f" ({table['name']!r})" if "name" in table else ""
        raise ValueError(f"{place}{named}: missing {missing}: fill in")
    for key in ("name", "model"):
        if not isinstance(table[key], str) or not table[key]:
            raise ValueError(f"{place}: {key} must be a non-empty text, got {table[key]!r}")
    window, capabilities = table.get("context_window"), table.get("capabilities")
    if window is not None and (type(window) is not int or window <= 0):
        raise ValueError(f"{place}: context_window must be a positive whole number, got {window!r}")
    if capabilities is not None and not (
        isinstance(capabilities, list | tuple) and all(isinstance(i, str) for i in capabilities)
    ):
        raise ValueError(f"{place}: capabilities must be a list of texts, got {capabilities!r}")
    return Tier(
        name=table["name"],
        model=table["model"],
        input_usd_per_mtok=_price(place, table, "input_usd_per_mtok"),
        output_usd_per_mtok=_price(place, table, "output_usd_per_mtok"),
        context_window=window,
        capabilities=None if capabilities is None else tuple(capabilities),
    )


def _price(place: str, table: Mapping[str, Any], key: str) -> float:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{place}: {key} must be a number of USD, got {value!r}")
    if not (0 <= value <= _MAX_PRICE):  # also False for NaN
        raise ValueError(f"{place}: {key} must lie between 0 and {_MAX_PRICE:g}, got {value!r}")
    return float(value)
