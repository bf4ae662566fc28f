"""The log formats that `ingest` reads, one small file each.

An adapter has two functions: `recognise(path, mapping)` says what a file was seen to be, by its
content, or why it is not of this format; `rows(path, mapping)` streams its `Row`, `Skip` and `Bad`
records.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.adapters import routellm, table
from training.adapters.rows import Bad, Record, Row, Skip
from training.adapters.table import Mapping, read_mapping

__all__ = ["ADAPTERS", "Adapter", "Bad", "Mapping", "Record", "Row", "Skip", "read_mapping"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A format: its two functions, and the file names that a folder of such logs holds."""

    recognise: Callable[[Path, Mapping], tuple[str | None, str]]
    rows: Callable[[Path, Mapping], Iterator[Record]]
    suffixes: frozenset[str]


# In the order in which `--format auto` asks them: the narrower first.
ADAPTERS: dict[str, Adapter] = {
    "routellm": Adapter(routellm.recognise, routellm.rows, frozenset({".csv"})),
    "table": Adapter(
        table.recognise,
        table.rows,
        frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"}),
    ),
}
