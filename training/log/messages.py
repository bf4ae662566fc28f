"""Chat messages in the one form of the traffic table: JSON text of a list of {role, content, …}.

Bytes of images, sound and files are left out: what stays is the part, its type and its size.
"""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np

from router.prompt import Messages
from router.request import read_body, without_bytes
from training.errors import BadInput

# How a list of messages begins in JSON and in Python, white space left out.
_BEGINNINGS = tuple(f"[{{{quote}{key}{quote}" for quote in "\"'" for key in ("role", "content"))
DAMAGE = (ValueError, SyntaxError, MemoryError, RecursionError)  # of reading either


def bare_prompt(text: str) -> list[dict[str, Any]]:
    """A text as one user message."""
    return [{"role": "user", "content": text}]


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages, each an object with a role."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value)
    )


def begins_as_chat(text: str) -> bool:
    """Whether a text begins as a list of messages does, in JSON, in JSON within JSON or Python."""
    start = "".join(text[:100].split())
    return start.removeprefix('"').replace("\\", "").startswith(_BEGINNINGS)


def python_list(text: str) -> list[Any] | None:
    """The list that a text spells in Python, as pandas' to_csv writes lists; None if it is none."""
    try:
        value = ast.literal_eval(text.strip())
    except DAMAGE:
        return None
    return value if isinstance(value, list) else None


def read_request(path: Path) -> tuple[str | Messages, dict[str, Any]]:
    """The prompt and the facts beside it of a JSON file, as `router.request.read_body` gives them.

    The file holds a list of messages, or the body of an OpenAI request.

    Raises:
        BadInput: no such file, no JSON, or neither of the two.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON: {error}") from error
    body = value if isinstance(value, dict) else {"messages": value}
    messages, tools = body.get("messages"), body.get("tools")
    listed = isinstance(messages, list) and all(isinstance(m, dict) for m in messages)
    if not listed and ("messages" in body or not isinstance(body.get("input"), str | list)):
        raise BadInput(
            f"{path}: expected a JSON list of messages, each an object like "
            '{"role": "user", "content": "…"}, or an object that holds one under "messages" '
            '(or "input")'
        )
    if tools is not None and not isinstance(tools, list):
        raise BadInput(f'{path}: "tools" must be a list, it is {_kind(tools)}')
    return read_body(body)


def canonical_messages(value: object) -> str:
    """Messages in any spelling → canonical JSON text.

    A list of messages may be given as it is, as JSON text (also JSON within JSON), or as Python
    spells it. Any other text is a bare prompt: one user message.

    Raises:
        ValueError: an object in place of a list, a list of messages that is cut off or empty, a
            message without a role, one that has its text elsewhere than in `content` (Gemini's), or
            a value of another type. The message is the reason.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    value = _from_text(value) if isinstance(value, str) else _listed(value)
    if not isinstance(value, list):
        raise ValueError(f"is not a list of messages but {_kind(value)}")
    if not value:
        raise ValueError("is an empty list")
    messages = [_message(number, message) for number, message in enumerate(value)]
    text = json.dumps(messages, ensure_ascii=False)
    return clean(text)


def clean(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD: such text has no UTF-8 form."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _from_text(text: str) -> object:
    likely = begins_as_chat(text)
    if text[:100].lstrip()[:1] not in ("[", "{") and not likely:
        return bare_prompt(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = python_list(text) if likely else bare_prompt(text)
    if value is None:
        raise ValueError("is a list of messages that is cut off or damaged")
    return _from_text(value) if isinstance(value, str) else value


def _listed(value: object) -> object:
    """A tuple or a numpy array (as pandas reads lists of a Parquet file) as a list."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _message(number: int, message: object) -> dict[str, Any]:
    """One checked message; keys that are null are left out, except content."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f"holds an entry ({number}) that is no object with a role")
    if "parts" in message and "content" not in message:
        raise ValueError(f"holds a message ({number}) whose text is in parts, not in content")
    content = _listed(message.get("content"))
    if content is not None and not isinstance(content, str | list):
        raise ValueError(f"holds a message ({number}) whose content is {_kind(content)}")
    if isinstance(content, list):
        content = [_without_nulls(without_bytes(part)) for part in content]
    kept = {key: value for key, value in message.items() if value is not None}
    return {**kept, "content": content}


def _without_nulls(part: Any) -> Any:
    """A content part without keys that are null."""
    if isinstance(part, list):
        return [_without_nulls(value) for value in part]
    if not isinstance(part, dict):
        return part
    return {key: _without_nulls(value) for key, value in part.items() if value is not None}


def _kind(value: object) -> str:
    names = {dict: "an object", type(None): "null", str: "text", bool: "a boolean", list: "a list"}
    return names.get(type(value), f"a value of type {type(value).__name__}")
