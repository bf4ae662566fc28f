"""Parquet files of a log: opened, and the columns of a folder of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset

from training.errors import BadInput


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file, to be read in bounded memory; BadInput where it is none, or not whole."""
    try:
        return pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a whole Parquet file ({error})") from None


def common_schema(folder: Path) -> pa.Schema:
    """The columns of all Parquet files of a folder; Arrow by itself takes those of the first file.

    Raises:
        BadInput: a column changed its type from one file to another.
    """
    common = pa.schema([])
    for file in dataset(folder, format="parquet", partitioning=None).files:
        own = pq.read_schema(file).remove_metadata()
        try:
            common = pa.unify_schemas([common, own], promote_options="permissive")
        except pa.ArrowTypeError:
            changed = [name for name in own.names if name in common.names]
            name = next(n for n in changed if not _joinable(common.field(n), own.field(n)))
            raise BadInput(
                f"{file}: column {name} is {own.field(name).type}, in the files before it "
                f"{common.field(name).type}: the log changed half-way; `suffice ingest` the "
                "newer part again, with a --map that gives the older meaning"
            ) from None
    return common


def _joinable(one: pa.Field, other: pa.Field) -> bool:
    try:
        pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive")
    except pa.ArrowTypeError:
        return False
    return True
