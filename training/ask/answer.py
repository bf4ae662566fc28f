"""What one attempt brings back: an answer, or a failure and what may be done about it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.errors import BadInput, EnvironmentProblem
from training.log.adapters.chat import text_of

TIMED_OUT = 408
_FINAL = frozenset({400, 405, 406, 409, 410, 411, 413, 414, 415, 422, 451})
_REFUSED = frozenset({401, 402, 403})
_CUT = ("length", "content_filter")  # ends of an answer that may leave nothing of it
_TOLD = 300  # characters of a provider's own words that are kept
_SECRET = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][\w\-.*]{4,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one call; tokens are as billed, None where the provider does not say.

    `error` is set where the call failed for good; then there is no text and nothing was billed.
    """

    text: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    error: str | None = None


class TryAgain(Exception):
    """An attempt that failed in a way that may pass: 408, 429, 5xx, time-outs, unreadable answers.

    `after` is the provider's Retry-After in seconds, or None; `answered` whether anything at all
    came back; `maybe_paid` whether the provider may have done the work (a time-out, a cut answer).
    """

    def __init__(self, told: str, after: float | None, answered: bool, maybe_paid: bool) -> None:
        super().__init__(told)
        self.after, self.answered, self.maybe_paid = after, answered, maybe_paid


def read_answer(reply: Any, latency_ms: float) -> Answer:
    """A chat completion as decoded from JSON.

    Raises:
        TryAgain: it is none, or holds no text.
    """
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        content = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise unreadable("an answer without choices") from None
    text = (text_of(content) or None) if isinstance(content, list) else content
    reason, usage = choice.get("finish_reason"), reply.get("usage")
    if text is None and (message.get("tool_calls") or reason in _CUT):
        text = ""  # a tool call is an answer; its arguments are not kept
    if not isinstance(text, str):
        raise unreadable("an answer without text")
    sent, got = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    told = bool(sent or got)
    return Answer(
        text=text,
        finish_reason=reason if isinstance(reason, str) else None,
        input_tokens=sent if told else None,
        output_tokens=got if told else None,
        latency_ms=latency_ms,
    )


def unreadable(told: str) -> TryAgain:
    """What came back is no answer, but may have been paid for."""
    return TryAgain(told, None, answered=True, maybe_paid=True)


def failed(
    model: str, status: int, told: str, headers: Mapping[str, str] | None, answered: bool = True
) -> Answer:
    """The answer to a call that ended with an HTTP status other than a success.

    Raises:
        TryAgain: another attempt may succeed.
        EnvironmentProblem: the provider refuses the key.
        BadInput: the provider has no such model.
    """
    if status in _REFUSED:
        raise EnvironmentProblem(f"model {model!r}: the provider refuses ({told})")
    if status == 404:
        raise BadInput(f"model {model!r}: not found at the provider ({told})")
    if status in _FINAL:
        return Answer(error=told)
    paid = status in (200, TIMED_OUT)  # an answer that cannot be read, or none in time
    raise TryAgain(told, _seconds(headers), answered, paid)


def clean(text: str, key: str | None) -> str:
    """A provider's words on one line, shortened, and without any key."""
    secrets = [v for n, v in os.environ.items() if n.endswith(("_KEY", "_TOKEN", "_SECRET"))]
    for secret in (key, *secrets):
        if secret and len(secret) >= 6:
            text = text.replace(secret, "***")
    text = " ".join(_SECRET.sub("***", text).split())
    return text if len(text) <= _TOLD else text[: _TOLD - 1] + "…"


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else None


def _seconds(headers: Mapping[str, str] | None) -> float | None:
    try:
        return max(float((headers or {})["retry-after"]), 0.0)
    except (KeyError, ValueError):
        return None  # absent, or an HTTP date
