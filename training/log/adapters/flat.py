"""Calls told in flat attributes, one for each field of a message, as the conventions have them.

OpenLLMetry wrote `gen_ai.prompt.0.content` before it followed the GenAI conventions; OpenInference
writes `llm.input_messages.0.message.content`. Both become `gen_ai.input.messages` and the like, as
what the AI SDK writes does by `vercel`.
"""

from collections.abc import Mapping
from typing import Any

from training.log.adapters.chat import text_of
from training.log.adapters.records import decoded, decoded_object
from training.log.adapters.vercel import of_ai_sdk

OPENLLMETRY = ("gen_ai.prompt.", "gen_ai.completion.")
HIDDEN = "__REDACTED__"  # what OpenInference writes for a text that is not to be kept


def conventional(told: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a span, with those of the GenAI conventions made of flat ones.

    What the span tells by the conventions itself stays as it is.
    """
    kind, operation = told.get("openinference.span.kind"), told.get("ai.operationId")
    if isinstance(operation, str):  # OpenInference adds its attributes to those of the AI SDK
        made = of_ai_sdk(told, operation)
    elif isinstance(kind, str):
        made = _of_openinference(told, kind)
    elif any(name.startswith(OPENLLMETRY) for name in told):
        made = _of_openllmetry(told)
    else:
        return told
    return {name: value for name, value in made.items() if value not in (None, [])} | told


def _of_openllmetry(told: dict[str, Any]) -> dict[str, Any]:
    kind = told.get("llm.request.type")
    reasons = [one.get("finish_reason") for one in listed(told, "gen_ai.completion.")]
    return {
        # Anthropic's chats are of type completion; a span that lost its type was a long chat.
        "gen_ai.operation.name": "chat" if kind in ("chat", "completion", None) else kind,
        "gen_ai.response.finish_reasons": reasons,
        "gen_ai.input.messages": _messages(told, "gen_ai.prompt."),
        "gen_ai.output.messages": _messages(told, "gen_ai.completion."),
    }


def _of_openinference(told: dict[str, Any], kind: str) -> dict[str, Any]:
    asked = decoded_object(told.get("llm.invocation_parameters")).get("model")
    reason = told.get("llm.finish_reason")
    return {
        "gen_ai.operation.name": "chat" if kind == "LLM" else kind.lower(),
        "gen_ai.request.model": told.get("llm.request.model_name") or asked,
        "gen_ai.response.model": told.get("llm.model_name"),
        "gen_ai.response.id": decoded_object(told.get("output.value")).get("id"),
        "gen_ai.response.finish_reasons": [reason] if reason else None,
        "gen_ai.usage.input_tokens": told.get("llm.token_count.prompt"),
        "gen_ai.usage.output_tokens": told.get("llm.token_count.completion"),
        "gen_ai.input.messages": _messages(told, "llm.input_messages."),
        "gen_ai.output.messages": _messages(told, "llm.output_messages."),
    }


def _messages(told: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    """The messages under a prefix, none where a text of theirs is hidden."""
    hidden = [name for name, value in told.items() if value == HIDDEN and name.startswith(prefix)]
    if any(name.endswith((".content", ".text")) for name in hidden):
        return []
    return [_message(one) for one in listed(told, prefix)]


def listed(told: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """The objects told under a prefix, by index: `0.role`, `0.content` → {"role": …, "content": …}.

    What counts is the order of the indices (10 comes after 9); some may be missing.
    """
    tree: dict[str, Any] = {}
    for name in sorted(told):
        if name.startswith(prefix):
            *path, last = name.removeprefix(prefix).split(".")
            node = tree
            for step in path:
                if not isinstance(node.get(step), dict):
                    node[step] = {}
                node = node[step]
            node[last] = told[name]
    return [one for one in _nested(tree) if isinstance(one, dict)]


def _nested(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if all(map(str.isdecimal, node)):
        return [_nested(node[key]) for key in sorted(node, key=int)]
    return {key: _nested(value) for key, value in node.items()}


def _message(said: dict[str, Any]) -> dict[str, Any]:
    """A message of parts, as the conventions have it."""
    said = said.get("message", said)
    calls = said.get("tool_calls") or []
    parts = [part for part in map(_part, _contents(said)) if part]
    if said.get("role") == "tool":
        text = "\n".join(part.get("content") or "" for part in parts)
        result = {"type": "tool_call_response", "id": said.get("tool_call_id"), "response": text}
        return {"role": "tool", "parts": [result]}
    if calls:  # OpenInference has those of Anthropic among the parts, too
        parts = [part for part in parts if part.get("type") != "tool_call"]
    return {"role": said.get("role"), "parts": [*parts, *map(_call, calls)]}


def _contents(said: dict[str, Any]) -> list[Any]:
    if "contents" in said:
        return [part.get("message_content", part) for part in said["contents"]]
    content = said.get("content")
    parts = decoded(content)  # OpenLLMetry has a list of parts as its JSON
    if isinstance(parts, list) and all(isinstance(part, dict) and "type" in part for part in parts):
        return parts
    return [{"type": "text", "text": content}] if content else []


def _part(part: dict[str, Any]) -> dict[str, Any] | None:
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text"):
        return {"type": "text", "content": part.get("text")}
    if kind == "tool_use":
        return _call({**part, "arguments": part.get("input")})
    if kind == "tool_result":
        told = text_of(part.get("content"))
        return {"type": "tool_call_response", "id": part.get("tool_use_id"), "response": told}
    if kind == "image" and isinstance(part.get("image"), dict):
        return {"type": "image_url", "image_url": part["image"].get("image")}
    return None if kind in ("thinking", "reasoning") else part


def _call(call: dict[str, Any]) -> dict[str, Any]:
    call = call.get("tool_call", call)
    made = call.get("function", call)
    asked = {"name": made.get("name"), "arguments": made.get("arguments")}
    return {"type": "tool_call", "id": call.get("id"), **asked}
