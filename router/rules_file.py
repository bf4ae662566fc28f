"""Reading rules: TOML to `Rules`, every mistake named with its place and the nearest right word."""

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from router.hints import hint
from router.rules import Key, PromptCache, Rules
from router.tier import Tier

KEYS: Final = ("context_window", "capabilities", "pin", "deny", "session", "prompt_cache")


class RulesError(ValueError):
    """A rules table with an unknown key, an unknown tier or a value of the wrong type."""


def load_rules(path: Path, tiers: Sequence[Tier]) -> Rules:
    """Read the ``[rules]`` of a TOML file.

    Raises:
        RulesError: the file cannot be read, is not TOML, or holds what is no rule; the message
            names the key and the nearest known one.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RulesError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise RulesError(f"{path}: not TOML: {error}") from error
    _known(table, ("rules",), str(path))
    return parse_rules(table.get("rules", {}), tiers, f"{path}: [rules]")


def stated_rules(table: Any, tiers: Sequence[Tier]) -> Rules | None:
    """The rules of a manifest or a configuration; None where it states none.

    Raises:
        RulesError: see `load_rules`.
    """
    return None if table is None else parse_rules(table, tiers)


def parse_rules(table: Any, tiers: Sequence[Tier], place: str = "[rules]") -> Rules:
    """Check a rules table against the tiers that it names.

    Raises:
        RulesError: see `load_rules`.
    """
    table = _known(table, KEYS, place)
    names = {tier.name: k for k, tier in enumerate(tiers)}
    pins: dict[Key, int] = {}
    denied: dict[Key, frozenset[int]] = {}
    for key, tier, where in _named(table, "pin", place):
        pins[key] = _index(tier, names, where)
    for key, listed, where in _named(table, "deny", place):
        if not isinstance(listed, list):
            raise RulesError(f"{where}: must be a list of tiers, got {listed!r}")
        denied[key] = frozenset(_index(tier, names, where) for tier in listed)
        if len(denied[key]) == len(tiers):
            raise RulesError(f"{where}: no tier is left")
    return Rules(
        tiers=tuple(tiers),
        context_window=_switch(table, "context_window", True, place),
        capabilities=_switch(table, "capabilities", True, place),
        pins=pins,
        denied=denied,
        floor_seconds=_floor(table.get("session", {}), f"{place} session"),
        cache=_cache(table.get("prompt_cache"), names, f"{place} prompt_cache"),
    )


def _named(table: Mapping[str, Any], rule: str, place: str) -> Iterator[tuple[Key, Any, str]]:
    """The entries of a rule by tag and by tenant."""
    parts = _known(table.get(rule, {}), ("tag", "tenant"), f"{place} {rule}")
    for kind, entries in parts.items():
        if not isinstance(entries, dict):
            raise RulesError(f"{place} {rule}.{kind}: must be a table, got {entries!r}")
        for name, value in entries.items():
            yield (kind, name), value, f"{place} {rule}.{kind}.{name}"


def _floor(table: Any, place: str) -> float | None:
    table = _known(table, ("floor", "minutes"), place)
    minutes = _number(table, "minutes", 60.0, place)
    return minutes * 60 if _switch(table, "floor", bool(table), place) else None


def _cache(table: Any, names: Mapping[str, int], place: str) -> PromptCache | None:
    if table is None:
        return None
    table = _known(table, ("minutes", "min_tokens", "usd_per_mtok"), place)
    prices = table.get("usd_per_mtok")
    if not isinstance(prices, dict) or not prices:
        raise RulesError(f"{place}: usd_per_mtok must give tiers the price of cached input")
    where = f"{place}.usd_per_mtok"
    return PromptCache(
        seconds=_number(table, "minutes", 5.0, place) * 60,
        min_tokens=int(_number(table, "min_tokens", 1024, place)),
        usd_per_mtok={
            _index(name, names, where): _number(prices, name, 0.0, where) for name in prices
        },
    )


def _known(table: Any, keys: Collection[str], place: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise RulesError(f"{place}: must be a table, got {table!r}")
    for key in table:
        if key not in keys:
            raise RulesError(f"{place}: unknown key {key!r}{hint(str(key), keys)}")
    return table


def _index(name: Any, names: Mapping[str, int], place: str) -> int:
    if not isinstance(name, str) or name not in names:
        raise RulesError(f"{place}: unknown tier {name!r}{hint(str(name), names)}")
    return names[name]


def _switch(table: Mapping[str, Any], key: str, default: bool, place: str) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise RulesError(f"{place}: {key} must be true or false, got {value!r}")
    return value


def _number(table: Mapping[str, Any], key: str, default: float, place: str) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise RulesError(f"{place}: {key} must be a number from 0 to 1e9, got {value!r}")
    return float(value)
