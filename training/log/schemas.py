"""What columns a folder of Parquet files has, where a log changed over time."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset

from training.errors import BadInput


def common_schema(folder: Path) -> pa.Schema:
    """All columns of all files; by itself Arrow would take those of the first file alone.

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
