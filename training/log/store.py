"""A traffic table on disk, as one Parquet file: written in bounded row groups, read in batches.

`training.log.partitions` has the same for a folder with a partition a day.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import BadInput
from training.log.imprint import MADE_BY, is_featured
from training.log.layout import KEYS, arrow_columns, to_arrow
from training.log.normalise import normalise, refusal
from training.log.parquet import open_parquet

GROUP_ROWS, GROUP_BYTES, GROUP_BATCHES = 2**15, 2**25, 64
BATCH_ROWS = 4096
LABEL = b"suffice.ids"  # file metadata: how user and session ids were replaced
REPEATING = ["session_id", "user_id", "tier", "model", "source", "finish_reason", "score_source"]


def read_label(table: Path) -> str | None:
    """How ids were replaced in a table that `Writer` wrote, None for any other."""
    for path in stored_files(table)[:1]:
        with open_parquet(path) as file:
            label = (file.schema_arrow.metadata or {}).get(LABEL)
        return label.decode() if label else None
    return None


def stored_files(table: Path) -> list[Path]:
    """The Parquet files of a table in order: itself, or those in the folder that it is."""
    if not table.is_dir():
        return [table] if table.exists() else []
    found = sorted(table.rglob("*.parquet"))
    return [f for f in found if not any(p.startswith(".") for p in f.relative_to(table).parts)]


def labelled(schema: pa.Schema, label: str) -> pa.Schema:
    """The schema with the label that `read_label` finds."""
    return schema.with_metadata({LABEL: label.encode()})


class Writer:
    """Writes batches of a schema, as `labelled` makes it; memory stays at one row group."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.pending_bytes = 0
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0
        self._file = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            use_dictionary=[*REPEATING, "status", *({MADE_BY} & set(schema.names))],
            write_statistics=["at", "tier", "model", "source"],  # small: metadata stays in memory
        )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add a batch."""
        if not len(batch):
            return
        self._pending.append(batch)
        if len(self._pending) > GROUP_BATCHES:  # a filtered batch holds more than its rows
            self._pending = pa.Table.from_batches(self._pending).combine_chunks().to_batches()
        self._rows += len(batch)
        self.pending_bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self.pending_bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as a row group."""
        if self._rows:
            self._file.write_table(pa.Table.from_batches(self._pending), GROUP_ROWS * 2)
        self._pending, self._rows, self.pending_bytes = [], 0, 0
        pa.default_memory_pool().release_unused()  # else freed pages add up over a long run

    def close(self) -> None:
        """End the file."""
        self.flush()
        self._file.close()


class OneFile:
    """A table in one file: rows are added beside it, then one new file replaces it."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._new, self._merged = (
            path.with_name(f".{path.name}.{name}.part") for name in ("new", "merged")
        )
        self._writer = Writer(self._new, schema)

    def __enter__(self) -> "OneFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        for temporary in (self._new, self._merged):
            temporary.unlink(missing_ok=True)

    def stored_keys(self) -> Iterator[pa.RecordBatch]:
        """`KEYS` (at least) of the rows that are there already."""
        return stored_batches(self._path, self._schema, KEYS)

    def stored_rows(self, wanted: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
        """Those of these rows that are wanted, bool[existing], whole."""
        return wanted_rows(self._path, self._schema, wanted)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; they are not seen before `commit`."""
        self._writer.write(batch)

    def commit(self, keep: npt.NDArray[np.bool_], existing: int) -> None:
        """Keep, of the existing rows and then of those written, the ones in `keep`, bool[rows]."""
        self._writer.close()
        fresh = self._new
        if existing or not keep.all():
            fresh = self._merged
            with Writer(self._merged, self._schema) as writer:
                copy_rows(self._path, self._schema, keep[:existing], writer)
                copy_rows(self._new, self._schema, keep[existing:], writer)
        fresh.replace(self._path)


def copy_rows(path: Path, schema: pa.Schema, keep: npt.NDArray[np.bool_], writer: Writer) -> None:
    """Write the rows of the file `path` that are kept, bool[rows]."""
    for batch in wanted_rows(path, schema, keep):
        writer.write(batch)


def wanted_rows(
    path: Path, schema: pa.Schema, wanted: npt.NDArray[np.bool_]
) -> Iterator[pa.RecordBatch]:
    """The wanted rows (bool[rows]) of one file, in batches of the schema."""
    start = 0
    for batch in stored_batches(path, schema):
        part = wanted[start : start + len(batch)]
        start += len(batch)
        if part.any():
            yield batch if part.all() else batch.filter(pa.array(part))


def stored_batches(
    path: Path, schema: pa.Schema, columns: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """The rows of one file in batches of the schema; none where there is no file.

    Of a file that `Writer` wrote, only the `columns`, if any are named. Any other is normalised,
    whole; BadInput where that fails, and where it has columns of its own, which a rewrite would
    lose.
    """
    if not path.exists():
        return
    with open_parquet(path) as file:
        label = (file.schema_arrow.metadata or {}).get(LABEL)
        ours = file.schema_arrow.equals(schema) and label is not None
        if other := [name for name in file.schema_arrow.names if name not in schema.names]:
            raise BadInput(
                f"{path}: has columns that ingest does not keep ({', '.join(other)}); "
                "choose another --out and merge later"
            )
        if not ours and is_featured(schema.names):
            raise BadInput(
                f"{path}: its columns are not as ingest wrote them; choose another --out"
            )
        kept = pa.schema([schema.field(name) for name in columns or schema.names])
        names = kept.names if ours else None
        for batch in file.iter_batches(BATCH_ROWS, columns=names, use_threads=False):
            yield batch.select(kept.names).cast(kept) if ours else _normalised(path, batch, kept)


def _normalised(path: Path, batch: pa.RecordBatch, kept: pa.Schema) -> pa.RecordBatch:
    frame, problems = normalise(arrow_columns(batch), len(batch))
    if problems:
        raise BadInput(refusal(path, frame, problems))
    return to_arrow(frame).select(kept.names)
