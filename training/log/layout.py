"""The layout of the traffic table: its columns and keys, and how they come from Arrow and go to it.

`SCHEMA` is the contract (data/README.md explains it to users).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from training.log.columns import Column
from training.log.imprint import TEXT_HASH
from training.log.keys import key_hashes, row_hashes

SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("session_id", pa.string()),
        ("user_id", pa.string()),
        ("messages", pa.string()),
        ("tier", pa.string()),
        ("model", pa.string()),
        ("propensity", pa.float64()),
        ("sample_probability", pa.float64()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("latency_ms", pa.float64()),
        ("response", pa.string()),
        ("reference", pa.string()),
        ("source", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("score", pa.float64()),
        ("score_source", pa.string()),
        ("label_weight", pa.float64()),
        ("status", pa.string()),
    ]
)
KEYS = ("request_id", "tier", "model")
JOURNAL = ".suffice-commit.json"  # in a folder of partitions: an append that is not finished
NUMBERS = tuple(f.name for f in SCHEMA if f.type in (pa.float64(), pa.int64()))


def to_arrow(frame: pd.DataFrame) -> pa.RecordBatch:
    """A frame as `normalise` makes it → a batch of SCHEMA."""
    arrays = []
    for field in SCHEMA:
        column = frame[field.name]
        if field.name in NUMBERS:
            values = column.to_numpy(np.float64)
            numbers = pa.array(values, mask=np.isnan(values))
            arrays.append(numbers.cast(field.type))
        else:
            arrays.append(pa.array(_plain(column), field.type, from_pandas=True))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def hashes_of(batch: pa.RecordBatch) -> Any:
    """Key and content hashes of a batch of the table, also without text (training.log.keys)."""
    names = [name for name in (*SCHEMA.names, TEXT_HASH) if name in batch.schema.names]
    values = {name: _hashable(batch.column(name)) for name in names}
    scored = batch.column("score").is_valid().to_numpy(zero_copy_only=False)
    return row_hashes(_keys(values), zip(*values.values(), strict=True), scored)


def key_hashes_of(batch: pa.RecordBatch) -> Any:
    """Key hashes alone, of a batch that has the columns `KEYS`."""
    return key_hashes(_keys({name: _hashable(batch.column(name)) for name in KEYS}))


def _keys(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for request, tier, model in zip(*(values[name] for name in KEYS), strict=True):
        yield request, tier if tier is not None else model


def arrow_columns(table: pa.Table | pa.RecordBatch) -> dict[str, Column]:
    """The columns of SCHEMA that an Arrow table has, as arrays that `normalise` reads."""
    return {
        name: _array(table.column(name), name in NUMBERS)
        for name in table.schema.names
        if name in SCHEMA.names
    }


def _array(column: Any, numeric: bool) -> Column:
    """An Arrow column as float64 where its numbers count, a Series of times, else objects."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_timestamp(kind):
        return pd.Series(column.to_pandas())
    if numeric and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return column.to_numpy(zero_copy_only=False)
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    return values


def _plain(column: pd.Series) -> npt.NDArray[Any]:
    """Times without their zone (UTC), the other columns as they are."""
    return (column.dt.tz_convert(None) if column.name == "at" else column).to_numpy()


def _hashable(column: Any) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values = column.to_pylist()
    return [tuple(v or ()) for v in values] if pa.types.is_list(column.type) else values
