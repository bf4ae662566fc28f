"""Files that people write: the tiers and the training configuration, both TOML."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.hints import did_you_mean, hint
from router.rules import CAPABILITIES
from router.rules_file import KEYS as RULES
from router.rules_file import RulesError, stated_rules
from router.tier import Tier, parse_tiers
from training.decide.goals import KEYS, NAMES, Goal, MinQuality, parse_goal
from training.errors import BadInput
from training.label.rule import LabelRule
from training.toml import read_toml

_RULE = ("sufficed_at", "margin", "assume_top_suffices")
_LABELLING = ("weights", "minutes", "grader")  # of `suffice label`; training.label.plan reads them
_KEYS = {
    "label": (*_RULE, *_LABELLING),
    "policy": KEYS,
    "rules": RULES,
}
_SWITCHES = ("assume_top_suffices", "or_constant")  # every other value is a number


@dataclass(frozen=True, slots=True)
class Config:
    """What a training job may be told besides its files."""

    label: LabelRule = field(default_factory=LabelRule)
    policy: Goal = field(default_factory=MinQuality)
    rules: Mapping[str, Any] | None = None  # as written; they name tiers


def effective_rules(
    rules: Mapping[str, Any] | None, tiers: Sequence[Tier]
) -> Mapping[str, Any] | None:
    """The rules that an artifact carries: as configured, else the built-in ones if tiers need any.

    The built-in ones keep from each tier what its context window or capabilities exclude, which
    would come back as an error. None: no rules at all.
    """
    stated = any(tier.context_window is not None or tier.capabilities is not None for tier in tiers)
    return {} if rules is None and stated else rules


def unknown_capabilities(tiers: Sequence[Tier]) -> tuple[str, ...]:
    """Capabilities that no rule reads, in words: misspelt, or meant for other programs."""
    found = []
    for tier in tiers:
        for name in sorted(set(tier.capabilities or ()) - set(CAPABILITIES)):
            found.append(
                f"tier {tier.name!r}: no rule reads the capability {name!r} (but "
                f"{', '.join(CAPABILITIES)}){did_you_mean(name, CAPABILITIES)}"
            )
    return tuple(found)


def check_rules(config: Config, tiers: Sequence[Tier]) -> None:
    """Raise BadInput where a rule of the configuration does not fit the tiers."""
    try:
        stated_rules(config.rules, tiers)
    except RulesError as error:
        raise BadInput(str(error)) from error


def read_tiers(path: Path) -> tuple[Tier, ...]:
    """Read ``[[tier]]`` tables, cheapest first.

    Raises:
        BadInput: no such file, no TOML, or a table that is not a tier; the message names the place.
    """
    values = read_toml(path)
    tables = values.get("tier")
    if (
        set(values) != {"tier"}
        or not isinstance(tables, list)
        or not all(isinstance(table, dict) for table in tables)
    ):
        raise BadInput(f"{path}: expected [[tier]] tables and nothing else, got {sorted(values)}")
    try:
        tiers = parse_tiers(tables)
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from error
    prices = [tier.input_usd_per_mtok + tier.output_usd_per_mtok for tier in tiers]
    if prices[0] > prices[-1]:
        raise BadInput(
            f"{path}: tiers must be ordered cheapest first; the first, {tiers[0].name!r}, costs "
            f"more than the last, {tiers[-1].name!r}"
        )
    return tiers


def read_config(path: Path | None, overrides: Mapping[str, str]) -> Config:
    """Read the configuration; `overrides` are ``--policy NAME=VALUE``.

    Raises:
        BadInput: an unknown key (with the nearest known one) or a value that does not fit.
    """
    return parse_config({} if path is None else read_toml(path), overrides, f"{path}")


def parse_config(values: Mapping[str, Any], overrides: Mapping[str, str], path: str) -> Config:
    """The same of tables that were read already; `path` is named in errors."""
    for section, key, value in entries(values, _KEYS, path):
        if section != "rules" and key not in _LABELLING:
            _of_type(key, value, f"{path}: [{section}]")
    rule = {key: value for key, value in values.get("label", {}).items() if key in _RULE}
    goal = _merged(values.get("policy", {}), parse_values(overrides, "--policy"))
    return Config(LabelRule(**rule), goal, values.get("rules"))


def parse_values(texts: Mapping[str, str], place: str) -> dict[str, float | bool]:
    """Values of `NAME=VALUE` pairs, numbers or ``true`` and ``false``.

    Raises:
        BadInput: an unknown name (with the nearest known one) or a value that is neither.
    """
    found: dict[str, float | bool] = {}
    for name, text in texts.items():
        check_known(name, KEYS, place)
        if name in _SWITCHES and text.lower() in ("true", "false"):
            found[name] = text.lower() == "true"
            continue
        try:
            found[name] = float(text)
        except ValueError:
            raise BadInput(f"{place} {name}={text}: not a number") from None
    return found


def _merged(file: Mapping[str, Any], line: Mapping[str, Any]) -> Goal:
    """The goal of the file as the command line changes it; a new goal there replaces it whole."""
    goals = [{name for name in part if name in NAMES} for part in (file, line)]
    if goals[1] and goals[0] != goals[1]:
        file = {}
    return parse_goal({**file, **line}, "--policy" if line else "[policy]")


def entries(
    values: Mapping[str, Any], known: Mapping[str, Collection[str]], path: str
) -> Iterator[tuple[str, str, Any]]:
    """Every (section, key, value) of a file of tables.

    Args:
        values: the tables.
        known: {section: its keys}.
        path: named in errors.

    Raises:
        BadInput: an unknown section or key (with the nearest known one), or a section that is no
            table.
    """
    for section, table in values.items():
        check_known(section, tuple(known), f"{path}: section")
        if not isinstance(table, dict):
            raise BadInput(f"{path}: [{section}] must be a table")
        for key, value in table.items():
            check_known(key, tuple(known[section]), f"{path}: [{section}]")
            yield section, key, value


def check_known(name: str, names: tuple[str, ...], place: str) -> None:
    """Raise BadInput for an unknown key, with the nearest known one."""
    if name in names:
        return
    raise BadInput(f"{place}: unknown key {name!r}{hint(name, names)}")


def _of_type(key: str, value: object, place: str) -> None:
    if key in _SWITCHES:
        if not isinstance(value, bool):
            raise BadInput(f"{place}: {key} must be true or false, got {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{place}: {key} must be a number, got {value!r}")
