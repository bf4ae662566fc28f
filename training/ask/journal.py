"""What was asked and what came back, written before and after each call: a kill loses no bill.

One JSON object a line. That a call is asked stands in the file (and outlives the process) before
it goes out; what came back is on the disk (and outlives the machine) before it counts. Calls that
wait for the disk together share one fsync. An answer whose line is there is never asked for again.
A call whose line says that it was asked, and no line how it ended, was in flight: it may have been
paid, and is counted.
"""

import asyncio
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from training.errors import BadInput

GATHER = 0.05  # seconds in which lines gather for one fsync: while it runs, no line can be written
ASKED, ANSWERED, FAILED = "asked", "answered", "failed"


class Journal:
    """The journal of one output file, mode 0600: it holds answers.

    `asked`, `answered` and `failed` are {key: the last such record}. A call is in flight if it was
    asked and has neither answer nor failure since.

    Raises:
        BadInput: another process is at it, or a line before the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: dict[str, dict[str, Any]] = {}
        self.answered: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, dict[str, Any]] = {}
        self._open: set[str] = set()
        self._ended = 0.0  # USD of calls that ended, and of those that were asked for again
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = self._durable = 0
        self._syncing = asyncio.Lock()
        try:
            self._lock()
            self._load()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._fd)
        if not os.fstat(self._fd).st_size:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)

    @property
    def in_flight(self) -> dict[str, dict[str, Any]]:
        """Records of calls whose end nobody saw."""
        return {key: self.asked[key] for key in self._open}

    @property
    def spent(self) -> float:
        """USD billed by all runs so far, with what calls in flight may have cost."""
        return self._ended + sum(record["usd"] for record in self.in_flight.values())

    def note(self, record: dict[str, Any]) -> None:
        """Append a record {"kind", "key", "usd", …}; on return it outlives this process."""
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        if (part := os.write(self._fd, line)) != len(line):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - part)
            raise OSError(f"{self.path}: the disk is full")
        self._keep(record)
        self._written += 1

    async def write(self, record: dict[str, Any]) -> None:
        """Append a record; on return it and all before it are on the disk."""
        self.note(record)
        mine = self._written
        async with self._syncing:
            if self._durable < mine:
                await asyncio.sleep(GATHER)
                covered = self._written
                await asyncio.to_thread(os.fsync, self._fd)
                self._durable = covered

    def _keep(self, record: dict[str, Any]) -> None:
        kind, key = record["kind"], record["key"]
        if kind != ASKED:
            self._ended += record["usd"]
        elif key in self._open:
            self._ended += self.asked[key]["usd"]
        {ASKED: self.asked, ANSWERED: self.answered, FAILED: self.failed}[kind][key] = record
        if kind == ASKED:
            self.failed.pop(key, None)
            self._open.add(key)
        else:
            self._open.discard(key)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{self.path}: another run is writing it; wait for its end") from None

    def _load(self) -> None:
        """Read the whole lines; a last line that a kill cut off is taken off the file."""
        with self.path.open("rb") as file:
            end = 0
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._keep(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    raise BadInput(
                        f"{self.path}, line {number}: no record of a call; bring back the file, or "
                        "move it away and pay for its answers again"
                    ) from None
                end += len(line)
        os.ftruncate(self._fd, end)
