"""The log formats that `ingest` reads, one small file each.

A format of records (a JSON object a line, or the rows of a table) is an `Adapter`: `saw` says what
one record is, or None; `rows` yields a dict by column of the traffic table for each call in it, or
the reason to skip it. Files that belong together have `join` in place of `rows`. The two table
formats read whole files and are `FileFormat`s. Others add theirs under the entry point group
`suffice.adapters` (data/README.md has an example).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from training.errors import EnvironmentProblem
from training.log.adapters import (
    langfuse,
    litellm,
    mlflow,
    openai,
    otel,
    routellm,
    suffice,
    table,
)
from training.log.adapters.mapping import Mapping, read_mapping
from training.log.adapters.records import Rows
from training.log.adapters.rows import Again, Bad, Record, Row, Skip

__all__ = [
    "ADAPTERS",
    "Adapter",
    "Again",
    "Bad",
    "FileFormat",
    "Mapping",
    "Record",
    "Row",
    "Skip",
    "adapters",
    "read_mapping",
]
GROUP = "suffice.adapters"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A format of records; exactly one of `rows` and `join` is given.

    saw: a record → what it is, in words for people; None where it is not of this format.
    rows: a record → its calls by column, or the reason why there is none.
    join: the files of one call, as (path, what was seen) → (number of the file, record).
    """

    saw: Callable[[dict[str, Any]], str | None]
    rows: Rows | None = None
    join: Callable[[Sequence[tuple[Path, str]]], Iterator[tuple[int, Record]]] | None = None


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format of whole files.

    recognise: what a file was seen to be and what of it is not read, or (None, why it is none).
    """

    recognise: Callable[[Path, Mapping], tuple[str | None, str]]
    rows: Callable[[Path, Mapping], Iterator[Record]]


# In the order in which `--format auto` asks them: the narrower first.
ADAPTERS: dict[str, Adapter | FileFormat] = {
    "routellm": FileFormat(routellm.recognise, routellm.rows),
    "suffice": Adapter(suffice.saw, join=suffice.join),
    "litellm": Adapter(litellm.saw, litellm.rows),
    "mlflow": Adapter(mlflow.saw, mlflow.rows),
    "openai": Adapter(openai.saw, join=openai.join),
    "otel": Adapter(otel.saw, join=otel.join),
    "langfuse": Adapter(langfuse.saw, join=langfuse.join),
    "table": FileFormat(table.recognise, table.rows),
}


def adapters() -> dict[str, Adapter | FileFormat]:
    """The formats of Suffice and, before its general one, those that others have registered."""
    known = dict(ADAPTERS)
    last = known.pop("table")
    for entry in entry_points(group=GROUP):
        if entry.name in ADAPTERS:
            raise EnvironmentProblem(
                f"the entry point {entry.value} of {GROUP} is named {entry.name}, as a format of "
                "Suffice is; rename it"
            )
        try:
            found = entry.load()
        except Exception as error:
            raise EnvironmentProblem(
                f"the log format {entry.name} cannot be loaded from {entry.value} ({error})"
            ) from error
        if not isinstance(found, Adapter):
            raise EnvironmentProblem(f"{entry.value} is not a training.log.adapters.Adapter")
        known[entry.name] = found
    return {**known, "table": last}
