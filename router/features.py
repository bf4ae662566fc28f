"""Surface features of a prompt: ONE definition, used by training and by serving.

All counting goes over the characters' classes, a byte each, so that a prompt costs microseconds and
no pass of Python over its characters. Every time is linear in the capped text.
"""

import re
from dataclasses import dataclass
from math import log1p
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.prompt import TEXT_VERSION, Prompt

VERSION = 1

# Character classes. A range later in the list overrides an earlier one.
_CLASSES: Final = (
    "other",  # whatever no range below names
    "space",
    "lower",
    "upper",
    "digit",
    "maths",
    "code",
    "punctuation",
    "accented",
    "greek_cyrillic",
    "hebrew_arabic",
    "indic",
    "cjk",
    "kana_hangul",
    "emoji",
)
_INDEX: Final = {name: i for i, name in enumerate(_CLASSES)}
_RANGES: Final = (
    ("accented", 0xC0, 0x24F),
    ("accented", 0x1E00, 0x1EFF),
    ("greek_cyrillic", 0x370, 0x52F),
    ("hebrew_arabic", 0x590, 0x8FF),
    ("indic", 0x900, 0xEFF),  # Devanagari to Lao, with Thai
    ("punctuation", 0x2010, 0x2060),
    ("maths", 0x2190, 0x22FF),
    ("maths", 0x2070, 0x209F),
    ("kana_hangul", 0x1100, 0x11FF),
    ("kana_hangul", 0x3040, 0x30FF),
    ("kana_hangul", 0xAC00, 0xD7AF),
    ("punctuation", 0x3000, 0x303F),
    ("cjk", 0x3400, 0x9FFF),
    ("cjk", 0x20000, 0x323AF),
    ("emoji", 0x2600, 0x27BF),
    ("emoji", 0x1F000, 0x1FAFF),
    ("lower", ord("a"), ord("z")),
    ("upper", ord("A"), ord("Z")),
    ("digit", ord("0"), ord("9")),
)
_SETS: Final = (
    ("punctuation", "!\"'(),-.:;?¿¡«»"),
    ("maths", "+*/=<>^%±×÷√∑∫π°²³"),
    ("code", "{}[]_`\\|#@$&~"),
    ("space", " \t\n\r\v\f\u00a0\u2028\u2029\u3000"),
)

_OPENERS: Final = frozenset(
    """what which who whom whose when where why how is are was were do does did can could
    should would will wer wie wo wann warum welche welcher welches que qué cuál cuáles quién
    cómo dónde quel quelle quels quelles qui où quand comment pourquoi qual quais quem onde
    come chi dove""".split()
)
_ENGLISH: Final = frozenset(
    """the of and to in a is that it for on as with was be by at this are from or which not you
    what""".split()
)
_EUROPEAN: Final = frozenset(
    """der die das und ist nicht ein eine von mit den auf für el los las y es en un una por con para
    del le les des et est du une dans pour il di che per non sono o os da do em um uma não het een
    van""".split()
)
_OPTION: Final = re.compile(r"\n[ \t]{0,8}[(\[]?(?:[A-Ja-j]|\d{1,2})[).:\]][ \t]")

NAMES: Final = (
    "log_chars",
    "log_text_chars",
    "log_words",
    "mean_word_chars",
    "log_lines",
    "log_numbers",
    "longest_word",
    *(f"share_{name}" for name in _CLASSES),
    "log_question_marks",
    "opens_as_question",
    "ends_as_question",
    "english_words",
    "european_words",
    "options",
    "blanks",
    "code_fences",
    "quotes",
    "log_system_chars",
    "turns",
    "images",
    "tools",
)


def _class_table() -> NDArray[np.uint8]:
    table = np.zeros(0x110000, dtype=np.uint8)
    for name, first, last in _RANGES:
        table[first : last + 1] = _INDEX[name]
    for name, characters in _SETS:
        table[[ord(character) for character in characters]] = _INDEX[name]
    return table


_TABLE: Final = _class_table()
_ASCII: Final = _TABLE[:256].tobytes()
_SPACE: Final = _INDEX["space"]
_BLANK, _DIGIT = bytes([_SPACE]), bytes([_INDEX["digit"]])


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """Names, order and version of the surface features an artifact was trained with."""

    names: tuple[str, ...] = NAMES
    version: int = VERSION
    text_version: int = TEXT_VERSION


CURRENT: Final = FeatureSpec()


def surface(prompt: Prompt) -> NDArray[np.float32]:
    """Compute the surface features.

    Returns:
        float32[len(NAMES)], finite; lengths as log(1 + n), shares in [0, 1] of the text's
        characters.
    """
    text = prompt.text
    n = max(len(text), 1)
    classes = _classes(text)
    counted = np.bincount(np.frombuffer(classes, dtype=np.uint8), minlength=len(_CLASSES))
    counts = counted.tolist()
    words, longest = _words(classes)
    start = text[:300].lower().split(maxsplit=40)[:40]
    some = max(len(start), 1)
    values = [
        log1p(prompt.chars),
        log1p(len(text)),
        log1p(words),
        (len(text) - counts[_SPACE]) / max(words, 1),
        log1p(text.count("\n")),
        log1p(_numbers(classes)),
        log1p(longest),
        *(count / n for count in counts),
        log1p(text.count("?")),
        float(bool(start) and start[0].strip("¿¡\"'(,") in _OPENERS),
        float(text.rstrip()[-1:] in ("?", "？", "؟")),
        sum(map(_ENGLISH.__contains__, start)) / some,
        sum(map(_EUROPEAN.__contains__, start)) / some,
        min(len(_OPTION.findall("\n" + text)), 12),
        min(text.count("__"), 12),
        min(text.count("```"), 12),
        min(text.count('"'), 24),
        log1p(prompt.system_chars),
        min(prompt.turns, 50),
        min(prompt.images, 12),
        min(prompt.tools, 50),
    ]
    return np.array(values, dtype=np.float32)


def _classes(text: str) -> bytes:
    """Class of every character, a byte each."""
    if text.isascii():
        return text.encode("ascii").translate(_ASCII)
    return _TABLE[np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)].tobytes()


def _words(classes: bytes) -> tuple[int, int]:
    """Number of runs of anything but space, and the length of the longest."""
    runs = list(map(len, classes.split(_BLANK)))
    return len(runs) - runs.count(0), max(runs)


def _numbers(classes: bytes) -> int:
    """Number of runs of digits: one, and one more wherever something stands between two digits."""
    between = classes.split(_DIGIT)[1:]
    return int(len(between) > 0) + sum(map(bool, between[:-1]))
