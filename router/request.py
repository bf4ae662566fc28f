"""What a caller says of a request besides its messages; rules read it, the model does not."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from router.prompt import Messages, as_mapping

INLINE: Final = 256  # characters: a longer value of a part that holds data is bytes, not a link


@dataclass(frozen=True, slots=True)
class Request:
    """The facts beside the messages.

    Attributes:
        tools: the tools offered.
        max_tokens: output tokens asked for; None where the request does not say.
        json_mode: whether the answer must be JSON.
        session: whose turn this is, e.g. a conversation's id.
        tenant: on whose behalf.
        tags: anything that rules may name; made a tuple of texts, as that is what rules name.
    """

    tools: Sequence[Any] | None = None
    max_tokens: int | None = None
    json_mode: bool = False
    session: str | None = None
    tenant: str | None = None
    tags: Collection[str] = ()

    def __post_init__(self) -> None:
        """Read the tags once: a generator has them only once, and a wrong one hides no other."""
        if type(self.tags) is not tuple or self.tags:
            object.__setattr__(self, "tags", _texts(self.tags))


def _texts(tags: Any) -> tuple[str, ...]:
    if isinstance(tags, str):
        return (tags,)
    try:
        return tuple(tag for tag in tags if isinstance(tag, str))
    except Exception:  # None, or whatever else has no tags
        return ()


def read_body(body: Mapping[str, Any]) -> tuple[str | Messages, dict[str, Any]]:
    """The prompt of an OpenAI request (of any of its completions), and arguments of `route`.

    Session and tenant are read from its metadata, `session_id` and `tenant`.
    Values of other types than the API takes are left out, not refused: the API will say so.
    """
    prompt = body["messages"] if "messages" in body else _turns(body)
    text = body.get("text")
    shape = text.get("format") if isinstance(text, Mapping) else body.get("response_format")
    offered = (body.get(key) for key in ("tools", "functions"))
    wanted = (body.get(key) for key in ("max_completion_tokens", "max_output_tokens", "max_tokens"))
    told = body.get("metadata")
    own = told if isinstance(told, Mapping) else {}
    session, tenant = own.get("session_id"), own.get("tenant")
    facts: dict[str, Any] = {
        "session": session if isinstance(session, str) else None,
        "tenant": tenant if isinstance(tenant, str) else None,
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
    told = body.get("instructions")
    if not isinstance(given, list):
        if not isinstance(told, str):
            return given
        given = [{"role": "user", "content": given}]
    system = [{"role": "system", "content": told}] if isinstance(told, str) else []
    return [*system, *map(_message, given)]


def _message(item: Any) -> Any:
    """An item of the responses API as a chat message: calls of tools, and what they gave."""
    if not isinstance(item, Mapping) or "role" in item:
        return item
    if "content" in item:
        return {"role": "assistant", **item}
    if item.get("type") == "image_generation_call":
        return {"role": "assistant", "content": [{"type": "image"}]}
    if "output" in item:
        seen = isinstance(item["output"], Mapping)  # a screenshot
        return {"role": "tool", "content": [{"type": "image"}] if seen else item["output"]}
    return {"role": "assistant", "content": "", "tool_calls": [item]}


def unread_chars(prompt: Any, tools: Sequence[Any] | None) -> int:
    """Characters that the provider bills and `Prompt` does not hold: tools and calls of tools."""
    listed = isinstance(prompt, Sequence) and not isinstance(prompt, str)
    calls = [
        message[name]
        for message in map(as_mapping, prompt if listed else ())
        for name in ("tool_calls", "function_call")
        if message.get(name)
    ]
    return sum(map(_size, (tools or (), *calls)))


def without_bytes(part: Any) -> Any:
    """A content part (or a list of them) with inline data replaced by its kind and size."""
    if isinstance(part, list | tuple):
        return [without_bytes(value) for value in part]
    return dict(_entries(part)) if isinstance(part, Mapping) else part


def _entries(part: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    for key, value in part.items():
        if isinstance(value, str) and key != "text" and value.startswith("data:"):
            yield key, value[:INLINE].split(",")[0]
            yield f"{key}_characters", len(value)
        elif isinstance(value, str) and key in ("data", "file_data") and len(value) > INLINE:
            yield f"{key}_characters", len(value)
        else:
            yield key, without_bytes(value)


def _size(part: Any) -> int:
    """Characters of a part as JSON, about as many of what is none."""
    try:
        return len(json.dumps(part, default=str))
    except (TypeError, ValueError, RecursionError):
        return len(repr(part))
