"""Messages and answer of a call as the GenAI conventions have them → the form of a chat request."""

import json
from collections.abc import Iterable
from typing import Any

from training.log.adapters.chat import answer
from training.log.adapters.records import decoded
from training.log.adapters.vercel import file_part

ROLES = ("system", "developer", "user", "assistant", "tool")


def messages_of(told: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, str | None]:
    """Messages and answer by the newer conventions; None where there are none."""
    given = decoded(told.get("gen_ai.input.messages"))
    if not isinstance(given, list):
        return None, None
    messages = [m for said in given for m in _from_parts(said)]
    if system := decoded(told.get("gen_ai.system_instructions")):
        messages = [*_from_parts({"role": "system", "parts": system}), *messages]
    made = decoded(told.get("gen_ai.output.messages"))
    if not isinstance(made, list) or not made:
        return messages, None
    return messages, answer(_from_parts(made[0])[0])


def _from_parts(said: dict[str, Any]) -> list[dict[str, Any]]:
    """A message of parts in the form of a chat request; results of tools are messages of their own.

    A message that lost its parts has the content []; one that has content in place of parts is in
    that form already.
    """
    if "parts" not in said and said.get("content") is not None:
        return [said]
    texts: list[str] = []
    others: list[dict[str, Any]] = []
    calls, results = [], []
    for part in said.get("parts") or []:
        kind = part.get("type")
        if kind == "text":
            texts.append(part.get("content") or "")
        elif kind == "tool_call":
            made = part.get("arguments")
            text = made if isinstance(made, str) else json.dumps(made, ensure_ascii=False)
            function = {"name": part.get("name"), "arguments": text}
            calls.append({"id": part.get("id"), "type": "function", "function": function})
        elif kind == "tool_call_response":
            told = _result(part.get("response", part.get("result")))
            results.append({"role": "tool", "tool_call_id": part.get("id"), "content": told})
        elif kind != "reasoning":
            others.append(_bare(part))
    if results and not (texts or calls or others):
        return results
    content: Any = texts[0] if texts else None if calls else []
    if others or len(texts) > 1:
        content = [*({"type": "text", "text": text} for text in texts), *others]
    message = {"role": said.get("role"), "content": content}
    message |= {"tool_calls": calls} if calls else {}
    if said.get("role") == "assistant":  # the results of tools that the provider runs itself
        return [message, *results]
    return [*results, message]


def _result(told: Any) -> str | list[dict[str, Any]]:
    """A tool's result; where the AI SDK has it in parts, the parts."""
    parts = told.get("value") if isinstance(told, dict) and told.get("type") == "content" else None
    if isinstance(parts, list) and all(isinstance(part, dict) for part in parts):
        return [part if part.get("type") == "text" else _bare(file_part(part)) for part in parts]
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)


def _bare(part: dict[str, Any]) -> dict[str, Any]:
    """A part without its bytes."""
    size = {"characters": len(str(part["content"]))} if part.get("content") else {}
    return {key: value for key, value in part.items() if key != "content"} | size


def from_events(events: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], str | None]:
    """Messages and answer by the older conventions, an event each, in the order of the log."""
    messages: list[dict[str, Any]] = []
    answered = None
    for event in events:
        body = event["body"] if isinstance(event["body"], dict) else {}
        role = str(event["name"]).removeprefix("gen_ai.").removesuffix(".message")
        if role in ROLES:
            message = {"role": role, **body}
            if role == "tool" and "id" in message:
                message["tool_call_id"] = message.pop("id")
            missing = None if message.get("tool_calls") else ""  # no body: the text was empty
            messages.append({**message, "content": message.get("content", missing)})
        elif event["name"] == "gen_ai.choice" and not int(body.get("index") or 0):
            answered = answer(body.get("message") or {})
    return messages, answered
