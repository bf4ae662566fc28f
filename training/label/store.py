"""The traffic table as `suffice label` reads and writes it: in batches, whatever its size."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.errors import BadInput
from training.files import whole
from training.label.combine import Labels
from training.label.turns import user_turns
from training.log.imprint import is_featured, needs_text
from training.log.layout import SCHEMA, arrow_columns, to_arrow
from training.log.normalise import normalise, refusal
from training.log.store import stored_files
from training.log.traffic import check_columns, check_whole, no_parquet

BATCH_ROWS = 2048
LABELS = ("score", "score_source", "label_weight")


def traffic_files(traffic: Path) -> list[Path]:
    """The Parquet files of a traffic table, in order, checked for the columns needed."""
    check_whole(traffic)
    files = stored_files(traffic)
    if not files:
        raise BadInput(f"{traffic}: no Parquet file in this folder")
    for path in files:
        try:
            names = pq.read_schema(path).names
        except (pa.ArrowException, OSError) as error:
            raise no_parquet(path, error) from None
        if is_featured(names):
            raise needs_text(path, "labelling")
        check_columns(path, names)
    return files


def read_batches(files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """The rows in batches of SCHEMA.

    Raises:
        BadInput: a row that no rule reads; the message names it.
    """
    for path in files:
        start = 0
        for batch in _raw(path):
            frame, problems = normalise(arrow_columns(batch), len(batch))
            if problems:
                raise BadInput(refusal(path, frame, problems, start))
            start += len(batch)
            yield to_arrow(frame)


def _raw(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    file = pq.ParquetFile(path, pre_buffer=False)
    yield from file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)


def last_turns(files: Sequence[Path], rows: NDArray[np.int64]) -> dict[int, str]:
    """The last user turn of some rows, int64[m] ascending, as it is compared, by row."""
    found: dict[int, str] = {}
    start = 0
    for path in files:
        for batch in _raw(path, ["messages"]):
            low, high = np.searchsorted(rows, [start, start + len(batch)])
            if high > low:
                wanted = rows[low:high]
                texts = batch.column(0).take(pa.array(wanted - start)).to_pylist()
                frame, _ = normalise({"messages": texts}, len(texts))
                for row, text in zip(wanted.tolist(), frame["messages"], strict=True):
                    found[row] = user_turns(json.loads(text))[-1]
            start += len(batch)
    return found


def write_labelled(files: Sequence[Path], out: Path, labels: Labels) -> None:
    """The rows as they are with the labels, beside `out`, then in its place."""
    schemas = [pq.read_schema(path) for path in files]
    try:
        kept = [_unlabelled(schema) for schema in schemas]
        schema = pa.unify_schemas(kept, promote_options="permissive")
    except pa.ArrowException as error:
        told = f"{files[0].parent}: the files have columns of different types ({error})"
        raise BadInput(told) from None
    for name in LABELS:
        schema = schema.append(SCHEMA.field(name))
    schema = schema.with_metadata(schemas[0].metadata)
    start = 0
    with whole(out) as beside, pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        for path in files:
            for batch in _raw(path):
                writer.write_batch(_labelled(batch, schema, labels, start))
                start += len(batch)


def _unlabelled(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name not in LABELS])


def _labelled(
    batch: pa.RecordBatch, schema: pa.Schema, labels: Labels, start: int
) -> pa.RecordBatch:
    stop = start + len(batch)
    new = {
        "score": pa.array(labels.score[start:stop], from_pandas=True),
        "score_source": pa.array(labels.names(start, stop), pa.string()),
        "label_weight": pa.array(labels.weight[start:stop], from_pandas=True),
    }
    arrays = [
        new[field.name]
        if field.name in new
        else batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
