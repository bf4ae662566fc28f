"""Read tensors from a .safetensors file with numpy alone, so that a static model needs no extra.

The format (github.com/huggingface/safetensors): eight bytes little-endian length, a JSON header of
dtype, shape and offsets by name, then the raw numbers.
"""

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_DTYPES: Final = _FLOATS | {"I64": "<i8", "I32": "<i4"}
_MAX_HEADER: Final = 100_000_000


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a file by its name; bfloat16 becomes float32.

    Raises:
        ValueError: the file is cut short, or its header is damaged or names another dtype.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER, size - 8):
            raise ValueError("it is not a whole safetensors file")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    return {name: _tensor(path, 8 + length, size, entry) for name, entry in header.items()}


def _tensor(path: Path, base: int, size: int, entry: Any) -> NDArray[Any]:
    try:
        kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        dtype, count = np.dtype(_DTYPES[kind]), math.prod(shape)
        whole = start >= 0 and end - start == count * dtype.itemsize and base + end <= size
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"its header holds {entry!r}, which is no tensor known here") from error
    if not whole or min(shape, default=0) < 0:
        raise ValueError(f"a tensor of shape {shape} does not lie at bytes {start} to {end}")
    values = np.fromfile(path, dtype=dtype, count=count, offset=base + start).reshape(shape)
    if kind == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values
