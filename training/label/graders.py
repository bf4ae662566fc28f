"""Graders: an answer and what it should be → a score in [0, 1].

`Grader.grade` never raises, whatever the answer holds. Patterns are the user's, the text they
search is not: a search that takes longer than a fifth of a second is given up, and the row stays
unlabelled.
"""

import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

import regex
from jsonschema.protocols import Validator

from training.label.json_schema import SEARCH_SECONDS, bounded_validator

NO_REFERENCE = "no reference"

_GROUPED = r"\d{1,3}(?:[,\u00a0\u202f]\d{3})+(?!\d)"
_NUMBER = regex.compile(
    rf"(?<![\w.])[-+−]?(?:{_GROUPED}|\d+)(?:[.,]\d+)?(?:[eE][-+]?\d{{1,3}})?(?:/\d+)?"
)
_GROUP_MARKS = regex.compile(r"[,\u00a0\u202f](?=\d{3}(?:\D|$))")
_FENCE = regex.compile(r"```[\w-]*\s*\n(.*?)```", regex.DOTALL)


@dataclass(frozen=True, slots=True)
class Grade:
    """A score in [0, 1], or None and why there is none."""

    score: float | None
    why: str = ""


class Criterion(Protocol):
    """How one kind of grader compares an answer."""

    @property
    def needs_reference(self) -> bool:
        """Whether a row without a reference cannot be graded."""
        ...

    def grade(self, response: str, reference: str) -> Grade:
        """Grade an answer; `reference` is empty where there is none and none is needed."""
        ...


@dataclass(frozen=True, slots=True)
class Grader:
    """A named criterion and the rows that it is for.

    Attributes:
        where: source, tag, tier or model → patterns (`*`, `?`); each key must match one of its own.
    """

    name: str
    criterion: Criterion
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row with source, tags, tier and model is this grader's."""
        for key, patterns in self.where.items():
            value = row.get("tags" if key == "tag" else key)
            texts = value if isinstance(value, list) else [] if value is None else [value]
            if not any(fnmatchcase(text, pattern) for text in texts for pattern in patterns):
                return False
        return True

    def grade(self, response: str, reference: str | None) -> Grade:
        """The grade of one answer; it does not raise."""
        if reference is None and self.criterion.needs_reference:
            return Grade(None, NO_REFERENCE)
        try:
            return self.criterion.grade(response, reference or "")
        except TimeoutError:
            return Grade(None, f"the search took longer than {SEARCH_SECONDS:g} s")


@dataclass(frozen=True, slots=True)
class Exact:
    """1 if the answer is the reference: white space and, unless told otherwise, case aside."""

    case_sensitive: bool = False
    needs_reference = True

    def grade(self, response: str, reference: str) -> Grade:
        same = plain(response, self.case_sensitive) == plain(reference, self.case_sensitive)
        return Grade(float(same))


@dataclass(frozen=True, slots=True)
class Numeric:
    """1 if the last number of the answer is the last number of the reference.

    1,234.5 and 3,14 are read as people mean them, 3/4 is a fraction, units and currency are passed
    over. `tolerance` is relative to the reference (absolute where that is 0); None: whole numbers
    have to be equal, as one off is another product of large ones, and others within 1e-6.
    """

    tolerance: float | None = None
    needs_reference = True

    def grade(self, response: str, reference: str) -> Grade:
        wanted = last_number(reference)
        if wanted is None:
            return Grade(None, "the reference holds no number")
        found = last_number(response)
        if self.tolerance is None and isinstance(found, int) and isinstance(wanted, int):
            return Grade(float(found == wanted))
        tolerance = 1e-6 if self.tolerance is None else self.tolerance
        margin = tolerance * (abs(wanted) or 1.0)
        close = found is not None and math.isclose(found, wanted, rel_tol=0.0, abs_tol=margin)
        return Grade(float(close))


@dataclass(frozen=True, slots=True)
class Matches:
    """1 if the pattern is found; with a group, if its last match's first group is the reference."""

    pattern: regex.Pattern[str]

    @property
    def needs_reference(self) -> bool:
        return self.pattern.groups > 0

    def grade(self, response: str, reference: str) -> Grade:
        if not self.needs_reference:
            return Grade(float(bool(self.pattern.search(response, timeout=SEARCH_SECONDS))))
        last = None
        for match in self.pattern.finditer(response, timeout=SEARCH_SECONDS):
            last = match[1]
        return Grade(float(last is not None and plain(last) == plain(reference)))


@dataclass(frozen=True, slots=True)
class Contains:
    """The share of the texts (or the reference, if there are none) that stand in the answer.

    White space and case are passed over; "4" does not stand in "14".
    """

    texts: tuple[str, ...] = ()

    @property
    def needs_reference(self) -> bool:
        return not self.texts

    def grade(self, response: str, reference: str) -> Grade:
        wanted = [plain(text) for text in self.texts or (reference,)]
        if not all(wanted):
            return Grade(None, "the text to look for is empty")
        answer = plain(response)
        return Grade(sum(_stands_in(text, answer) for text in wanted) / len(wanted))


@dataclass(frozen=True, slots=True)
class Schema:
    """1 if the answer, or the one fenced block in it, is JSON that fits the schema."""

    validator: Validator
    needs_reference = False

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> "Schema":
        """Check a JSON schema; references out of it are not followed.

        Raises:
            ValueError: it is no JSON schema.
        """
        return cls(bounded_validator(schema))

    def grade(self, response: str, reference: str) -> Grade:
        fenced = _FENCE.findall(response, timeout=SEARCH_SECONDS)
        text = fenced[0] if len(fenced) == 1 else response
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return Grade(0.0)
        try:
            return Grade(float(self.validator.is_valid(value)))
        except TimeoutError:
            raise
        except Exception as error:  # whatever the library makes of a hostile value, it is no grade
            return Grade(None, f"the schema could not be applied: {type(error).__name__}")


def plain(text: str, case_sensitive: bool = False) -> str:
    """A text as it is compared: NFKC, white space as single blanks, case folded."""
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    return text if case_sensitive else text.casefold()


def last_number(text: str) -> float | int | None:
    """The last finite number in a text, exact where it is written as a whole one; or None."""
    found = None
    for match in _NUMBER.finditer(text):
        found = match[0]
    if found is None:
        return None
    above, _, below = found.replace("−", "-").partition("/")
    try:
        number = _number(above) / float(below) if below else _number(above)
        return number if math.isfinite(number) else None
    except (ValueError, ArithmeticError):  # of digits by the thousand, too
        return None


def _number(text: str) -> float | int:
    """A comma before three digits groups them, another one is a decimal mark."""
    text = _GROUP_MARKS.sub("", text)
    return int(text) if text.lstrip("+-").isdecimal() else float(text.replace(",", "."))


def _stands_in(text: str, answer: str) -> bool:
    """Whether a text stands in an answer, not as a part of a longer word or number."""
    start = answer.find(text)
    while start >= 0:
        end = start + len(text)
        before, after = answer[start - 1 : start], answer[end : end + 1]
        if not (_joined(before, text[0]) or _joined(text[-1], after)):
            return True
        start = answer.find(text, start + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word; scripts without blanks do not."""
    return left.isascii() and right.isascii() and left.isalnum() and right.isalnum()


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
