"""A file of JSON lines that several processes may append to, rotated by size."""

import json
import os
import re
import stat
from pathlib import Path
from secrets import token_hex
from time import gmtime, strftime
from typing import Any, Final

MAX_BYTES: Final = 64 * 2**20
KEEP: Final = 16  # rotated files

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)


class LineFile:
    """Appends a line at a time, each by one system call; not for several threads.

    At `max_bytes` the file is renamed to ``NAME.<time>-<n>-<random>.SUFFIX`` and a new one begun;
    the oldest beyond `keep` are removed. Where another process renamed or removed it, it is opened
    anew; where it cannot be renamed (a folder of another's, a mounted file) or is a link, it grows
    on, and is tried again at twice its size. After a line that could not be written (a full disk),
    the file is opened anew, and where it then ends in a cut line, whoever's, that one is ended.
    """

    __slots__ = (
        "_cut",
        "_file",
        "_identity",
        "_keep",
        "_limit",
        "_max_bytes",
        "_path",
        "_rotated",
    )

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self._path, self._max_bytes, self._keep = path.absolute(), max_bytes, keep
        self._limit = max_bytes  # at which the next rotation is tried
        self._file: int | None = None
        self._identity = (0, 0)
        self._cut = False
        self._rotated = 0

    def write(self, values: dict[str, Any]) -> None:
        """Append one line.

        Raises:
            OSError: it could not be written, or only a part of it.
        """
        file = self._opened()
        line = b"\n" * self._cut + json.dumps(values, default=str).encode() + b"\n"
        try:
            if os.write(file, line) < len(line):
                raise OSError(f"{self._path}: a line was cut")
        except OSError:
            self.close()
            raise
        self._cut = False

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        file, self._file = self._file, None  # before: a process forked meanwhile has it closed
        if file is not None:
            os.close(file)

    def _opened(self) -> int:
        if self._file is not None:
            try:
                there = self._path.stat()
            except FileNotFoundError:
                self.close()
            else:
                if (there.st_dev, there.st_ino) != self._identity:
                    self.close()
                elif there.st_size >= self._limit:
                    self._rotate(there.st_size)
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, _FLAGS, 0o600)  # users' words may be in it
            status = os.fstat(self._file)
            self._identity = (status.st_dev, status.st_ino)
            self._cut = stat.S_ISREG(status.st_mode) and _is_cut(self._path)
        return self._file

    def _rotate(self, size: int) -> None:
        stem, suffix = self._path.stem, self._path.suffix
        self._rotated += 1
        when = strftime("%Y%m%dT%H%M%SZ", gmtime())
        # Random, as two containers may give their processes one number, and a rename replaces.
        name = f"{stem}.{when}-{self._rotated:04d}-{token_hex(4)}{suffix}"
        try:
            if self._path.is_symlink():  # renamed, it would leave its file behind
                raise OSError
            self._path.rename(self._path.with_name(name))
        except FileNotFoundError:  # another process was quicker
            self.close()
            return
        except OSError:
            self._limit = 2 * size
            return
        self.close()
        self._limit = self._max_bytes
        own = re.compile(rf"{re.escape(stem)}\.\d{{8}}T\d{{6}}Z-\d+-[0-9a-f]+{re.escape(suffix)}")
        rotated = [file for file in self._path.parent.iterdir() if own.fullmatch(file.name)]
        for file in sorted(rotated, key=age)[: -self._keep]:
            file.unlink(missing_ok=True)


def _is_cut(file: Path) -> bool:
    """Whether a file ends in the middle of a line."""
    try:
        with file.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) != b"\n"
    except OSError:  # it is empty, or may not be read
        return False


def age(file: Path) -> float:
    """When a file was last changed, in seconds since the epoch; 0 where it is gone."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
