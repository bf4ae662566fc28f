"""What `suffice label` is told: the window, the sources' weights and the graders, from TOML."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import regex

from training.errors import BadInput
from training.label.command_grader import Command
from training.label.graders import Contains, Criterion, Exact, Grader, Matches, Numeric, Schema
from training.toml import read_toml

# How far a label of this source alone is trusted: 1 − 2 × (the share of it that is wrong). Guesses
# to start from: where graders speak of the same answers, the log itself says (`trust`).
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "grader": 0.98,  # decides by the answer alone
        "feedback": 0.8,  # a person looked at the answer and said so; few do, and not at random
        "judge": 0.7,  # looks at every answer, but prefers long and well-worded ones
        "escalation": 0.6,  # costs the user something; some compare models out of curiosity
        "complaint": 0.5,  # stock phrases are misread at times
        "retry": 0.4,  # no session says that it is the same question
        "thanked": 0.3,  # people thank for wrong answers, too
        "abandoned": 0.0,  # may be good or bad: counts only as far as it can be measured
        "went_on": 0.0,  # the same
    }
)
MINUTES = 10.0
WHERE = ("source", "tag", "tier", "model")
_KINDS = {
    "exact": ("case_sensitive",),
    "numeric": ("tolerance",),
    "regex": ("pattern",),
    "contains": ("text",),
    "json_schema": ("schema",),
    "command": ("command", "timeout_s", "score"),
}


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """Weights by source that the user set, minutes between an answer and the request that speaks
    of it, graders."""

    weights: Mapping[str, float] = field(default_factory=dict)
    minutes: float = MINUTES
    graders: tuple[Grader, ...] = ()

    def weight(self, source: str) -> float:
        """A source that nobody gave a weight counts as feedback."""
        known = {**WEIGHTS, **self.weights}
        return known.get(source, known["feedback"])

    def states(self, source: str) -> bool:
        """Whether the user set the weight of a source."""
        return source in self.weights


def read_plan(path: Path | None) -> LabelPlan:
    """Read the `[label]` section of a configuration.

    Raises:
        BadInput: an unknown grader or key, an invalid pattern or schema, a value out of range.
    """
    if path is None:
        return LabelPlan()
    table = read_toml(path).get("label", {})
    minutes = _number(table, "minutes", MINUTES, f"{path}: [label]")
    given = table.get("weights", {})
    if not isinstance(given, dict):
        raise BadInput(f"{path}: [label.weights] must be a table of source = weight")
    for source in given:
        weight = _number(given, source, 0.0, f"{path}: [label.weights]")
        if not 0.0 <= weight <= 1.0:
            raise BadInput(f"{path}: [label.weights] {source} must be in [0, 1], got {weight}")
    graders = table.get("grader", [])
    if not isinstance(graders, list):
        raise BadInput(f"{path}: write [[label.grader]], with two brackets, for each grader")
    made = tuple(
        _grader(grader, f"{path}: [[label.grader]] {number}", path.parent)
        for number, grader in enumerate(graders, 1)
    )
    return LabelPlan(given, minutes, made)


def _grader(table: Any, place: str, folder: Path) -> Grader:
    if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
        raise BadInput(f"{place}: needs a kind, one of {', '.join(_KINDS)}")
    kind = table["kind"]
    if kind not in _KINDS:
        raise BadInput(f"{place}: unknown kind {kind!r}; known: {', '.join(_KINDS)}")
    known = ("kind", "name", "where", *_KINDS[kind])
    if unknown := [key for key in table if key not in known]:
        raise BadInput(f"{place}: unknown key {unknown[0]!r} of a {kind} grader; known: {known}")
    name = table.get("name", kind)
    if not isinstance(name, str):
        raise BadInput(f"{place}: name must be text")
    return Grader(
        name, _criterion(kind, table, place, folder), _where(table.get("where", {}), place)
    )


def _criterion(kind: str, table: Mapping[str, Any], place: str, folder: Path) -> Criterion:
    if kind == "exact":
        return Exact(_switch(table, "case_sensitive", place))
    if kind == "numeric":
        given = "tolerance" in table
        return Numeric(_number(table, "tolerance", 0.0, place) if given else None)
    if kind == "regex":
        return Matches(_pattern(table, place))
    if kind == "contains":
        return Contains(_texts(table.get("text", []), f"{place}: text"))
    return _schema(table, place, folder) if kind == "json_schema" else _command(table, place)


def _pattern(table: Mapping[str, Any], place: str) -> regex.Pattern[str]:
    if not isinstance(table.get("pattern"), str):
        raise BadInput(f"{place}: a regex grader needs a pattern")
    try:
        return regex.compile(table["pattern"])
    except regex.error as error:
        raise BadInput(f"{place}: pattern {table['pattern']!r} is invalid: {error}") from None


def _schema(table: Mapping[str, Any], place: str, folder: Path) -> Schema:
    given = table.get("schema")
    if isinstance(given, str):
        try:
            given = json.loads((folder / given).read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"{place}: schema {folder / given}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{place}: schema {folder / given}: not JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadInput(f"{place}: a json_schema grader needs a schema, a table or a file's name")
    try:
        return Schema.of(given)
    except ValueError as error:
        raise BadInput(f"{place}: {error}") from None


def _command(table: Mapping[str, Any], place: str) -> Command:
    words = _texts(table.get("command", []), f"{place}: command")
    if not words:
        raise BadInput(f'{place}: a command grader needs a command, ["program", "argument"]')
    timeout = _number(table, "timeout_s", 10.0, place)
    if not 0.0 < timeout <= 3600.0:
        raise BadInput(f"{place}: timeout_s must be in (0, 3600], got {timeout}")
    score = table.get("score", "exit")
    if score not in ("exit", "printed"):
        raise BadInput(f'{place}: score must be "exit" or "printed", got {score!r}')
    return Command(words, timeout, score == "printed")


def _where(given: Any, place: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, dict):
        raise BadInput(f'{place}: where must be a table, e.g. {{ source = "maths*" }}')
    if unknown := [key for key in given if key not in WHERE]:
        raise BadInput(f"{place}: where: unknown key {unknown[0]!r}; known: {', '.join(WHERE)}")
    return {key: _texts(value, f"{place}: where.{key}") for key, value in given.items()}


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """One text or a list of them."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise BadInput(f"{place} must be text or a list of texts, got {value!r}")
    return tuple(values)


def _number(table: Mapping[str, Any], key: str, default: float, place: str) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise BadInput(f"{place}: {key} must be a number, 0 or more, got {value!r}")
    return float(value)


def _switch(table: Mapping[str, Any], key: str, place: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise BadInput(f"{place}: {key} must be true or false, got {value!r}")
    return value
