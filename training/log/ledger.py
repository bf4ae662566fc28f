"""What became of every row: counts per file, and which rows stay, in 25 bytes a row."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from training.log.keys import repeated, resolve
from training.log.layout import hashes_of, key_hashes_of

COUNTS = ("read", "ingested", "failed", "duplicate", "skipped", "quarantined")


@dataclass(slots=True)
class FileReport:
    """What became of the rows of one file; read is the sum of the other counts.

    `failed` are calls that failed, kept with status error. `saw` says what the file was seen to be.
    """

    path: str
    format: str
    read: int = 0
    ingested: int = 0
    failed: int = 0
    duplicate: int = 0
    skipped: int = 0
    quarantined: int = 0
    saw: str = field(default="", compare=False)


class Ledger:
    """Hashes of all rows in order, those there already first, and the reports of the files."""

    def __init__(self) -> None:
        self.rows = 0
        self.files: list[FileReport] = []
        self.reasons: Counter[str] = Counter()
        self._hashes: list[Any] = []
        self._failed: list[npt.NDArray[np.bool_]] = []
        self._parts: list[tuple[FileReport | None, int]] = []

    def begin(self, path: str, format: str, saw: str) -> FileReport:
        """A report for a file."""
        self.files.append(FileReport(path, format, saw=saw))
        return self.files[-1]

    def skip(self, report: FileReport, reason: str) -> None:
        """Count a row that is passed over."""
        report.skipped += 1
        self.reasons[reason] += 1

    def know(self, batch: pa.RecordBatch) -> None:
        """Note the rows of the table as it was, before those of any file, by their `KEYS` alone."""
        self.rows += len(batch)
        self._hashes.append(key_hashes_of(batch))
        self._failed.append(np.zeros(len(batch), bool))
        self._parts.append((None, len(batch)))

    def repeated(self, existing: int) -> npt.NDArray[np.bool_]:
        """bool[existing]: rows of the table as it was whose contents are needed, too."""
        return repeated(self._hashes)[:existing]

    def fill(self, needed: npt.NDArray[np.bool_], rows: Iterable[pa.RecordBatch]) -> None:
        """Note the contents of the rows needed, bool[existing], in their order, chunk by chunk."""
        found = (hashes_of(batch)["content"] for batch in rows)
        contents, start = np.empty(0, np.int64), 0
        for hashes in self._hashes:
            if start == len(needed):
                break
            wanted = needed[start : start + len(hashes)]
            count, start = int(wanted.sum()), start + len(hashes)
            while len(contents) < count:
                contents = np.concatenate([contents, next(found)])
            hashes["content"][wanted], contents = contents[:count], contents[count:]

    def add(self, batch: pa.RecordBatch, report: FileReport) -> None:
        """Note the rows of a batch of SCHEMA, of a file."""
        self.rows += len(batch)
        self._hashes.append(hashes_of(batch))
        self._failed.append(np.array(batch.column("status").to_pylist(), object) == "error")
        self._parts.append((report, len(batch)))

    def settle(self) -> tuple[npt.NDArray[np.bool_], list[str]]:
        """Which rows stay (bool[rows]), and notes; the reports get their counts. Once, at the end.

        A row counts where it came from: one that a later row replaces is a duplicate of its file.
        """
        resolved = resolve(self._hashes)
        failed = np.concatenate([np.empty(0, bool), *self._failed])
        start = 0
        for report, rows in self._parts:
            kept = resolved.keep[start : start + rows]
            if report is not None:
                lost = int((kept & failed[start : start + rows]).sum())
                report.duplicate += rows - int(kept.sum())
                report.failed += lost
                report.ingested += int(kept.sum()) - lost
            start += rows
        notes = [f"{count} rows skipped: {why}" for why, count in self.reasons.most_common()]
        return resolved.keep, [*notes, *resolved.notes]
