"""The kill switch: an environment variable or a file that sends every request to the top tier."""

import os
from pathlib import Path
from time import monotonic
from typing import Final

VARIABLE: Final = "SUFFICE_OFF"
FILE_VARIABLE: Final = "SUFFICE_OFF_FILE"
_EVERY: Final = 1.0  # seconds between two looks for the file
_FALSE: Final = ("", "0", "false", "no")


class Switch:
    """Says whether routing is switched off.

    It is while the environment's SUFFICE_OFF is anything but empty, 0, false or no, or while the
    file that SUFFICE_OFF_FILE named at the start exists; for that it looks once a second.
    """

    __slots__ = ("_file", "_looked", "_there")

    def __init__(self) -> None:
        named = os.environ.get(FILE_VARIABLE)
        self._file = Path(named).absolute() if named else None
        self._looked, self._there = -1e9, False

    @property
    def off(self) -> bool:
        """Whether every request goes to the top tier."""
        if os.environ.get(VARIABLE, "").lower() not in _FALSE:
            return True
        if self._file is None:
            return False
        now = monotonic()
        if now - self._looked >= _EVERY:
            self._looked = now
            self._there = os.path.lexists(self._file)
        return self._there
