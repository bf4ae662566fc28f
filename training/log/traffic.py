"""The traffic table: one row per answered call, read from any Parquet file in its layout.

`SCHEMA` is the contract (data/README.md explains it to users). `normalise` brings columns in any
spelling to it and says which rows cannot be brought; `ingest` sends those to quarantine,
`read_traffic` refuses the file.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import BadInput
from training.log import columns as read
from training.log.imprint import RESPONSE_CHARS, TEXT_HASH, imprints, is_featured, response_chars
from training.log.keys import key_hashes, resolve, row_hashes
from training.log.schemas import common_schema

SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("session_id", pa.string()),
        ("user_id", pa.string()),
        ("messages", pa.string()),
        ("tier", pa.string()),
        ("model", pa.string()),
        ("propensity", pa.float64()),
        ("sample_probability", pa.float64()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("latency_ms", pa.float64()),
        ("response", pa.string()),
        ("reference", pa.string()),
        ("source", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("score", pa.float64()),
        ("score_source", pa.string()),
        ("label_weight", pa.float64()),
        ("status", pa.string()),
    ]
)
KEYS = ("request_id", "tier", "model")
JOURNAL = ".suffice-commit.json"  # in a folder of partitions: an append that is not finished
NUMBERS = tuple(f.name for f in SCHEMA if f.type in (pa.float64(), pa.int64()))
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
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be taken: `row` is its position from 0, `bare` tells no value of it."""

    row: int
    column: str
    reason: str
    bare: str


@dataclass(frozen=True, slots=True)
class TrafficTable:
    """A checked frame with every column of SCHEMA, and what was done to it, in words.

    Text columns are object (str or None), `messages` is canonical JSON text and never None, `at` is
    datetime64[us, UTC], `tags` are lists, every number is float64 with NaN for "unknown" (a NaN
    score is an unlabelled row), `status` is ok or error. Rows are unique by request_id and tier
    (model, where tier is None), in the file's order, numbered from 0.

    A features-only table has None in `messages`, `response`, `reference` and `error`, and two more
    columns: `imprint`, an `Imprint`, and `response_chars`.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()


def read_traffic(path: str | Path, answered: bool = True) -> TrafficTable:
    """Read any Parquet file (or folder of them) in the layout of SCHEMA; columns may be absent.

    Refuses, naming column, row and remedy: a file that is no Parquet, absent request_id or messages
    or (tier and model), values that no rule reads or out of range, and a table without rows. With
    `answered=False` prompts will do that nobody has answered yet.
    """
    table = _read_parquet(Path(path))
    featured = is_featured(table.column_names)
    needed = ("request_id",) if featured else ("request_id", "messages")
    missing = [c for c in needed if c not in table.column_names]
    if answered and not {"tier", "model"} & set(table.column_names):
        missing.append("tier (or model)")
    if missing:
        raise BadInput(
            f"{path}: no column {' and no column '.join(missing)}; columns seen: "
            f"{', '.join(table.column_names)}. Name them so, or `suffice ingest` with --map"
        )
    if table.num_rows == 0:
        raise BadInput(f"{path}: an empty log (no rows); give one with answered calls")
    served = ("model",) if answered else ()
    frame, problems = normalise(arrow_columns(table), table.num_rows, (*needed, *served))
    if problems:
        raise BadInput(refusal(path, frame, problems))
    if featured:
        frame["imprint"] = pd.Series(imprints(table, Path(path)), dtype=object)
        frame[RESPONSE_CHARS] = response_chars(table, Path(path))
    return _without_duplicates(frame)


def require_scores(table: TrafficTable) -> None:
    """Refuse a table in which no row carries a score: nothing can be learned from it."""
    if table.frame["score"].notna().any():
        return
    raise BadInput(
        "column score: no row is labelled; add how good each answer was, in [0, 1] (data/README.md)"
    )


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
            complain(bad, name, UNREAD.get(name, "{} is not a number"))
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


def to_arrow(frame: pd.DataFrame) -> pa.RecordBatch:
    """A frame as `normalise` makes it → a batch of SCHEMA."""
    arrays = []
    for field in SCHEMA:
        column = frame[field.name]
        if field.name in NUMBERS:
            values = column.to_numpy(np.float64)
            numbers = pa.array(values, mask=np.isnan(values))
            arrays.append(numbers.cast(field.type))
        else:
            arrays.append(pa.array(_plain(column), field.type, from_pandas=True))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def hashes_of(batch: pa.RecordBatch) -> Any:
    """Key and content hashes of a batch of the table, also without text (training.log.keys)."""
    names = [name for name in (*SCHEMA.names, TEXT_HASH) if name in batch.schema.names]
    values = {name: _hashable(batch.column(name)) for name in names}
    return row_hashes(_keys(values), zip(*values.values(), strict=True))


def key_hashes_of(batch: pa.RecordBatch) -> Any:
    """Key hashes alone, of a batch that has the columns `KEYS`."""
    return key_hashes(_keys({name: _hashable(batch.column(name)) for name in KEYS}))


def _keys(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for request, tier, model in zip(*(values[name] for name in KEYS), strict=True):
        yield request, tier if tier is not None else model


def arrow_columns(table: pa.Table | pa.RecordBatch) -> dict[str, read.Column]:
    """The columns of SCHEMA that an Arrow table has, as arrays that `normalise` reads."""
    return {
        name: _array(table.column(name), name in NUMBERS)
        for name in table.schema.names
        if name in SCHEMA.names
    }


def _read_parquet(path: Path) -> pa.Table:
    if not path.exists():
        raise BadInput(f"{path}: no such file; `suffice ingest` makes one from a log")
    if (path / JOURNAL).exists():
        raise BadInput(
            f"{path}: rows are being added to it, or were when ingest was stopped; wait, or "
            "`suffice ingest` the same log again"
        )
    try:
        schema = common_schema(path) if path.is_dir() else None
        table = pq.read_table(path, partitioning=None, schema=schema)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path}: not a Parquet file ({error}); run `suffice ingest` first"
        ) from None
    twice = [n for n, times in Counter(table.column_names).items() if times > 1]
    if twice:
        raise BadInput(f"{path}: column {twice[0]} is there twice; rename one")
    return table


def refusal(path: str | Path, frame: pd.DataFrame, problems: list[Problem], start: int = 0) -> str:
    """The message that names column, row (the frame's first is `start`) and remedy."""
    first = problems[0]
    told = f"{path}: column {first.column}, row {start + first.row + 1}"
    if first.column != "request_id" and (request := frame["request_id"][first.row]) is not None:
        told += f" (request_id {_short(request)})"
    more = f" ({len(problems) - 1} more such rows)" if len(problems) > 1 else ""
    return f"{told}: {first.reason}{more}"


def _without_duplicates(frame: pd.DataFrame) -> TrafficTable:
    answered = frame["tier"].where(frame["tier"].notna(), frame["model"])
    again = pd.DataFrame({"id": frame["request_id"], "by": answered}).duplicated(keep=False)
    if not again.any():
        return TrafficTable(frame)
    resolved = resolve([hashes_of(to_arrow(frame[again]))])
    keep = ~again.to_numpy()
    keep[again.to_numpy()] = resolved.keep
    return TrafficTable(frame[keep].reset_index(drop=True), resolved.notes)


def _reader(name: str) -> Any:
    if name in NUMBERS:
        return read.numbers
    special = {"at": read.times, "tags": read.tags, "status": read.statuses}
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


def _array(column: Any, numeric: bool) -> read.Column:
    """An Arrow column as float64 where its numbers count, a Series of times, else objects."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_timestamp(kind):
        return pd.Series(column.to_pandas())
    if numeric and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return column.to_numpy(zero_copy_only=False)
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    return values


def _plain(column: pd.Series) -> npt.NDArray[Any]:
    """Times without their zone (UTC), the other columns as they are."""
    return (column.dt.tz_convert(None) if column.name == "at" else column).to_numpy()


def _hashable(column: Any) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values = column.to_pylist()
    return [tuple(v or ()) for v in values] if pa.types.is_list(column.type) else values


def _short(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else text[:57] + "…"
