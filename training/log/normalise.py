"""Columns in any spelling → those of the traffic table, and the rows that cannot be brought to it.

`ingest` sends such rows to quarantine, `read_traffic` refuses the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.log import columns as read
from training.log.layout import NUMBERS, SCHEMA

WHOLE = ("input_tokens", "output_tokens")
SHARES = {
    "propensity": "the probability with which this tier was chosen",
    "sample_probability": "the probability with which a sample took this request",
    "label_weight": "how far the score is trusted, beside a certain one",
}
EMPTY_COUNTS = ("response", "reference")  # where empty text is a value, not its absence
UNREAD = {
    "at": "{} is no time: write ISO 8601 (2026-11-02T10:45:37Z) or epoch seconds",
    "tags": "{} is no list of tags",
    "status": "{} is not ok or error: translate it in [values.status] of the mapping",
    "score": "{} is not a number (decimals have a point): say what values mean in [values.score] "
    "of the map file (`suffice ingest --map`)",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be taken: `row` is its position from 0, `bare` tells no value of it."""

    row: int
    column: str
    reason: str
    bare: str


def normalise(
    columns: Mapping[str, read.Column],
    rows: int,
    needed: tuple[str, ...] = ("request_id", "messages", "model"),
) -> tuple[pd.DataFrame, list[Problem]]:
    """Columns by name, in any dtype and spelling → (a frame as TrafficTable describes, problems).

    A row with a problem has no valid values in the frame; only the first of its problems is told.
    """
    found: dict[str, Any] = {}
    problems: dict[int, Problem] = {}

    def complain(where: Any, column: str, reason: str) -> None:
        for row in np.flatnonzero(where).tolist():
            told = reason.format(_short(columns[column][row]) if column in columns else "null")
            problems.setdefault(row, Problem(row, column, told, reason.format("a value")))

    for name in SCHEMA.names:
        if name not in columns:
            found[name] = _absent(name, rows)
        elif name == "messages":
            found[name], reasons = read.messages(columns[name])
            for row in np.flatnonzero(pd.notna(reasons)).tolist():
                problems.setdefault(row, Problem(row, name, reasons[row], reasons[row]))
        else:
            found[name], bad = _reader(name)(columns[name])
            complain(bad, name, UNREAD.get(name, "{} is not a number (decimals have a point)"))
    for name in NUMBERS:
        for where, reason in _out_of_range(name, found[name]):
            complain(where, name, reason)
    for name in needed:
        lost, also = pd.isna(found[name]), ", and so is tier" * (name == "model")
        complain(lost & pd.isna(found["tier"]) if also else lost, name, f"is missing{also}")
    failed = ~pd.isna(found["error"])
    unknown = pd.isna(found["status"])
    found["status"] = np.where(unknown, np.where(failed, "error", "ok"), found["status"])
    return pd.DataFrame(_object_columns(found)), [problems[row] for row in sorted(problems)]


def refusal(path: str | Path, frame: pd.DataFrame, problems: list[Problem], start: int = 0) -> str:
    """The message that names column, row (the frame's first is `start`) and remedy."""
    first = problems[0]
    told = f"{path}: column {first.column}, row {start + first.row + 1}"
    if first.column != "request_id" and (request := frame["request_id"][first.row]) is not None:
        told += f" (request_id {_short(request)})"
    more = f" ({len(problems) - 1} more such rows)" if len(problems) > 1 else ""
    return f"{told}: {first.reason}{more}"


def _reader(name: str) -> Any:
    if name in NUMBERS:
        return read.numbers
    special = {
        "at": read.times,
        "tags": read.tags,
        "status": read.statuses,
        "error": read.errors,
    }
    empty = "" if name in EMPTY_COUNTS else None
    return special.get(name) or (lambda values: read.texts(values, empty))


def _out_of_range(
    name: str, values: npt.NDArray[np.float64]
) -> Iterator[tuple[npt.NDArray[np.bool_], str]]:
    yield np.isinf(values), "{} is not finite: leave it empty where it is unknown"
    if name == "score":
        told = (
            "{} is outside [0, 1]: rescale the scores, say what values mean in [values.score] of "
            "the map file (`suffice ingest --map`), or leave it empty where there is none"
        )
        yield (values < 0) | (values > 1), told
    elif name in SHARES:
        yield (values <= 0) | (values > 1), f"{{}} is outside (0, 1]: it is {SHARES[name]}"
    else:
        yield values < 0, "{} is negative: leave it empty where it is unknown"
    if name in WHOLE:
        values = np.where(np.isfinite(values), values, 0.0)
        told = "{} is not a whole number of tokens"
        yield (values % 1 > 0) | (values >= 2**53), told


def _absent(name: str, rows: int) -> Any:
    if name in NUMBERS:
        return np.full(rows, np.nan)
    if name == "at":
        return pd.Series(pd.NaT, index=range(rows), dtype="datetime64[us, UTC]")
    values = np.full(rows, None, object)
    if name == "tags":
        values[:] = [[] for _ in range(rows)]
    return values


def _object_columns(found: dict[str, Any]) -> dict[str, pd.Series]:
    """Series of the types promised: pandas 3 would make its own text type of object arrays."""
    return {
        name: values
        if isinstance(values, pd.Series)
        else pd.Series(values, dtype=np.float64 if name in NUMBERS else object)
        for name, values in found.items()
    }


def _short(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else text[:57] + "…"
