"""The file of rows that could not be read."""

import json
import os
from dataclasses import replace
from pathlib import Path

from training.log.adapters import Bad
from training.log.adapters.files import RAW_LIMIT
from training.log.redact import mask_raw


class Quarantine:
    """JSON lines with path, line, reason and raw text, for the owner's eyes only (mode 0600).

    The file replaces that of the run before; without bad rows there is none. With `redact` reasons
    and raw texts are masked, and a word at which they are cut off is left out. With `bare` there
    are no raw texts, and reasons quote nothing.
    """

    def __init__(self, path: Path, redact: bool = False, bare: bool = False) -> None:
        self.path = path
        self.rows = 0
        self._redact, self._bare = redact, bare
        self.first = ""
        self._part = path.with_name(f".{path.name}.part")
        self._file = os.fdopen(
            os.open(self._part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w"
        )

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    @property
    def kept(self) -> Path | None:
        """The file, if there is one."""
        return self.path if self.rows else None

    def write(self, path: str, bad: Bad) -> None:
        """Add a bad row."""
        if self._bare:
            bad = Bad(bad.line, bad.bare or bad.reason, "")
        if self._redact:
            reason = mask_raw(bad.reason, cut=False)
            raw = mask_raw(bad.raw, len(bad.raw) >= RAW_LIMIT) if bad.raw else bad.raw
            bad = replace(bad, reason=reason, raw=raw)
        self.rows += 1
        self.first = self.first or f"{path}, line {bad.line}: {bad.reason}"
        told = {"path": path, "line": bad.line, "reason": bad.reason, "raw": bad.raw}
        self._file.write(json.dumps(told) + "\n")

    def finish(self) -> None:
        """Put the file in its place, or take away that of the run before."""
        if self._file.closed:
            return
        self._file.close()
        if self.rows:
            self._part.replace(self.path)
        else:
            self._part.unlink()
            self.path.unlink(missing_ok=True)
