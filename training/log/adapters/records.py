"""Any file as JSON records: objects a line, one array of them, the rows of a CSV or Parquet table.

Formats that are JSON (or tables with JSON in their cells) are read from these by one function from
a record to rows.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from training.errors import BadInput
from training.log.adapters.files import (
    DAMAGED,
    RAW_LIMIT,
    csv_records,
    delimited,
    head,
    json_lines,
    open_bytes,
    raw_lines,
    read_json,
)
from training.log.adapters.rows import Bad, Record, Row, Skip
from training.log.parquet import open_parquet

Numbered = tuple[int, dict[str, Any]]
Rows = Callable[[dict[str, Any]], Iterable[dict[str, Any] | str]]
# What a function over a record of any shape may raise: the record is bad, the reading goes on.
UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
SAMPLE, ARRAY_LIMIT = 200, 2**28  # records looked at; bytes of an array, which is read at once
FIRST_LINES = 5  # looked at where a file does not begin as JSON does


def kind_of(path: Path) -> str:
    """Parquet, JSONL (an object a line), array, empty, or else CSV, by the first bytes.

    A rotated log may begin in the middle of a line, or with what somebody else wrote: if one of the
    first lines is an object, it is JSONL all the same.
    """
    first = head(path)
    if first[:4] == b"PAR1":
        return "Parquet"
    start = first.lstrip()[:1]
    kind = {b"": "empty", b"{": "JSONL", b"[": "array"}.get(start, "CSV")
    if kind in ("CSV", "array"):
        begun, *rest = [*_first_lines(path), b""]
        ended = kind == "CSV" or begun.rstrip().endswith(b"}")  # an array's line has "," or "]"
        if ended and any(map(_is_object, rest)):
            return "JSONL"
    return kind


def _first_lines(path: Path) -> Iterator[bytes]:
    found = (raw for _, raw, problem in raw_lines(path) if not problem and raw.strip())
    return islice(found, FIRST_LINES)


def _is_object(raw: bytes) -> bool:
    if raw.lstrip()[:1] != b"{":
        return False
    try:
        return isinstance(orjson.loads(raw), dict)
    except ValueError:
        return False


def records(path: Path) -> Iterator[Numbered | Bad]:
    """The records of one file with their line (row, in Parquet; place, in an array), from 1."""
    kind = kind_of(path)
    if kind == "JSONL":
        yield from json_lines(path)
    elif kind == "Parquet":
        yield from parquet_records(path)
    elif kind == "array":
        yield from _array(path)
    elif kind == "CSV":
        yield from _csv(path)


def sample(path: Path) -> list[dict[str, Any]]:
    """The readable ones of a file's first records."""
    return [found[1] for found in islice(records(path), SAMPLE) if not isinstance(found, Bad)]


def applied(rows: Rows, numbered: Iterable[Numbered | Bad]) -> Iterator[Record]:
    """A format's function over records: a dict is a row, text is a reason to skip one.

    What the function cannot read (it raises one of UNREADABLE) is a bad record, never an end.
    """
    for record in numbered:
        if isinstance(record, Bad):
            yield record
            continue
        line, values = record
        try:
            found = list(rows(values))
        except UNREADABLE as error:
            yield bad(line, values, error)
            continue
        for made in found:
            yield Skip(line, made) if isinstance(made, str) else Row(line, made)


def bad(line: int, values: dict[str, Any], error: Exception) -> Bad:
    """A record that a format's function could not read."""
    told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    if isinstance(error, KeyError):
        told = f"no field {error}"
    raw = json.dumps(values, default=str)[:RAW_LIMIT]
    return Bad(line, told or "cannot be read", raw, f"cannot be read ({type(error).__name__})")


def decoded(value: Any) -> Any:
    """A JSON object or list that may be there as its text; other text and values as they are."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value[:100].lstrip()[:1] in ("{", "["):
        try:
            return read_json(value)
        except (ValueError, RecursionError):
            return value
    return value


def decoded_object(value: Any) -> dict[str, Any]:
    """A JSON object that may be there as its text; an empty one for anything else."""
    found = decoded(value)
    return found if isinstance(found, dict) else {}


def parquet_records(path: Path, columns: list[str] | None = None) -> Iterator[Numbered]:
    """The rows of a Parquet file (of some columns); BadInput where it is damaged."""
    number = 0
    try:
        with open_parquet(path) as file:
            for batch in file.iter_batches(1024, columns=columns):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: damaged after row {number} ({error})") from None


def _array(path: Path) -> Iterator[Numbered | Bad]:
    try:
        with open_bytes(path) as file:
            text = file.read(ARRAY_LIMIT)
    except DAMAGED as error:
        yield Bad(1, f"the compressed file is damaged ({error})", "")
        return
    start = text[:RAW_LIMIT].decode("utf-8", "replace")
    if len(text) == ARRAY_LIMIT:
        yield Bad(1, "a JSON array of more than 256 MiB (convert: jq -c '.[]')", start)
        return
    try:
        values = read_json(text.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        yield Bad(1, f"not a whole JSON array ({error})", start)
        return
    for number, value in enumerate(values, 1):
        if isinstance(value, dict):
            yield number, value
        else:
            yield Bad(number, "not a JSON object", json.dumps(value)[:RAW_LIMIT])


def _csv(path: Path) -> Iterator[Numbered | Bad]:
    delimiter, names = delimited(path)
    found = csv_records(path, delimiter)
    if isinstance(next(found, None), Bad | None):
        return
    for record in found:
        if isinstance(record, Bad):
            yield record
        else:
            yield record[0], dict(zip(names, record[1], strict=True))
