"""Text files as records, in constant memory: physical lines, CSV records, JSON lines.

Logs are cut, joined and re-encoded on their way. What cannot be read comes out as `Bad` with the
physical line where it starts; reading goes on after it. gzip and zstd are recognised by content.
"""

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import orjson
import pyarrow as pa

from training.errors import BadInput
from training.log.adapters.rows import Bad

LINE_LIMIT = 32 * 2**20  # bytes; longer lines are damage (or images in base64) and are not parsed
RAW_LIMIT = 4_000  # characters of a bad row that the quarantine keeps
DAMAGED = (EOFError, OSError, zlib.error)  # what a cut or broken compressed file raises
DELIMITERS = ",;\t|"
COMPRESSED = (".gz", ".zst", ".zstd")
DIGITS, LONG = bytes.maketrans(b"123456789", b"000000000"), b"0" * 20


@dataclass(frozen=True, slots=True)
class Line:
    """A physical line with its end; `problem` where it is no text or was not read to its end."""

    number: int
    text: str
    problem: str | None = None
    cut: bool = False


def open_bytes(path: Path) -> IO[bytes]:
    """Open a plain, gzip or zstd file; refuse UTF-16, which no column can be read from."""
    try:
        file = path.open("rb", buffering=2**18)
        magic = file.read(4)
        file.seek(0)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None
    if magic[:2] == b"\x1f\x8b":
        return cast(IO[bytes], _Gunzip(file))
    if magic == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(file, "zstd")))
    if magic[:2] in (b"\xff\xfe", b"\xfe\xff"):
        file.close()
        raise BadInput(f"{path}: is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8")
    return file


def head(path: Path) -> bytes:
    """The first bytes of a file, as many as come at once, without the byte-order mark."""
    with open_bytes(path) as file:
        try:
            return cast(bytes, cast(Any, file).read1(4096)).removeprefix(b"\xef\xbb\xbf")
        except DAMAGED as error:
            raise BadInput(f"{path}: the compressed file is damaged ({error})") from None


class _Gunzip(gzip.GzipFile):
    """A GzipFile that closes the file under it."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(fileobj=file)
        self._under = file

    def close(self) -> None:
        super().close()
        self._under.close()


def plain_name(path: Path) -> str:
    """The file's name without the ending of its compression."""
    return path.stem if path.suffix in COMPRESSED else path.name


def raw_lines(path: Path) -> Iterator[tuple[int, bytes, str | None]]:
    """Physical lines, numbered from 1, without the byte-order mark; a reason where one was cut."""
    with open_bytes(path) as file:
        number = 0
        while True:
            number += 1
            try:
                raw = file.readline(LINE_LIMIT)
                cut = len(raw) == LINE_LIMIT and not raw.endswith(b"\n")
                while cut and not (rest := file.readline(LINE_LIMIT)).endswith(b"\n") and rest:
                    pass
            except DAMAGED as error:
                yield number, b"", f"the compressed file is damaged here ({error})"
                return
            if not raw:
                return
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            problem = f"a line of more than {LINE_LIMIT // 2**20} MiB" if cut else None
            yield number, raw[:RAW_LIMIT] if cut else raw, problem


def lines(path: Path) -> Iterator[Line]:
    """Physical lines, decoded as UTF-8."""
    for number, raw, problem in raw_lines(path):
        if problem:
            yield Line(number, raw.decode("utf-8", "replace"), problem, cut=True)
        else:
            yield Line(number, *_decoded(raw))


def _decoded(raw: bytes) -> tuple[str, str | None]:
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError as error:
        told = (
            f"not valid UTF-8 (byte {error.start + 1} of the line); if all of the file is in "
            "another encoding, convert it first, e.g. iconv -f WINDOWS-1252 -t UTF-8"
        )
        return raw.decode("utf-8", "replace"), told


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]] | Bad]:
    """One JSON object a line; blank lines are passed over."""
    for number, raw, problem in raw_lines(path):
        if problem:
            yield Bad(number, problem, raw.decode("utf-8", "replace"))
        elif (found := _json_line(number, raw)) is not None:
            yield found


def _json_line(number: int, raw: bytes) -> tuple[int, dict[str, Any]] | Bad | None:
    """The object of one line; None for a blank one."""
    value, reason = None, None
    try:
        value = _quick_json(raw)
    except ValueError:  # what only Python reads, or damage
        text, reason = _decoded(raw)
        if not text.strip():
            return None
        if reason is None:
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                reason = f"not valid JSON ({error})"
    if isinstance(value, dict):
        return number, value
    return Bad(number, reason or "not a JSON object", raw[:RAW_LIMIT].decode("utf-8", "replace"))


def read_json(text: bytes | str) -> Any:
    """The value of JSON text, by orjson where that reads it as Python does, else by Python.

    Raises:
        ValueError, RecursionError: damage.
    """
    try:
        return _quick_json(text.encode() if isinstance(text, str) else text)
    except ValueError:
        return json.loads(text)


def _quick_json(raw: bytes) -> Any:
    """By orjson; ValueError for damage, and for what is Python's to read.

    That is NaN, lone surrogates, and integers of 20 digits or more, which orjson rounds (two long
    ids became one).
    """
    if LONG in raw.translate(DIGITS):
        raise ValueError("a long integer")
    return orjson.loads(raw)


class _CutError(Exception):
    """A line that was not read to its end: where its quotes close is unknown."""


class _Feed:
    """The lines of a CSV reader, with those of the current record kept so that they can go back."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._back: deque[Line] = deque()
        self.taken: list[Line] = []

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._source)
        self.taken.append(line)
        if line.cut:
            raise _CutError(line.problem)
        return line.text

    def give_back(self, later: list[Line]) -> None:
        self._back.extendleft(reversed(later))


def csv_records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]] | Bad]:
    """Records with their first physical line, the header first; each has as many fields as it.

    A quote left open swallows the rows behind it. So when a record fails, only its first line is
    bad at once: reading starts again at the next line, and the lines up to the place of the failure
    that don't begin a whole record are taken for the rest of the bad one.
    """
    csv.field_size_limit(LINE_LIMIT)
    feed = _Feed(lines(path))
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    width = until = 0
    damage: Bad | None = None
    while True:
        feed.taken = []
        fields, broken = _next_record(reader, width)
        if not feed.taken:
            break
        first, last = feed.taken[0].number, feed.taken[-1].number
        if broken and damage and last <= until:
            damage = Bad(damage.line, damage.reason, damage.raw + feed.taken[0].text)
            feed.give_back(feed.taken[1:])
            continue
        if damage:
            yield damage
            damage = None
        if broken:
            damage, until = Bad(first, broken, feed.taken[0].text[:RAW_LIMIT]), last
            feed.give_back(feed.taken[1:])
        elif problem := next((line.problem for line in feed.taken if line.problem), None):
            yield Bad(first, problem, "".join(line.text for line in feed.taken)[:RAW_LIMIT])
        elif not _blank(fields):
            width = width or len(fields)
            yield first, fields
    if damage:
        yield damage


def delimited(path: Path, wanted: Collection[str] = ()) -> tuple[str, list[str]]:
    """The delimiter under which most wanted (else most) columns show, and the column names."""
    best: tuple[tuple[int, int], str, list[str]] = ((-1, 0), ",", [])
    for delimiter in DELIMITERS:
        first = next(csv_records(path, delimiter), None)
        if first is None or isinstance(first, Bad):
            continue
        names = [name.strip() for name in first[1]]
        score = (len(set(wanted).intersection(names)), len(names))
        best = max(best, (score, delimiter, names), key=lambda entry: entry[0])
    return best[1], best[2]


def _next_record(reader: Any, width: int) -> tuple[list[str], str | None]:
    """The next record and, where its form is broken, the reason."""
    try:
        fields = next(reader)
    except StopIteration:
        return [], None
    except (csv.Error, _CutError) as error:
        return [], str(error)
    if width and len(fields) != width and not _blank(fields):
        return fields, f"{len(fields)} fields where the header has {width}"
    return fields, None


def _blank(fields: list[str]) -> bool:
    return len(fields) < 2 and not "".join(fields).strip()
