"""User and session ids as keyed hashes: the same person stays the same, and stays unknown.

The key is SUFFICE_KEY in the environment, else `<table>.key` beside the table (mode 0600), made on
the first run. A table remembers a fingerprint of its key, so that two keys never mix in one.
"""

import hmac
import os
import secrets
from pathlib import Path

import pandas as pd

from training.errors import BadInput
from training.log.store import read_label

HEX = 32  # characters kept of the hash: 128 bits
PLAIN = "plain"
IDS = ("user_id", "session_id")


def pseudonym(key: bytes, identifier: str) -> str:
    """HMAC-SHA256 of an id, as 32 hex characters."""
    return hmac.digest(key, identifier.encode(), "sha256").hex()[:HEX]


class Pseudonyms:
    """How the ids of one table are replaced; `label` says so, and names the key.

    With `keyed` there is a key (`key`, and what names it without telling it, `key_print`) even
    where ids are kept.
    """

    def __init__(self, table: Path, keep: bool, keyed: bool = False) -> None:
        self._path = table.with_name(f"{table.name}.key")
        self._made = False
        self._keep = keep
        self.key = self._find() if keyed or not keep else b""
        self.key_print = pseudonym(self.key, "fingerprint of the key")[:12]
        self.label = PLAIN if keep else self.key_print
        used = read_label(table) if table.exists() else None
        if used in (None, self.label):
            return
        if used == PLAIN:
            raise BadInput(
                f"{table}: holds ids as they are; add --keep-ids, or choose another --out"
            )
        if keep:
            raise BadInput(
                f"{table}: holds hashed ids; leave out --keep-ids, or choose another --out"
            )
        raise BadInput(
            f"{table}: its ids were hashed with another key; set SUFFICE_KEY to it (a table made "
            f"of another has that one's) or bring back {self._path.name}"
        )

    def of(self, identifier: str) -> str:
        """What stands for an id in the table."""
        return identifier if self._keep else pseudonym(self.key, identifier)

    def replace(self, frame: pd.DataFrame, place: str, label: str | None) -> pd.DataFrame:
        """The frame with its user and session ids hashed once (as they are, if ids are kept).

        Args:
            frame: rows of a source.
            place: the source's name.
            label: how ids were replaced in the source already; None where it does not say.

        Raises:
            BadInput: there are ids, and another key hashed them: nobody could be found by them.
        """
        if self._keep or label == self.label:
            return frame
        if label not in (None, PLAIN) and frame[[*IDS]].notna().any(axis=None):
            raise BadInput(
                f"{place}: its ids are already hashed, with another key than this table's; set "
                "SUFFICE_KEY to that key (the .key file beside the table that ingest wrote first), "
                "or add --keep-ids to leave the ids as they are there"
            )
        hashed = {
            name: pd.Series(
                [None if i is None else self.of(i) for i in frame[name]],
                frame.index,
                dtype=object,
            )
            for name in IDS
        }
        return frame.assign(**hashed)

    def save(self) -> None:
        """Keep the key that was made, before the first table that needs it."""
        if not self._made:
            return
        with os.fdopen(
            os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w"
        ) as file:
            file.write(self.key.decode() + "\n")
        self._made = False

    def _find(self) -> bytes:
        if key := os.environ.get("SUFFICE_KEY"):
            return key.encode()
        try:
            key = self._path.read_text("utf-8").strip()
        except FileNotFoundError:
            self._made = True
            return secrets.token_hex(32).encode()
        if not key:
            raise BadInput(
                f"{self._path}: the key file is empty; bring back the key or set SUFFICE_KEY"
            )
        return key.encode()
