"""The Parquet file of a traffic table: written in bounded row groups, read back in batches."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import BadInput
from training.traffic import SCHEMA, arrow_columns, normalise, refusal, to_arrow

GROUP_ROWS, GROUP_BYTES, GROUP_BATCHES = 2**15, 2**25, 64
BATCH_ROWS = 4096
LABEL = b"suffice.ids"  # file metadata: how user and session ids were replaced
REPEATING = ["session_id", "user_id", "tier", "model", "source", "finish_reason", "score_source"]


def read_label(path: Path) -> str | None:
    """How ids were replaced in a table that `Writer` wrote, None for any other file."""
    label = (_open(path).schema_arrow.metadata or {}).get(LABEL)
    return label.decode() if label else None


class Writer:
    """Writes batches of SCHEMA; memory stays at one row group."""

    def __init__(self, path: Path, label: str) -> None:
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self._file = pq.ParquetWriter(
            path,
            SCHEMA.with_metadata({LABEL: label.encode()}),
            compression="zstd",
            use_dictionary=[*REPEATING, "status"],
            write_statistics=["at", "tier", "model", "source"],  # small: metadata stays in memory
        )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return
        self._pending.append(batch)
        if len(self._pending) > GROUP_BATCHES:  # a filtered batch holds more than its rows
            self._pending = pa.Table.from_batches(self._pending).combine_chunks().to_batches()
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_batches(self._pending), GROUP_ROWS * 2)
        self._pending, self._rows, self._bytes = [], 0, 0
        pa.default_memory_pool().release_unused()  # else freed pages add up over a long run


def stored_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a table in batches of SCHEMA; none where there is no file.

    A file that `Writer` did not write is normalised; BadInput where that fails, and where it has
    columns of its own, which a rewrite would lose.
    """
    if not path.exists():
        return
    file = _open(path)
    ours = file.schema_arrow.equals(SCHEMA) and read_label(path) is not None
    if other := [name for name in file.schema_arrow.names if name not in SCHEMA.names]:
        raise BadInput(
            f"{path}: has columns that ingest does not keep ({', '.join(other)}); "
            "choose another --out and merge later"
        )
    for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
        yield batch.cast(SCHEMA) if ours else _normalised(path, batch)


def _normalised(path: Path, batch: pa.RecordBatch) -> pa.RecordBatch:
    frame, problems = normalise(arrow_columns(batch), len(batch))
    if problems:
        raise BadInput(refusal(path, frame, problems))
    return to_arrow(frame)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a whole Parquet file ({error})") from None
