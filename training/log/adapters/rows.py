"""What reading a log yields: a row of the traffic table, a row to pass over, or a bad one."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One answered call: `values` by column of the traffic table, as the source spells them.

    `line` is the physical line of a text file (from 1) or the row of a Parquet file (from 1). Types
    need no care here: `log.normalise` reads times, numbers, lists and messages in any spelling.
    """

    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Skip:
    """A row that is no chat call, or whose text the logger cut or withheld; `reason` says which."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Again:
    """An older state of a row that the log holds again: counted as a duplicate."""

    line: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be read; it goes to the quarantine file with its raw text (its start).

    `bare` is the reason without a word of the row, where `reason` may quote one.
    """

    line: int
    reason: str
    raw: str
    bare: str = ""


Record = Row | Skip | Again | Bad
