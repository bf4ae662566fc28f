"""The traffic table: one row per answered call, read from any Parquet file in its layout."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import BadInput
from training.log.imprint import RESPONSE_CHARS, imprints, is_featured, response_chars
from training.log.keys import resolve
from training.log.layout import JOURNAL, arrow_columns, hashes_of, to_arrow
from training.log.normalise import normalise, refusal
from training.log.schemas import common_schema
from training.log.store import stored_files

TRIES, PAUSE = 5, 0.2  # readings of a table that is being written, and seconds between them


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


def _read_parquet(path: Path) -> pa.Table:
    """The table as it is at one moment: where rows are added or removed meanwhile, read again."""
    if not path.exists():
        raise BadInput(f"{path}: no such file; `suffice ingest` makes one from a log")
    for _ in range(TRIES):
        if (before := _files(path)) is not None:
            try:
                table = _read_once(path)
            except BadInput:
                if _files(path) == before:
                    raise
            else:
                if _files(path) == before:
                    return table
        time.sleep(PAUSE)
    raise BadInput(
        f"{path}: rows are being added to it or removed, or were when a job was stopped; wait, or "
        "`suffice ingest` the same log again (`suffice forget` the same people)"
    )


def _files(path: Path) -> list[tuple[Path, int, int]] | None:
    """Which files a table has, and which contents; None while they are being put in place."""
    if (path / JOURNAL).exists():
        return None
    try:
        told = [(file, file.stat()) for file in stored_files(path)]
    except FileNotFoundError:
        return None
    return [(file, stat.st_ino, stat.st_mtime_ns) for file, stat in told]


def _read_once(path: Path) -> pa.Table:
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


def _without_duplicates(frame: pd.DataFrame) -> TrafficTable:
    answered = frame["tier"].where(frame["tier"].notna(), frame["model"])
    again = pd.DataFrame({"id": frame["request_id"], "by": answered}).duplicated(keep=False)
    if not again.any():
        return TrafficTable(frame)
    resolved = resolve([hashes_of(to_arrow(frame[again]))])
    keep = ~again.to_numpy()
    keep[again.to_numpy()] = resolved.keep
    return TrafficTable(frame[keep].reset_index(drop=True), resolved.notes)
