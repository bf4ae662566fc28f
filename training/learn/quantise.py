"""Quantise token rows to the whole numbers that `StaticEmbedder` adds up."""

import numpy as np
from numpy.typing import NDArray

_CHUNK = 8192


def quantise(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """Return vectors int8[v, d] and weights uint8[v] with ``weights[i] * vectors[i] ∝ rows[i]``.

    One factor holds for the whole table, so that rows keep their lengths against each other. A
    weight is rounded up, never down: a vector then fits −127…127 without clipping. Zero stays zero.

    Raises:
        ValueError: `rows` is not float[v, d], or holds NaN or infinity.
    """
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
        raise ValueError(f"rows must be float[vocabulary, dim], got {rows.dtype}{rows.shape}")
    peaks = np.abs(rows).max(axis=1, initial=0).astype(np.float64)
    if not np.isfinite(peaks).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(peaks)))} holds NaN or infinity")
    unit = (peaks.max(initial=0) or 1.0) / 255
    weights = np.clip(np.ceil(peaks / unit), 1, 255).astype(np.uint8)
    vectors = np.empty(rows.shape, dtype=np.int8)
    for part in _chunks(len(rows)):
        scale = 127 / (weights[part, None] * unit)
        vectors[part] = np.clip(np.rint(rows[part] * scale), -127, 127).astype(np.int8)
    return vectors, weights


def row_cosines(rows: NDArray[np.float32], vectors: NDArray[np.int8]) -> NDArray[np.float64]:
    """Cosine of each row with its quantised vector: float64[n], of the n rows that are not zero."""
    found = []
    for part in _chunks(len(rows)):
        exact, coarse = rows[part].astype(np.float64), vectors[part].astype(np.float64)
        length = np.linalg.norm(exact, axis=1)
        known = length > 0
        lengths = length[known] * np.maximum(np.linalg.norm(coarse[known], axis=1), 1.0)
        found.append((exact[known] * coarse[known]).sum(axis=1) / lengths)
    return np.concatenate(found) if found else np.empty(0)


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]
