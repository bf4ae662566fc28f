"""What a caller says about a request besides its messages; read by rules, not by the model."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from router.prompt import Messages, as_mapping, as_part, as_turn, is_image, parts_of

INLINE: Final = 256  # characters: a longer value of a part that holds data is bytes, not a link
_FILE: Final = ('"data": "', 'file_data": "', '"data:')  # what JSON with an inline file in it holds


@dataclass(frozen=True, slots=True)
class Request:
    """The facts beside the messages.

    Attributes:
        tools: the tools offered.
        max_tokens: output tokens asked for; None where the request does not say, or no number.
        json_mode: whether the answer must be JSON.
        session: the conversation that this is a turn of.
        tenant: on whose behalf the request is made.
        tags: names that rules may refer to; whatever was given, kept as a tuple.

    Session, tenant and tags are kept as texts whatever they were given as (a UUID, a number), since
    rules and logs name them so. What cannot be read is none, and so is an empty session or tenant
    (a header that was not sent).
    """

    tools: Sequence[Any] | None = None
    max_tokens: int | None = None
    json_mode: bool = False
    session: str | None = None
    tenant: str | None = None
    tags: Collection[str] = ()

    def __post_init__(self) -> None:
        """Read the tags (once: a generator yields them only once) and all that is of another type.

        Never raises, whatever the caller gave: a fallback needs a request, too.
        """
        if type(self.tags) is not tuple or self.tags:
            object.__setattr__(self, "tags", _texts(self.tags))
        if self.session is not None:
            object.__setattr__(self, "session", _text(self.session) or None)
        if self.tenant is not None:
            object.__setattr__(self, "tenant", _text(self.tenant) or None)
        if self.max_tokens is not None and type(self.max_tokens) is not int:
            object.__setattr__(self, "max_tokens", _whole(self.max_tokens))


def _texts(tags: Any) -> tuple[str, ...]:
    try:
        listed = (tags,) if isinstance(tags, str | bytes) else tags
        return tuple(text for tag in listed if (text := _text(tag)) is not None)
    except Exception:  # None, or whatever else has no tags
        return ()


def _text(name: Any) -> str | None:
    """A name as a plain text; None where there is none, or it cannot be read."""
    try:
        if issubclass(type(name), str):  # by its type, as a proxy only says that it is a text
            return str.__str__(name)
        return None if name is None else str(name)
    except Exception:
        return None


def _whole(number: Any) -> int | None:
    try:
        return int(number)
    except Exception:
        return None


def read_body(body: Mapping[str, Any]) -> tuple[str | Messages, dict[str, Any]]:
    """The prompt of a request's body, and the other arguments of `route` that the body states.

    Args:
        body: a request of one of OpenAI's APIs (chat completions, responses, completions), or of
            Anthropic's, which states `system` beside the messages. Session and tenant are
            `session_id` and `tenant` of its metadata; an empty text is none.

    A value of another type than the API takes is left out, not refused: the API will say so.
    """
    prompt = body["messages"] if "messages" in body else _turns(body)
    system = body.get("system")
    if isinstance(system, str | list) and system and isinstance(prompt, list):
        prompt = [{"role": "system", "content": system}, *prompt]
    text = body.get("text")
    shape = text.get("format") if isinstance(text, Mapping) else body.get("response_format")
    offered = (body.get(key) for key in ("tools", "functions"))
    wanted = (body.get(key) for key in ("max_completion_tokens", "max_output_tokens", "max_tokens"))
    metadata = body.get("metadata")
    named = metadata if isinstance(metadata, Mapping) else {}
    session, tenant = named.get("session_id"), named.get("tenant")
    facts: dict[str, Any] = {
        "session": session if isinstance(session, str) and session else None,
        "tenant": tenant if isinstance(tenant, str) and tenant else None,
        "tools": next((value for value in offered if isinstance(value, list) and value), None),
        "max_tokens": next((value for value in wanted if type(value) is int and value > 0), None),
        "json_mode": isinstance(shape, Mapping)
        and shape.get("type") in ("json_object", "json_schema"),
    }
    return prompt, facts


def _turns(body: Mapping[str, Any]) -> Any:
    """The prompt of a body without messages, in their form."""
    given = body.get("input", body.get("prompt", ""))
    if isinstance(given, list) and all(isinstance(part, str) for part in given):
        given = "\n".join(given)
    if "input" not in body and not isinstance(given, str):  # a stored prompt, or ids of tokens
        given = ""
    instructions = body.get("instructions")
    stated = isinstance(instructions, str)
    if not isinstance(given, list):
        if not stated:
            return given
        given = [{"role": "user", "content": given}]
    system = [{"role": "system", "content": instructions}] if stated else []
    return [*system, *(as_turn(item) if isinstance(item, Mapping) else item for item in given)]


def unread_chars(prompt: Any, tools: Sequence[Any] | None) -> int:
    """Characters that the provider bills and `Prompt` does not count.

    They are those of tools and tool calls, documents and a model's reasoning: everything in a
    message but its text, its images (which `Prompt` counts) and the bytes of inline files.
    """
    chars = len(_json(tools)) if tools else 0
    listed = isinstance(prompt, Sequence) and not isinstance(prompt, str)
    for message in map(as_mapping, prompt if listed else ()):
        for key, value in message.items():
            if key == "content":
                if not isinstance(value, str):
                    chars += sum(map(_billed, filter(_is_unread, parts_of(value))))
            elif value and key != "role":
                chars += _billed(value)
    return chars


def _is_unread(part: Any) -> bool:
    """Whether a part is one that `Prompt` neither reads nor counts."""
    return isinstance(part, Mapping) and not (isinstance(part.get("text"), str) or is_image(part))


def without_bytes(part: Any) -> Any:
    """A content part (or a list of them) with inline data replaced by its kind and size."""
    if isinstance(part, list | tuple):
        return [without_bytes(value) for value in part]
    part = as_part(part)
    return dict(_entries(part)) if isinstance(part, Mapping) else part


def _entries(part: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    for key, value in part.items():
        if isinstance(value, str) and key != "text" and value.startswith("data:"):
            yield key, value[:INLINE].split(",")[0]
            yield f"{key}_characters", len(value)
        elif isinstance(value, str) and key in ("data", "file_data") and len(value) > INLINE:
            if part.get("type") == "text":  # Anthropic's documents in plain text
                yield key, value
            else:
                yield f"{key}_characters", len(value)
        else:
            yield key, without_bytes(value)


def _billed(part: Any) -> int:
    """Characters of a part of a message as JSON, without the bytes of inline files."""
    text = _json(part)
    if len(text) > INLINE and any(sign in text for sign in _FILE):
        text = _json(without_bytes(part))
    return len(text)


def _json(part: Any) -> str:
    """A part as JSON text; its repr where JSON cannot hold it."""
    if isinstance(part, str):
        return part
    try:
        return json.dumps(part, default=str)
    except (TypeError, ValueError, RecursionError):
        return repr(part)
