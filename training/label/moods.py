"""Thanks and complaints in what a user writes after an answer, by stock phrases (phrases.toml).

No regular expression looks at users' text: phrases are found by substring search in the first
characters of a turn, so the time is linear whatever the text holds.
"""

import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HEAD_CHARS = 200
COMPLAINT_CHARS = 40  # a complaint comes first; a pasted text that holds one is none
PHRASES = Path(__file__).with_name("phrases.toml")
THANKS, NEITHER, COMPLAINT = 1, 0, -1

_UNSPACED = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7AF))  # kana, Han, Hangul


@dataclass(frozen=True, slots=True)
class Phrases:
    """Phrases of all languages, as `_words` makes them."""

    complaint: tuple[str, ...]
    not_complaint: tuple[str, ...]
    thanks: tuple[str, ...]
    not_thanks: tuple[str, ...]


@cache
def phrases() -> Phrases:
    """The phrases of phrases.toml."""
    read = tomllib.loads(PHRASES.read_text(encoding="utf-8"))
    return Phrases(
        **{kind: tuple(_words(p) for ps in by.values() for p in ps) for kind, by in read.items()}
    )


def mood(turn: str) -> int:
    """THANKS, COMPLAINT or NEITHER; a turn with both is a complaint."""
    known, head = phrases(), _words(turn[:HEAD_CHARS])
    if any(0 <= head.find(phrase) < COMPLAINT_CHARS for phrase in known.complaint):
        asks = any(phrase in head for phrase in known.not_complaint)
        return NEITHER if asks else COMPLAINT
    begins = any(head.startswith(phrase) for phrase in known.thanks)
    if begins and not any(phrase in head for phrase in known.not_thanks):
        return THANKS
    return NEITHER


def _words(text: str) -> str:
    """Case folded, marks as blanks, with a blank at either end; scripts without blanks have none.

    So that `phrase in text` finds whole words only, where a script has them.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    words = " ".join(kept.split())
    if any(low <= ord(c) <= high for c in words for low, high in _UNSPACED):
        return words.replace(" ", "")
    return f" {words} "
