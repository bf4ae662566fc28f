"""What a judge said, read strictly: the whole reply or its last line is the JSON asked for, or not.

Verdicts in the middle of prose, quoted from an answer or hedged do not count: an unread verdict
leaves a row unlabelled, a misread one makes a wrong label.
"""

import json
from collections.abc import Sequence
from typing import Any

CHOICES = ("A", "B", "tie")
GRADES = (1, 2, 3, 4, 5)
CHOICE_FORMS = '{"verdict": "A"}   or   {"verdict": "B"}   or   {"verdict": "tie"}'
GRADE_FORMS = '{"grade": N}   where N is 1, 2, 3, 4 or 5'


def read_choice(reply: str) -> str | None:
    """ "A", "B" or "tie", None where the reply does not end with one."""
    found = _read(reply, "verdict", CHOICES)
    return found if isinstance(found, str) else None


def read_grade(reply: str) -> float | None:
    """The grade 1 … 5 as a score 0 … 1, None where the reply does not end with one."""
    found = _read(reply, "grade", GRADES)
    return None if found is None else (found - GRADES[0]) / (GRADES[-1] - GRADES[0])


def _read(reply: str, name: str, allowed: Sequence[Any]) -> Any:
    text = reply.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    for part in (text, text.rpartition("\n")[2].strip()):
        try:
            pairs = json.loads(part, object_pairs_hook=list)
        except (ValueError, RecursionError):
            continue
        if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
            continue
        said = [value for key, value in pairs if key == name]
        if len(said) == 1 and type(said[0]) in (int, str) and said[0] in allowed:
            return said[0]
    return None
