"""A traffic table as a folder: `day=2026-11-23/part-….parquet`, a file a day and append.

An append first writes its files beside their places, under names that readers pass over. Then it
writes one journal of the files to move, replace and remove: from that moment on the append counts.
Whoever opens the folder to write finishes what a journal says, so a kill at any point loses and
doubles nothing; readers refuse the folder until then.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.log.layout import JOURNAL, KEYS
from training.log.store import (
    GROUP_BYTES,
    Writer,
    copy_rows,
    stored_batches,
    stored_files,
    wanted_rows,
)

UNTIMED = "__HIVE_DEFAULT_PARTITION__"  # where rows without a time go, as Hive and Arrow name it
OPEN_FILES, PENDING_BYTES = 128, 2 * GROUP_BYTES
DAY = 86_400 * 10**6  # microseconds


class Folder:
    """A table with a partition a day; rows of one day of one append are one file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._made = not path.exists()
        recover(path)
        self._parts = stored_files(path)
        self._stored_rows: list[int] = []
        self._run = f"{time.time_ns():016x}"
        self._open: dict[str, tuple[int, Writer]] = {}
        self._files: list[Path] = []
        self._numbers: list[npt.NDArray[np.int32]] = []

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        _sweep(self._path)
        if self._made and self._path.is_dir() and not any(self._path.iterdir()):
            self._path.rmdir()

    def stored_keys(self) -> Iterator[pa.RecordBatch]:
        """`KEYS` (at least) of the rows that are there already; to be read once."""
        for part in self._parts:
            rows = 0
            for batch in stored_batches(part, self._schema, KEYS):
                rows += len(batch)
                yield batch
            self._stored_rows.append(rows)

    def stored_rows(self, wanted: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
        """Those of these rows that are wanted, bool[existing], whole."""
        ends = np.cumsum(self._stored_rows)
        for part, end, rows in zip(self._parts, ends, self._stored_rows, strict=True):
            if wanted[end - rows : end].any():
                yield from wanted_rows(part, self._schema, wanted[end - rows : end])

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; they are not seen before `commit`."""
        if not len(batch):
            return
        days = _days(batch)
        order = np.argsort(days, kind="stable")
        found, starts = np.unique(days[order], return_index=True)
        sorted_rows = batch if len(found) == 1 else batch.take(pa.array(order))
        numbers = np.empty(len(batch), np.int32)
        for day, start, end in zip(found, starts, [*starts[1:], len(batch)], strict=True):
            number, writer = self._writer(str(day))
            writer.write(sorted_rows.slice(start, end - start))
            numbers[order[start:end]] = number
        self._numbers.append(numbers)
        if len(self._open) > OPEN_FILES:
            self._close()
        elif sum(w.pending_bytes for _, w in self._open.values()) > PENDING_BYTES:
            for _, writer in self._open.values():
                writer.flush()

    def commit(self, keep: npt.NDArray[np.bool_], existing: int) -> None:
        """Keep, of the existing rows and then of those written, the ones in `keep`, bool[rows]."""
        self._close()
        moves: list[tuple[Path, Path]] = []
        gone: list[Path] = []
        ends = np.cumsum(self._stored_rows)
        for part, end, rows in zip(self._parts, ends, self._stored_rows, strict=True):
            self._thin(part, part, keep[end - rows : end], moves, gone)
        numbers = np.concatenate([np.empty(0, np.int32), *self._numbers])
        for number, beside in enumerate(self._files):
            kept = keep[existing:][numbers == number]
            if kept.all():
                moves.append((beside, _place(beside)))
            else:
                self._thin(beside, _place(beside), kept, moves, [])
        commit(self._path, moves, gone)

    def _thin(
        self,
        part: Path,
        place: Path,
        keep: npt.NDArray[np.bool_],
        moves: list[tuple[Path, Path]],
        gone: list[Path],
    ) -> None:
        """Plan that only some rows of a file remain, in their order."""
        if keep.all():
            return
        if not keep.any():
            gone.append(part)
            return
        beside = place.with_name(f".{self._run}-{len(moves)}.{place.name}.part")
        with Writer(beside, self._schema) as writer:
            copy_rows(part, self._schema, keep, writer)
        moves.append((beside, place))

    def _writer(self, day: str) -> tuple[int, Writer]:
        if day not in self._open:
            number = len(self._files)
            folder = self._path / f"day={UNTIMED if day == 'NaT' else day}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f".part-{self._run}-{number:04d}.parquet.part"
            self._files.append(path)
            self._open[day] = (number, Writer(path, self._schema))
        return self._open[day]

    def _close(self) -> None:
        for _, writer in self._open.values():
            writer.close()
        self._open = {}


def recover(folder: Path) -> None:
    """Finish the append whose journal is there, and clear away one that came to none."""
    journal = folder / JOURNAL
    if journal.exists():
        _apply(folder, json.loads(journal.read_text("utf-8")))
        journal.unlink()
    _sweep(folder)


def commit(folder: Path, moves: list[tuple[Path, Path]], gone: list[Path]) -> None:
    """Move files to their places and remove others, all of it or (after a kill) on `recover`."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "move": [[str(path.relative_to(folder)) for path in pair] for pair in moves],
        "remove": [str(path.relative_to(folder)) for path in gone],
    }
    beside = folder / f"{JOURNAL}.part"
    beside.write_text(json.dumps(plan), "utf-8")
    beside.replace(folder / JOURNAL)
    recover(folder)


def _apply(folder: Path, plan: dict[str, Any]) -> None:
    """Do what a journal says; doing it again, or from the middle, comes to the same."""
    for beside, place in plan["move"]:
        if (folder / beside).exists():
            (folder / beside).replace(folder / place)
    for place in plan["remove"]:
        (folder / place).unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove files of appends that were not finished, and partitions that hold nothing."""
    if (folder / JOURNAL).exists():
        return
    for stray in folder.rglob(".*.part"):
        stray.unlink(missing_ok=True)
    for day in folder.glob("day=*"):
        if day.is_dir() and not any(day.iterdir()):
            day.rmdir()


def _place(beside: Path) -> Path:
    return beside.with_name(beside.name.removeprefix(".").removesuffix(".part"))


def _days(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    """datetime64[D][n], NaT where there is no time."""
    times = batch.column("at")
    micros = times.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    days = (micros // DAY).astype("datetime64[D]")
    days[times.is_null().to_numpy(zero_copy_only=False)] = np.datetime64("NaT", "D")
    return days
