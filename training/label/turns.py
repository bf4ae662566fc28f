"""Log rows as turns of conversations: hashes and small numbers, so that a million fit in memory.

What a signal needs to know of a row is when it was asked and answered, by whom, and whether its
user turns are those of another row. Texts are compared by hash, after NFKC, case folding and white
space; a row takes some 120 bytes, whatever it holds.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.label.graders import plain
from training.label.ladder import Answerer
from training.label.moods import mood

NONE = 0  # the hash of an id that is not there
NEVER = np.iinfo(np.int64).min
COLUMNS = ("request_id", "at", "session_id", "user_id", "tier", "model", "latency_ms", "messages")


@dataclass(frozen=True, slots=True)
class Turns:
    """n rows in the log's order; hashes are uint64[n].

    Attributes:
        request, session, user: hashes of ids, NONE where there is none.
        asked, answered: int64[n], microseconds; NEVER where there is no time, and answered at once
            where the log does not tell how long it took.
        timed: bool[n], the log tells both.
        who: int32[n], index of the answerer.
        ok: bool[n], the call did not fail.
        asks: bool[n], the last message is the user's (a step of a tool chain asks nothing).
        count: int32[n], number of user turns.
        whole, before, last: hashes of all user turns, all but the last, the last.
        numbers: hash of the digits in the last turn.
        chars: int32[n], characters of the last turn as compared.
        mood: int8[n], of the last turn: thanks, complaint or neither.
    """

    request: NDArray[np.uint64]
    session: NDArray[np.uint64]
    user: NDArray[np.uint64]
    asked: NDArray[np.int64]
    answered: NDArray[np.int64]
    timed: NDArray[np.bool_]
    who: NDArray[np.int32]
    ok: NDArray[np.bool_]
    asks: NDArray[np.bool_]
    count: NDArray[np.int32]
    whole: NDArray[np.uint64]
    before: NDArray[np.uint64]
    last: NDArray[np.uint64]
    numbers: NDArray[np.uint64]
    chars: NDArray[np.int32]
    mood: NDArray[np.int8]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.who)


class TurnReader:
    """Takes batches of the traffic table, in order; `turns` gives what they held."""

    def __init__(self) -> None:
        self._parts: list[Turns] = []
        self._who: dict[Answerer, int] = {}

    @property
    def answerers(self) -> tuple[Answerer, ...]:
        """Who answered, in the order of `Turns.who`."""
        return tuple(self._who)

    def add(self, batch: pa.RecordBatch) -> NDArray[np.int32]:
        """Take a batch of SCHEMA; returns who answered its rows, int32[rows]."""
        columns = {name: batch.column(name).to_pylist() for name in COLUMNS if name != "at"}
        asked = batch.column("at").cast(pa.int64()).to_numpy(zero_copy_only=False)
        timed = np.asarray(batch.column("at").is_valid())
        asked = np.where(timed, asked, NEVER).astype(np.int64)
        latency = np.array(columns["latency_ms"], np.float64)
        took = np.clip(np.nan_to_num(latency) * 1000.0, 0.0, 2.0**53).astype(np.int64)
        who = [
            self._who.setdefault(Answerer(tier, model), len(self._who))
            for tier, model in zip(columns["tier"], columns["model"], strict=True)
        ]
        says = [_says(text) for text in columns["messages"]]
        status = np.array(batch.column("status").to_pylist(), dtype=object)
        part = Turns(
            request=_hashes(columns["request_id"]),
            session=_hashes(columns["session_id"]),
            user=_hashes(columns["user_id"]),
            asked=asked,
            answered=np.where(timed, asked + took, NEVER),
            timed=timed & ~np.isnan(latency),
            who=np.array(who, np.int32),
            ok=status != "error",
            **_columns(says),
        )
        self._parts.append(part)
        return part.who

    def turns(self) -> Turns:
        """All rows so far."""
        return Turns(
            *(np.concatenate([getattr(p, f.name) for p in self._parts]) for f in fields(Turns))
        )


_SAYS = {
    "asks": np.bool_,
    "count": np.int32,
    "whole": np.uint64,
    "before": np.uint64,
    "last": np.uint64,
    "numbers": np.uint64,
    "chars": np.int32,
    "mood": np.int8,
}


def _columns(says: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    columns = zip(*says, strict=True) if says else [()] * len(_SAYS)
    return {
        name: np.array(column, kind)
        for (name, kind), column in zip(_SAYS.items(), columns, strict=True)
    }


def _says(text: str) -> tuple[int, ...]:
    """The fields of `_SAYS` for the messages of one row."""
    messages = json.loads(text)
    turns = user_turns(messages)
    last = turns[-1] if turns else ""
    digits = "".join(c if unicodedata.category(c) == "Nd" else " " for c in last)
    numbers = " ".join(digits.split())
    return (
        int(messages[-1]["role"] == "user" and bool(last)),
        len(turns),
        _hash("\x1e".join(turns)),
        _hash("\x1e".join(turns[:-1])),
        _hash(last),
        _hash(numbers),
        min(len(last), np.iinfo(np.int32).max),
        mood(last),
    )


def user_turns(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the user said, turn by turn, as it is compared; pictures count by their description."""
    return [plain(_content(m.get("content"))) for m in messages if m["role"] == "user"]


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        texts.append(text if isinstance(text, str) else json.dumps(part, sort_keys=True))
    return "\n".join(texts)


def _hashes(ids: Sequence[str | None]) -> NDArray[np.uint64]:
    return np.array([NONE if i is None else _hash(i) for i in ids], np.uint64)


def _hash(text: str) -> int:
    """A 64-bit hash; never NONE."""
    digest = blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1
