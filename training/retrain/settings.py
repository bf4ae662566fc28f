"""What a retraining job is told: retrain.toml."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from training.config import Config, check_known, entries, parse_config
from training.errors import BadInput
from training.label.rule import LabelRule
from training.learn.finetune import Tuning
from training.learn.splits import parse_shares
from training.retrain.challengers import ALL, LABELS, SUFFICED
from training.retrain.gate import Limits
from training.toml import read_toml

_AGO = re.compile(r"(\d+)d")
_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of texts",
}
_SECTIONS: dict[str, dict[str, type]] = {
    "data": {
        "traffic": str,
        "tiers": str,
        "since": str,
        "until": str,
        "max_rows": int,
        "half_life_days": float,
    },
    "train": {
        "split": str,
        "seed": int,
        "embedders": list,
        "labels": list,
        "challengers": int,
        "finetune": bool,
        "max_minutes": float,
    },
    "gate": {part.name: type(getattr(Limits(), part.name)) for part in fields(Limits)},
    "registry": {"model": str},
    "serve": {"folder": str, "wait_seconds": float},
}


@dataclass(frozen=True, slots=True)
class Window:
    """Which requests are used.

    Attributes:
        since, until: UTC, or None; `until` is the first moment left out.
        max_rows: the latest so many requests at most, or None.
        half_life_days: after so many days a row weighs half in fitting; None: all weigh the same.
    """

    since: datetime | None = None
    until: datetime | None = None
    max_rows: int | None = None
    half_life_days: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """A retraining job.

    Attributes:
        traffic: data set of `suffice ingest`.
        tiers: tiers file.
        window: which of its requests are used.
        config: label rule and goal, as of `suffice train`.
        shares: of fit, choose and test rows.
        seed: of splits, folds, trees and the search.
        embedders: names or folders, each tried.
        labels: label rules (`challengers.LABELS`), each tried.
        challengers: how many are trained in all; the first of each embedder and label rule has
            the standard parameters, the others are Optuna's.
        tuning: what fine-tuning may take; None: no transformer is fine-tuned.
        limits: of the gate.
        model: name in the registry.
        folder: where the service reads the champion.
        wait_seconds: for another job's lock.
        words: the file's values, for the record.
    """

    traffic: Path
    tiers: Path
    window: Window
    config: Config
    shares: tuple[float, float, float]
    seed: int
    embedders: tuple[str, ...]
    labels: tuple[str, ...]
    challengers: int
    tuning: Tuning | None
    limits: Limits
    model: str
    folder: Path
    wait_seconds: float
    words: Mapping[str, Any]


def read_settings(path: Path) -> Settings:
    """Read retrain.toml; paths in it are relative to the file.

    Raises:
        BadInput: an unknown key (with the nearest known one), a missing one, or a value that does
            not fit; the message names the place.
    """
    values = read_toml(path)
    ours = _sections(values, path)
    data, fit, serve = (ours.get(name, {}) for name in ("data", "train", "serve"))
    config = parse_config(values, {}, str(path))
    if "max_minutes" in fit and not fit.get("finetune", False):
        raise BadInput(f"{path}: [train] max_minutes limits fine-tuning: set finetune = true")
    embedders = tuple(fit.get("embedders", ["static"]))
    labels = _labels(fit.get("labels", [ALL]), config.label, f"{path}: [train] labels")
    challengers = fit.get("challengers", 8)
    if not embedders or challengers < len(embedders) * len(labels):
        raise BadInput(
            f"{path}: [train] challengers = {challengers}: at least one of each embedder and "
            "label rule is needed"
        )
    return Settings(
        traffic=path.parent / data["traffic"],
        tiers=path.parent / data["tiers"],
        window=_window(data, path),
        config=config,
        shares=parse_shares(fit.get("split", "75/15/10")),
        seed=fit.get("seed", 0),
        embedders=embedders,
        labels=labels,
        challengers=challengers,
        tuning=Tuning(fit.get("max_minutes")) if fit.get("finetune", False) else None,
        limits=Limits(**ours.get("gate", {})),
        model=ours.get("registry", {}).get("model", "suffice"),
        folder=path.parent / serve["folder"],
        wait_seconds=float(serve.get("wait_seconds", 0.0)),
        words={**ours, **values},
    )


def _sections(values: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Take retraining's own tables out of `values`, checked; the rest is as of `suffice train`."""
    ours = {name: values.pop(name) for name in _SECTIONS if name in values}
    for section in values:
        check_known(section, (*_SECTIONS, "label", "policy", "rules"), f"{path}: section")
    for section, key, value in entries(ours, _SECTIONS, str(path)):
        _check(value, _SECTIONS[section][key], f"{path}: [{section}] {key}")
    for section, key in (("data", "traffic"), ("data", "tiers"), ("serve", "folder")):
        if key not in ours.get(section, {}):
            raise BadInput(f"{path}: [{section}] {key} is missing")
    return ours


def _labels(names: list[str], rule: LabelRule, place: str) -> tuple[str, ...]:
    for name in names:
        check_known(name, LABELS, place)
    if not names or len(set(names)) < len(names):
        raise BadInput(f"{place} = {names}: name each of {', '.join(LABELS)} once at most")
    if SUFFICED in names and rule.margin is not None:
        raise BadInput(
            f"{place}: {SUFFICED!r} learns whether a score reaches [label] sufficed_at; beside "
            "[label] margin the top tier would suffice always: take one of the two out"
        )
    return tuple(names)


def _window(data: Mapping[str, Any], path: Path) -> Window:
    since, until = (_moment(data, key, path) for key in ("since", "until"))
    if since and until and since >= until:
        raise BadInput(f"{path}: [data] since {since} is not before until {until}")
    for key in ("max_rows", "half_life_days"):
        if data.get(key, 1) <= 0:
            raise BadInput(f"{path}: [data] {key} = {data[key]}: it must be above 0")
    return Window(since, until, data.get("max_rows"), data.get("half_life_days"))


def _moment(data: Mapping[str, Any], key: str, path: Path) -> datetime | None:
    """An ISO 8601 date or time (UTC where it names no zone), or ``90d``: so many days ago."""
    if key not in data:
        return None
    text = str(data[key])
    if ago := _AGO.fullmatch(text):
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return today - timedelta(days=int(ago[1]))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{path}: [data] {key} = {text!r}: give a date (2026-11-23), a time, or 90d"
        ) from None
    return found.replace(tzinfo=found.tzinfo or UTC)


def _check(value: object, kind: type, place: str) -> None:
    fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
    if kind is str and isinstance(value, date):  # TOML has dates of its own
        return
    if not fits or isinstance(value, bool) != (kind is bool):
        raise BadInput(f"{place} must be {_KINDS[kind]}, got {value!r}")
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise BadInput(f"{place} must be a list of texts, got {value!r}")
    if kind in (int, float) and value < 0:  # type: ignore[operator]
        raise BadInput(f"{place} = {value}: it must not be below 0")
