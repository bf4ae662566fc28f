"""Which rows say the same thing twice, found in 24 bytes a row.

A row is known by a 128-bit hash of its key and a 64-bit hash of its content, whose last bit says
whether it has a score. Hashes are kept in plain arrays and compared at the end, part by part, so
that no set of strings ever grows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

PART, PARTS = 2**16, 64  # rows sorted at a time, and at most so many passes
HASHES = np.dtype([("high", "<u8"), ("low", "<u8"), ("content", "<i8")])


@dataclass(frozen=True, slots=True)
class Resolved:
    """Which of n rows are kept, one of each key.

    Attributes:
        keep: bool[n].
        identical, conflicting: dropped rows with the content of the kept one, and with another.
        unscored: the conflicting ones that have a score where the kept one has none.
    """

    keep: npt.NDArray[np.bool_]
    identical: int
    conflicting: int
    unscored: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped, in words; none where nothing was."""
        told = []
        if self.identical:
            told.append(f"{self.identical} identical duplicate rows dropped")
        if self.conflicting:
            told.append(
                f"{self.conflicting} rows dropped whose request_id and tier come again with other "
                "values: the last one counts"
            )
        if self.unscored:
            told.append(
                f"{self.unscored} of these had a score, and the last one has none: give their "
                "outcomes or feedback again, too"
            )
        return tuple(told)


def key_hashes(keys: Iterable[tuple[str, str]]) -> Any:
    """HASHES[n] of (request_id, tier or model) pairs; content is 0."""
    digests = b"".join(
        blake2b(f"{len(first)}:{first}{second}".encode(), digest_size=16).digest()
        for first, second in keys
    )
    pairs = np.frombuffer(digests, "<u8").reshape(-1, 2)
    hashes = np.zeros(len(pairs), HASHES)
    hashes["high"], hashes["low"] = pairs[:, 0], pairs[:, 1]
    return hashes


def row_hashes(
    keys: Iterable[tuple[str, str]],
    contents: Iterable[tuple[Any, ...]],
    scored: npt.NDArray[np.bool_],
) -> Any:
    """HASHES[n] of (request_id, tier or model) pairs and of the rows' values.

    Contents are compared by Python's own hash: it is salted, so it holds within one process only.
    `scored` are the rows with a score, bool[n].
    """
    hashes = key_hashes(keys)
    hashes["content"] = [hash(content) for content in contents]
    hashes["content"] = hashes["content"] & ~1 | scored
    return hashes


def repeated(chunks: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """bool[rows]: the row's key comes more than once (or, by half of its hash, seems to)."""
    again = np.zeros(_count(chunks), bool)
    for rows, hashes in _parts(chunks):
        order = np.argsort(hashes["high"])
        high = hashes["high"][order]
        same = high[1:] == high[:-1]
        again[rows[order[1:][same]]] = again[rows[order[:-1][same]]] = True
    return again


def resolve(chunks: Sequence[Any]) -> Resolved:
    """Keep of each key the content that came last, at the place where that content first stood.

    So reading a log again, or a log that repeats itself, keeps the rows that are already there.
    `chunks` are HASHES[m] arrays in row order; peak memory is theirs and one byte a row.
    """
    keep = np.ones(_count(chunks), bool)
    identical = conflicting = unscored = 0
    for rows, hashes in _parts(chunks):
        dropped, kept = _dropped(hashes)
        keep[rows[dropped]] = False
        was, stays = hashes["content"][dropped], hashes["content"][kept]
        identical += int((was == stays).sum())
        conflicting += int((was != stays).sum())
        unscored += int((was & ~stays & 1).sum())
    return Resolved(keep, identical, conflicting, unscored)


def _count(chunks: Sequence[Any]) -> int:
    return sum(len(chunk) for chunk in chunks)


def _parts(chunks: Sequence[Any]) -> Iterator[tuple[npt.NDArray[np.intp], Any]]:
    """Row numbers, intp[m], and HASHES[m], part by part; rows of one key are in one part.

    A sort takes 120 bytes a row: in 64 parts that is 2 bytes over all rows.
    """
    starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
    parts = min(PARTS, int(starts[-1]) // PART + 1)
    for part in range(parts):
        found = [np.flatnonzero(chunk["high"] % np.uint64(parts) == part) for chunk in chunks]
        if any(len(where) for where in found):
            rows = np.concatenate([w + start for w, start in zip(found, starts, strict=False)])
            yield rows, np.concatenate([c[w] for c, w in zip(chunks, found, strict=True)])


def _dropped(hashes: Any) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Positions to drop in one part, and for each that of the row that is kept."""
    order = np.lexsort((hashes["low"], hashes["high"]))  # stable: equal keys stay in row order
    high, low = hashes["high"][order], hashes["low"][order]
    new = np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))
    if new.all():
        return np.empty(0, np.intp), np.empty(0, np.intp)
    firsts = np.flatnonzero(new)
    lasts = np.append(firsts[1:], len(order)) - 1
    group = np.cumsum(new) - 1
    content = hashes["content"][order]
    wins = content == content[lasts][group]
    place = np.arange(len(order))
    kept = np.minimum.reduceat(np.where(wins, place, len(order)), firsts)
    lost = np.ones(len(order), bool)
    lost[kept] = False
    return order[lost], order[kept[group[lost]]]
