"""Rows of a table: CSV, JSON lines or Parquet, with the columns of the traffic table or mapped.

A mapping (TOML, described in data/README.md) says which column is which, gives constants, and
translates values. The column `prompt` may stand in for `messages`: bare text is one user message,
a JSON list of messages is what it says.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from training.errors import BadInput
from training.log.adapters.chat import bare_model
from training.log.adapters.files import csv_records, delimited, json_lines
from training.log.adapters.mapping import NAMES, NEEDED, Mapping, is_there, value_of
from training.log.adapters.names import question
from training.log.adapters.records import kind_of, parquet_records
from training.log.adapters.rows import Bad, Record, Row
from training.log.columns import TRUTH
from training.log.imprint import is_featured
from training.log.messages import bare_prompt, begins_as_chat, is_chat
from training.log.parquet import open_parquet

NOWHERE = object()
FIRST = 20  # objects that are asked for their names
NO_OBJECT = "no JSON object a line (one over several lines? convert: jq -c .)"
NO_TEXT = (
    "its first line is no UTF-8 text: convert the file (e.g. iconv -f WINDOWS-1252 -t UTF-8; a "
    "spreadsheet: save it as CSV), or unpack it (only .gz and .zst are read as they are)"
)


def recognise(path: Path, mapping: Mapping) -> tuple[str | None, str]:
    """What the file was seen to be and what of it is not read; (None, why) if it is no table."""
    kind = kind_of(path)
    if kind == "empty":
        return None, "the file is empty"
    if kind == "array":
        return None, "one JSON array, not a JSON object a line (convert: jq -c '.[]')"
    if kind == "Parquet":
        with open_parquet(path) as file:
            columns = file.schema_arrow.names
        if is_featured(columns):
            return None, "a features-only table: ingest the log that it was made from"
    elif kind == "JSONL":
        columns = _json_columns(path)
    else:
        delimiter, columns = csv_header(path, mapping)
        columns = [name for name in columns if name]  # pandas writes its index without a name
        kind = "CSV" if delimiter == "," else f"CSV with delimiter {delimiter!r}"
    if not columns and kind != "Parquet":
        return None, NO_OBJECT if kind == "JSONL" else NO_TEXT
    known = mapping.read()
    unread = [name for name in columns if name not in known]
    free = _free(columns, mapping)
    if reason := mapping.missing(columns):
        seen = ", ".join(columns[:30]) or "none"
        asked = question(unread, [name for choice in NEEDED for name in choice if name in free])
        return (
            None,
            f"{kind}, {reason} (columns seen: {seen}); say which is which with --map{asked}",
        )
    left = f"not read: {', '.join(unread[:30])}" if unread else ""
    asked = question(unread, free)
    return f"{kind} with columns {', '.join(columns[:30])}", left + asked + " (--map)" * bool(asked)


def _json_columns(path: Path) -> list[str]:
    """The names in a file's first objects."""
    columns: dict[str, None] = {}
    for record in islice(json_lines(path), FIRST):
        if not isinstance(record, Bad):
            columns |= dict.fromkeys(record[1])
    return list(columns)


def unseen(paths: Sequence[Path], mapping: Mapping) -> list[str]:
    """Notes on mapped columns whose names, paths into nested JSON, are in no row of the files.

    Logs leave out what is null: the first feedback may come late, and on one day of many not at
    all. So the files are looked through until each column was seen in one of them.
    Raises BadInput for a column of whose names not even the first part was seen.
    """
    sought, seen = mapping.columns, dict[str, None]()
    for record in chain.from_iterable(_shapes(path, mapping) for path in paths):
        seen |= dict.fromkeys(record)
        sought = {
            column: names
            for column, names in sought.items()
            if not any(value_of(record, name, NOWHERE) is not NOWHERE for name in names)
        }
        if not sought:
            return []
    for column, names in sought.items():
        if not any(is_there(name, seen) for name in names):
            told = ", ".join(list(seen)[:30])
            files = f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}"
            raise BadInput(f"{files}: {mapping.absent(column)} (columns seen: {told})")
    return [
        f"{column} is null in every row: none has {' or '.join(names)} (--map)"
        for column, names in sought.items()
    ]


def _shapes(path: Path, mapping: Mapping) -> Iterator[dict[str, Any]]:
    """Objects that have the names of a file's records, nested as they are."""
    kind = kind_of(path)
    if kind == "Parquet":
        with open_parquet(path) as file:
            yield _nested(file.schema_arrow)
    elif kind == "JSONL":
        yield from (record[1] for record in json_lines(path) if not isinstance(record, Bad))
    else:
        yield dict.fromkeys(csv_header(path, mapping)[1])


def _nested(fields: Iterable[pa.Field]) -> dict[str, Any]:
    return {f.name: _nested(f.type) if pa.types.is_struct(f.type) else None for f in fields}


def _free(columns: Iterable[str], mapping: Mapping) -> list[str]:
    """The columns of the table that a source has nothing for."""
    present = set(columns)
    filled = {c for c in NAMES if any(is_there(name, present) for name in mapping.names(c))}
    filled |= mapping.constants.keys() | mapping.columns.keys()
    if not filled.isdisjoint(("messages", "prompt")):
        filled |= {"messages", "prompt"}
    return sorted(NAMES - filled)


def rows(path: Path, mapping: Mapping) -> Iterator[Record]:
    """The rows of one file, streamed."""
    kind = kind_of(path)
    read = {"Parquet": _parquet_rows, "JSONL": _json_rows}.get(kind, _csv_rows)
    return read(path, mapping)


def csv_header(path: Path, mapping: Mapping | None = None) -> tuple[str, list[str]]:
    """The delimiter under which most known (else most) columns show, and the column names."""
    wanted = {n for c in NAMES for n in (mapping.names(c) if mapping else (c,))}
    return delimited(path, wanted)


def _csv_rows(path: Path, mapping: Mapping) -> Iterator[Record]:
    delimiter, names = csv_header(path, mapping)
    if twice := {name for name in names if name and names.count(name) > 1}:
        raise BadInput(f"{path}: line 1: column {min(twice)} is there twice; rename one")
    records = csv_records(path, delimiter)
    next(records)
    pick = _Picker(mapping, names)
    prompts = {*mapping.names("prompt"), *mapping.names("messages")}
    # An empty field means "nothing", but of a prompt it means the empty text.
    for record in records:
        if isinstance(record, Bad):
            yield record
            continue
        line, fields = record
        pairs = zip(names, fields, strict=True)
        yield Row(line, pick({n: v for n, v in pairs if v or n in prompts}))


def _json_rows(path: Path, mapping: Mapping) -> Iterator[Record]:
    pick = _Picker(mapping, None)
    for record in json_lines(path):
        yield record if isinstance(record, Bad) else Row(record[0], pick(record[1]))


def _parquet_rows(path: Path, mapping: Mapping) -> Iterator[Record]:
    with open_parquet(path) as file:
        names = file.schema_arrow.names
    wanted = mapping.read()
    columns = [name for name in names if name in wanted]
    pick = _Picker(mapping, columns)
    for number, values in parquet_records(path, columns):
        yield Row(number, pick(values))


class _Picker:
    """Called with the values of a source row, gives those by column of the traffic table."""

    def __init__(self, mapping: Mapping, present: list[str] | None) -> None:
        self._mapping = mapping
        self._values = {
            column: {_as_number(said): meant for said, meant in spelled.items()} | spelled
            for column, spelled in mapping.values.items()
        }
        self._plan = [
            (column, found)
            for column in sorted(NAMES - mapping.constants.keys())
            if (
                found := [
                    n for n in mapping.names(column) if present is None or is_there(n, present)
                ]
            )
        ]

    def __call__(self, source: dict[str, Any]) -> dict[str, Any]:
        picked = dict(self._mapping.constants)
        for column, names in self._plan:
            for name in names:
                if (value := value_of(source, name)) is not None:
                    picked[column] = value
                    break
        for column, spelled in self._values.items():
            if column in picked:
                said = str(picked[column]).lower()
                picked[column] = spelled.get(said, spelled.get(_as_number(said), picked[column]))
        prompt = picked.pop("prompt", None)
        if prompt is not None and picked.get("messages") is None:
            picked["messages"] = _from_prompt(prompt)
        if "model" in picked:
            picked["model"] = bare_model(picked["model"])
        return picked


def _as_number(said: str) -> str:
    """One spelling for 1, 1.0 and true: integers become 1.0 where a null stands among them."""
    try:
        return str(float(TRUTH.get(said, said)))
    except ValueError:
        return said


def _from_prompt(prompt: Any) -> Any:
    if not isinstance(prompt, str) or begins_as_chat(prompt):
        return prompt
    if prompt.lstrip()[:1] == "[":
        try:
            listed = json.loads(prompt)
        except (ValueError, RecursionError):
            return bare_prompt(prompt)
        if is_chat(listed):
            return listed
    return bare_prompt(prompt)
