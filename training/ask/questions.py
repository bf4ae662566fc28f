"""What a judge is asked: the answers of a log as prompts, singly or in pairs.

The texts of users and models are data: they stand between marks that are derived from them by a
hash, so that no text can hold its own marks, and the prompt says that nothing inside is an
instruction. That keeps a text from posing as the prompt's frame. It does not keep a judge from
being swayed by what it reads: both orders, ties and a gold sample show how far it is.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router.tier import Tier
from training.errors import BadInput, EnvironmentProblem
from training.log.requests import tier_index


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt for the judge about one row, or about two.

    Attributes:
        request_id: of the rows.
        rows: positions in the frame: the answer; or the answers shown as A and as B.
        prompt: what the judge is sent.
    """

    request_id: str
    rows: tuple[int, ...]
    prompt: str


def graded(frame: pd.DataFrame, wanted: NDArray[np.bool_], rubric: str | None) -> list[Question]:
    """One question for each wanted row (bool[n]) that holds an answer."""
    rubric = rubric or _text("rubric.txt")
    questions = []
    for row in np.flatnonzero(wanted & answered(frame)).tolist():
        conversation, answer = _conversation(frame["messages"][row]), frame["response"][row]
        reference = frame["reference"][row]
        texts = {"conversation": conversation, "answer": answer, "reference": reference}
        prompt = _render("rubric.jinja", texts, rubric=rubric)
        questions.append(Question(frame["request_id"][row], (row,), prompt))
    return questions


def paired(frame: pd.DataFrame, wanted: NDArray[np.bool_], tiers: Sequence[Tier]) -> list[Question]:
    """Two questions, one in each order, for each cheaper answer beside one of the top tier.

    A pair is asked about if one of its rows is wanted (bool[n]).

    Raises:
        BadInput: a row is of no tier in the tiers file.
    """
    tier = tier_index(frame, tiers)
    usable = answered(frame)
    top = len(tiers) - 1
    tops = {frame["request_id"][row]: row for row in np.flatnonzero(usable & (tier == top))}
    questions = []
    for row in np.flatnonzero(usable & (tier != top)).tolist():
        other = tops.get(frame["request_id"][row])
        if other is None or not (wanted[row] or wanted[other]):
            continue
        for first, second in ((row, int(other)), (int(other), row)):
            texts = {
                "conversation": _conversation(frame["messages"][row]),
                "first": frame["response"][first],
                "second": frame["response"][second],
            }
            prompt = _render("pairwise.jinja", texts)
            questions.append(Question(frame["request_id"][row], (first, second), prompt))
    return questions


def read_rubric(path: Path) -> str:
    """A rubric that somebody wrote, as it is.

    Raises:
        BadInput: no such file, no text, or nothing in it.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a rubric ({error})") from error
    if not text:
        raise BadInput(f"{path}: an empty rubric")
    return text


def reminder(forms: str) -> str:
    """What a judge is told whose reply cannot be read: `forms` are the last lines that count."""
    return str(_template("again.jinja").render(forms=forms))


def answered(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """bool[n]: rows that hold an answer's text."""
    return np.asarray((frame["status"] != "error") & frame["response"].notna())


def _render(name: str, texts: dict[str, Any], **more: str) -> str:
    said = json.dumps(texts, sort_keys=True).encode()
    mark = f"=====[{blake2b(said, digest_size=8).hexdigest()}]"
    return _template(name).render(mark=mark, **texts, **more)


def _conversation(messages: str) -> str:
    return "\n".join(
        f"{message['role']}: {_plain(message.get('content'))}" for message in json.loads(messages)
    )


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _text(name: str) -> str:
    return files("training.ask").joinpath("prompts", name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            "prompts for a judge need Jinja; pip install 'suffice[replay]'"
        ) from error
    environment = Environment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    return environment.from_string(_text(name))
