"""Values by key, on disk: what two files that belong together are joined by."""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.log.adapters.records import bad, records
from training.log.adapters.rows import Bad


class Shelf:
    """JSON values put under a text key and found again in the order in which they were put.

    They are kept in a temporary file, so that memory stays at some megabytes whatever is put.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="suffice-")
        self._file = sqlite3.connect(Path(self._folder.name) / "shelf.db", isolation_level=None)
        self._file.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16000;"
            "CREATE TABLE shelf (key TEXT, value TEXT, taken INTEGER DEFAULT 0);"
            "CREATE INDEX by_key ON shelf (key); BEGIN;"
        )

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._folder.cleanup()

    def put(self, key: str, value: Any) -> None:
        """Add a value under a key; times and decimals, which Parquet has, become texts."""
        text = json.dumps(value, default=str)
        self._file.execute("INSERT INTO shelf (key, value) VALUES (?, ?)", (_safe(key), text))

    def find(self, key: str) -> list[Any]:
        """All values of a key."""
        found = self._file.execute(
            "SELECT value FROM shelf WHERE key = ? ORDER BY rowid", (_safe(key),)
        )
        return [json.loads(value) for (value,) in found]

    def take(self, key: str) -> list[Any]:
        """All values of a key, which are then not among those that are `left`."""
        found = self.find(key)
        if found:
            self._file.execute("UPDATE shelf SET taken = 1 WHERE key = ?", (_safe(key),))
        return found

    def left(self) -> Iterator[Any]:
        """The values that nobody took."""
        found = self._file.execute("SELECT value FROM shelf WHERE taken = 0 ORDER BY rowid")
        for (value,) in found:
            yield json.loads(value)


def shelve(shelf: Shelf, key: str, number: int, path: Path) -> Iterator[tuple[int, Bad]]:
    """Put each record of a file, as [number, line, record], under the text in its field `key`.

    Records that cannot be read, or have no text there, are yielded with the file's `number`.
    """
    for record in records(path):
        if isinstance(record, Bad):
            yield number, record
        elif not isinstance(record[1].get(key), str):
            yield number, bad(*record, ValueError(f"no {key}"))
        else:
            shelf.put(record[1][key], [number, *record])


def _safe(key: str) -> str:
    """A lone surrogate has no UTF-8 form."""
    return key.encode("utf-8", "replace").decode()
