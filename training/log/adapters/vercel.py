"""Spans of the Vercel AI SDK (npm package `ai`): versions 4 to 6, and 7's `LegacyOpenTelemetry`.

Around the spans of the provider's calls (`ai.streamText.doStream`) is one of the SDK's own call
(`ai.streamText`), which may hold several with tools between them: only the inner ones are read.
`OpenTelemetry` of version 7 writes the GenAI conventions, but files in tools' results as here.
"""

import re
from typing import Any

from training.log.adapters.records import decoded

CALLS = (".doGenerate", ".doStream")
OUTER = ("ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject")
WRAPPED = ("text", "json", "error-text", "error-json")  # kinds of results whose value was sent


def of_ai_sdk(told: dict[str, Any], operation: str) -> dict[str, Any]:
    """The attributes of a span as the GenAI conventions have them."""
    if not operation.endswith(CALLS):
        around = ", around the calls" if operation in OUTER else ""
        return {"gen_ai.operation.name": f"{operation}{around}"}
    asked = decoded(told.get("ai.prompt.messages"))
    reason = told.get("ai.response.finishReason")
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": told.get("ai.model.id"),
        "gen_ai.response.id": told.get("ai.response.id"),
        "gen_ai.response.finish_reasons": [reason] if reason else None,
        "gen_ai.usage.input_tokens": _used(told, "inputTokens", "promptTokens"),
        "gen_ai.usage.output_tokens": _used(told, "outputTokens", "completionTokens"),
        "gen_ai.input.messages": [_message(m) for m in asked] if isinstance(asked, list) else None,
        "gen_ai.output.messages": _answer(told),
    }


def _used(told: dict[str, Any], name: str, old: str) -> Any:
    return told.get(f"ai.usage.{name}", told.get(f"ai.usage.{old}"))


def _message(said: dict[str, Any]) -> dict[str, Any]:
    content = said.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return {"role": said.get("role"), "parts": [_part(part) for part in parts]}


def _answer(told: dict[str, Any]) -> list[dict[str, Any]]:
    text = told.get("ai.response.text") or told.get("ai.response.object")
    calls = decoded(told.get("ai.response.toolCalls"))
    parts = [{"type": "text", "content": text}] if text else []
    for call in calls if isinstance(calls, list) else []:
        parts.append(_part({**call, "type": "tool-call"}))
    return [{"role": "assistant", "parts": parts}] if parts else []


def _part(part: dict[str, Any]) -> dict[str, Any]:
    kind = str(part.get("type"))
    if kind == "text":
        return {"type": "text", "content": part.get("text")}
    if "reasoning" in kind:
        return {"type": "reasoning"}
    if kind == "tool-call":
        asked = {"name": part.get("toolName"), "arguments": part.get("input", part.get("args"))}
        return {"type": "tool_call", "id": part.get("toolCallId"), **asked}
    if kind == "tool-result":
        given = {"id": part.get("toolCallId"), "response": _result(part)}
        return {"type": "tool_call_response", **given}
    return file_part(part)


def _result(part: dict[str, Any]) -> Any:
    if isinstance(part.get("content"), list):  # of version 4, beside the same in another form
        return {"type": "content", "value": part["content"]}
    output = part.get("output")
    if isinstance(output, dict) and output.get("type") in WRAPPED:
        return output.get("value")
    return part.get("result", output)


def file_part(part: dict[str, Any]) -> dict[str, Any]:
    """A picture or file, of a message or of a tool's result, as the conventions have it."""
    mime = part.get("mediaType") or part.get("mimeType")
    held = part.get("image") or part.get("data") or part.get("url")
    if isinstance(held, dict):
        held = held.get("url") or held.get("data")
    told = {"modality": re.split("[/-]", str(mime or part.get("type")))[0], "mime_type": mime}
    if isinstance(held, str) and held.startswith(("http://", "https://")):
        return {"type": "uri", **told, "uri": held}
    return {"type": "blob", **told, "content": held}
