"""What a caller says of a request besides its messages; rules read it, the model does not."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.prompt import Messages


@dataclass(frozen=True, slots=True)
class Request:
    """The facts beside the messages.

    Attributes:
        tools: the tools offered.
        max_tokens: output tokens asked for; None where the request does not say.
        json_mode: whether the answer must be JSON.
        session: whose turn this is, e.g. a conversation's id.
        tenant: on whose behalf.
        tags: anything that rules may name.
    """

    tools: Sequence[Any] | None = None
    max_tokens: int | None = None
    json_mode: bool = False
    session: str | None = None
    tenant: str | None = None
    tags: Collection[str] = ()


def read_body(body: Mapping[str, Any]) -> tuple[str | Messages, dict[str, Any]]:
    """The prompt of an OpenAI request (chat completions or responses), and arguments of `route`.

    Session and tenant are read from its metadata, `session_id` and `tenant`.
    Values of other types than the API takes are left out, not refused: the API will say so.
    """
    prompt = body.get("messages", body.get("input", ""))
    text = body.get("text")
    shape = text.get("format") if isinstance(text, Mapping) else body.get("response_format")
    wanted = (body.get(key) for key in ("max_completion_tokens", "max_output_tokens", "max_tokens"))
    told = body.get("metadata")
    own = told if isinstance(told, Mapping) else {}
    facts: dict[str, Any] = {
        "session": own.get("session_id"),
        "tenant": own.get("tenant"),
        "tools": body.get("tools"),
        "max_tokens": next((value for value in wanted if type(value) is int and value > 0), None),
        "json_mode": isinstance(shape, Mapping)
        and shape.get("type") in ("json_object", "json_schema"),
    }
    return prompt, facts


def unread_chars(prompt: Any, tools: Sequence[Any] | None) -> int:
    """Characters that the provider bills and `Prompt` does not hold: tools and calls of tools."""
    calls = [
        message["tool_calls"]
        for message in (prompt if isinstance(prompt, Sequence) else ())
        if isinstance(message, Mapping) and message.get("tool_calls")
    ]
    return sum(len(json.dumps(part, default=str)) for part in (tools or (), *calls))
