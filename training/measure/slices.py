"""Slices of the traffic: requests that have a source, a tag, a language or a length in common."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router.features import NAMES
from router.features import surface as features_of
from router.prompt import SYSTEM_CHARS, Prompt
from training.log.requests import Requests
from training.measure.limits import rate

MAX_NAMES = 60  # of one kind; what is rarer is one slice together
_EDGES: Final = (200, 500, 1_000, 2_000, 5_000, 20_000)
_LENGTHS: Final = (
    f"under {_EDGES[0]} characters",
    *(f"{low:,} to {high:,}" for low, high in pairwise(_EDGES)),
    f"{_EDGES[-1]:,} or more",
)
_TURNS: Final = {"1 turn": 1, "2 turns": 2, "3 to 5": 5, "6 to 10": 10}
_MORE_TURNS: Final = "over 10 turns"
_ORDERS: Final = {
    "length": _LENGTHS,
    "turns": (*_TURNS, _MORE_TURNS),
    "hour (UTC)": tuple(f"{hour:02d}:00" for hour in range(24)),
}
_LATIN: Final = "Latin script, language unclear"
_SCRIPTS: Final = {
    _LATIN: ("lower", "upper", "accented"),
    "Greek or Cyrillic script": ("greek_cyrillic",),
    "Hebrew or Arabic script": ("hebrew_arabic",),
    "Indic script": ("indic",),
    "Chinese characters": ("cjk",),
    "Japanese or Korean script": ("kana_hangul",),
}


@dataclass(frozen=True, slots=True)
class Slice:
    """Requests that have something in common: its kind, its name and int64[m], their rows."""

    kind: str
    name: str
    rows: NDArray[np.int64]


def slices_of(requests: Requests, surface: NDArray[np.float32]) -> tuple[Slice, ...]:
    """Slices by source, tag, script, length, turns and hour; a kind with one value is left out.

    Args:
        requests: n of them.
        surface: float32[n, len(NAMES)], their surface features.
    """
    labels: dict[str, list[tuple[str, ...]]] = {
        "source": [() if source is None else (source,) for source in requests.source],
        "tag": [tuple(dict.fromkeys(tags)) for tags in requests.tags],
        "language": [(name,) for name in _languages(_asked(requests, surface))],
        "length": [(name,) for name in _lengths(requests)],
        "turns": [(_turns(prompt.turns),) for prompt in requests.prompts],
        "hour (UTC)": [() if np.isnat(at) else (f"{at.item():%H}:00",) for at in requests.at],
    }
    return tuple(part for kind, names in labels.items() for part in _kind(kind, names))


def slice_rates(
    slices: Sequence[Slice], score: NDArray[np.float64], session: NDArray[np.int64]
) -> pd.DataFrame:
    """Mean score in each slice, with a 95 % interval in which a session counts once.

    Args:
        slices: s of them.
        score: float64[n] in [0, 1], NaN where it is not known.
        session: int64[n].

    Returns:
        A row for each slice with a known score, by its name: `rows`, `sessions`, `value`, `low`,
        `high`.
    """
    found = {}
    for part in slices:
        rows = part.rows[~np.isnan(score[part.rows])]
        if not len(rows):
            continue
        limits = rate(score[rows], session[rows])
        units = len(np.unique(session[rows]))
        found[part.name] = (len(rows), units, limits.value, limits.low, limits.high)
    columns = ["rows", "sessions", "value", "low", "high"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)


def _kind(kind: str, labels: Sequence[Sequence[str]]) -> list[Slice]:
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(labels):
        for name in names:
            rows.setdefault(name, []).append(row)
    if len(rows) < 2 and all(len(found) == len(labels) for found in rows.values()):
        return []
    if kind in _ORDERS:
        kept, rest = [name for name in _ORDERS[kind] if name in rows], []
    else:
        common = sorted(rows, key=lambda name: (-len(rows[name]), name))
        kept, rest = common[:MAX_NAMES], common[MAX_NAMES:]
    found = [Slice(kind, name, np.array(rows[name], dtype=np.int64)) for name in kept]
    if rest:
        others = sorted({row for name in rest for row in rows[name]})
        found.append(Slice(kind, f"{len(rest)} rarer ones", np.array(others, dtype=np.int64)))
    return found


def _lengths(requests: Requests) -> list[str]:
    chars = [prompt.chars for prompt in requests.prompts]
    return [_LENGTHS[edge] for edge in np.searchsorted(_EDGES, chars, side="right")]


def _turns(turns: int) -> str:
    return next((name for name, most in _TURNS.items() if turns <= most), _MORE_TURNS)


def _asked(requests: Requests, surface: NDArray[np.float32]) -> NDArray[np.float32]:
    """Surface features of what users wrote, float32[n, len(NAMES)].

    The system prompt, which is in one language for all traffic, is left out where texts are kept.
    """
    found = surface.copy()
    for row, prompt in enumerate(requests.prompts):
        if isinstance(prompt, Prompt) and prompt.system_chars:
            said = prompt.text[min(prompt.system_chars, SYSTEM_CHARS) :]
            found[row] = features_of(replace(prompt, text=said))
    return found


def _languages(surface: NDArray[np.float32]) -> list[str]:
    """The script of most letters; of Latin text, by its commonest words, English or another."""

    def column(name: str) -> NDArray[np.float32]:
        return surface[:, NAMES.index(name)]

    shares = np.stack(
        [np.sum([column(f"share_{c}") for c in found], axis=0) for found in _SCRIPTS.values()]
    )
    names = np.array(list(_SCRIPTS), dtype=object)[shares.argmax(axis=0)]
    latin = names == _LATIN
    english, european = column("english_words"), column("european_words")
    names[latin & (english > european)] = "English"
    names[latin & (european > english)] = "another European language"
    names[shares.max(axis=0) == 0] = "no letters"
    return [str(name) for name in names]
