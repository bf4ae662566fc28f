"""Parquet files of a log."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.errors import BadInput


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file, to be read in bounded memory; BadInput where it is none, or not whole."""
    try:
        return pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a whole Parquet file ({error})") from None
