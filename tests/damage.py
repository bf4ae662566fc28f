"""Damage to logs, drawn by hypothesis: of bytes, of lines, and of the values in them."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

VALUES: list[Any] = [
    *(None, True, 0, -1, 1e308, 2**70, float("nan"), "", "x", "\ud83d", "[", '{"a": 1}'),
    *([], [None], [[]], {}, {"a": None}, {"values": 3}, "2026-13-01", "NaN"),
]


def _between(draw: st.DrawFn, size: int) -> int:
    return draw(st.integers(0, max(size - 1, 0)))


def _flip(draw: st.DrawFn, text: bytes) -> bytes:
    """Some bytes that were not there."""
    at = _between(draw, len(text))
    return text[:at] + draw(st.binary(min_size=1, max_size=6)) + text[at + 1 :]


def _cut(draw: st.DrawFn, text: bytes) -> bytes:
    """The log ends in the middle of a line."""
    return text[: 1 + _between(draw, len(text))]


def _lose(draw: st.DrawFn, text: bytes) -> bytes:
    """A piece of the log is gone."""
    start = _between(draw, len(text))
    return text[:start] + text[start + draw(st.integers(1, 3000)) :]


def _repeat(draw: st.DrawFn, text: bytes) -> bytes:
    """A line comes again, somewhere."""
    rows = text.splitlines(keepends=True) or [b""]
    rows.insert(_between(draw, len(rows)), rows[_between(draw, len(rows))])
    return b"".join(rows)


def _shuffle(draw: st.DrawFn, text: bytes) -> bytes:
    return b"\n".join(draw(st.permutations(text.splitlines())))


def _blank(draw: st.DrawFn, text: bytes) -> bytes:
    at = text.find(b"\n", _between(draw, len(text)))
    return (
        text[: at + 1]
        + draw(st.sampled_from([b"\n", b" \r\n", b"null\n", b"[]\n"]))
        + text[at + 1 :]
    )


def _change(draw: st.DrawFn, text: bytes) -> bytes:
    """A field of a line has another value, another name, or is gone: another version wrote it."""
    rows = text.splitlines()
    if not rows:
        return text
    at = _between(draw, len(rows))
    try:
        value = json.loads(rows[at])
    except ValueError:
        return text
    places = list(_places(value))
    if places:
        holder, key = places[_between(draw, len(places))]
        how = draw(st.sampled_from(["value", "name", "gone"]))
        if how == "value" or isinstance(holder, list):
            holder[key] = draw(st.sampled_from(VALUES))
        elif how == "name":
            holder[f"{key}_v2"] = holder.pop(key)
        else:
            del holder[key]
    rows[at] = json.dumps(value).encode()
    return b"\n".join(rows)


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for key, inner in enumerate(value):
            yield value, key
            yield from _places(inner)


DAMAGES: list[Callable[[st.DrawFn, bytes], bytes]] = [
    *(_flip, _cut, _lose, _repeat, _shuffle, _blank, _change, _change, _change),
    lambda _, text: b"\xef\xbb\xbf" + text,
    lambda _, text: text.replace(b"\n", b"\r\n"),
]


@st.composite
def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """A log with one to four damages, sometimes compressed, and then sometimes cut."""
    for damage in draw(st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=4)):
        text = damage(draw, text)
    packed = draw(st.sampled_from(["plain", "plain", "gzip", "zstd"]))
    if packed == "gzip":
        text = gzip.compress(text)
    elif packed == "zstd":
        text = pa.Codec("zstd").compress(text, asbytes=True)
    return _cut(draw, text) if packed != "plain" and draw(st.booleans()) else text
