"""What the formats share: OpenAI's chat completions, thumbs, and names of models."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from training.log.adapters.records import decoded_object

DRAWN = re.compile(r"chatcmpl-\d{1,3}")
UP = frozenset({"up", "thumbs_up", "thumbsup", "thumbs up", "like", "positive", "good", "true"})
DOWN = frozenset(
    {"down", "thumbs_down", "thumbsdown", "thumbs down", "dislike", "negative", "bad", "false"}
)
# As LiteLLM spells them; a prefix that is an organisation on a model hub is part of the name.
PROVIDERS = frozenset(
    "openai azure azure_ai anthropic bedrock vertex_ai gemini google mistral cohere groq deepseek "
    "xai openrouter together_ai fireworks_ai perplexity ollama ollama_chat hosted_vllm vllm "
    "litellm_proxy databricks sagemaker replicate cerebras".split()
)


def bare_model(model: Any, provider: str | None = None) -> Any:
    """A model's name without its provider's prefix: openai/gpt-4o → gpt-4o."""
    if not isinstance(model, str) or "/" not in model:
        return model
    first, _, rest = model.partition("/")
    return bare_model(rest) if first == provider or first.lower() in PROVIDERS else model


def unique_id(given: Any) -> Any:
    """A completion's id; None where it is one of the 999 that Ollama draws from."""
    return None if DRAWN.fullmatch(str(given)) else given


def answer(message: Mapping[str, Any]) -> str | None:
    """The text of an answer; of tool calls their JSON; of a refusal its text; None if nothing."""
    content = text_of(message.get("content"))
    if content:
        return content
    if calls := message.get("tool_calls"):
        return json.dumps(calls, ensure_ascii=False)
    if call := message.get("function_call"):
        return json.dumps(call, ensure_ascii=False)
    kept = message.get("provider_specific_fields") or {}
    return message.get("refusal") or kept.get("refusal") or content


def text_of(content: Any) -> str | None:
    """Content as text: a list of parts is its text parts joined."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else None


def completion(response: Any) -> dict[str, Any]:
    """Columns of a chat completion: the first choice's answer, why it ended, and its tokens.

    Of an answer of Anthropic's Messages API, the responses API or Bedrock's Converse, too.
    """
    if not isinstance(response, dict):
        return {}
    if "choices" not in response and isinstance(response.get("content"), list):
        return _of_blocks(response)
    if "choices" not in response and isinstance(response.get("output"), list):
        return _of_items(response)
    if isinstance(response.get("output"), dict) and "stopReason" in response:
        return _of_blocks(_from_converse(response))
    choice = (response.get("choices") or [{}])[0]
    said = {
        "response": answer(choice.get("message") or {}),
        "finish_reason": choice.get("finish_reason"),
    }
    usage = response.get("usage") or {}
    return said | tokens(usage.get("prompt_tokens"), usage.get("completion_tokens"))


def _of_blocks(response: dict[str, Any]) -> dict[str, Any]:
    """The same of blocks of content; what was read from a cache or put there is counted apart."""
    blocks, usage = response["content"], response.get("usage") or {}
    calls = [block for block in blocks if block.get("type") == "tool_use"]
    told = text_of(blocks) or (json.dumps(calls, ensure_ascii=False) if calls else "")
    given = [usage.get(f"{kind}input_tokens") for kind in ("", "cache_read_", "cache_creation_")]
    counted = tokens(sum(filter(None, given)), usage.get("output_tokens"))
    return {"response": told, "finish_reason": response.get("stop_reason"), **counted}


def _from_converse(response: dict[str, Any]) -> dict[str, Any]:
    """An answer of Bedrock's Converse in the form of Anthropic's, whose blocks have a type."""
    blocks = (response["output"].get("message") or {}).get("content") or []
    calls = [block["toolUse"] for block in blocks if "toolUse" in block]
    used = response.get("usage") or {}
    usage = {
        "input_tokens": used.get("inputTokens"),
        "cache_read_input_tokens": used.get("cacheReadInputTokens"),
        "cache_creation_input_tokens": used.get("cacheWriteInputTokens"),
        "output_tokens": used.get("outputTokens"),
    }
    content = [*blocks, *({"type": "tool_use", **call} for call in calls)]
    return {"content": content, "stop_reason": response.get("stopReason"), "usage": usage}


def _of_items(response: dict[str, Any]) -> dict[str, Any]:
    """The same of items of the responses API; what cut an answer short is why it ended."""
    items, usage = response["output"], response.get("usage") or {}
    said = [item for item in items if item.get("type") == "message"]
    parts = [part for item in said for part in item.get("content") or []]
    refusal = next((part["refusal"] for part in parts if part.get("refusal")), None)
    calls = [item for item in items if item.get("type") == "function_call"]
    cut = (response.get("incomplete_details") or {}).get("reason")
    return {
        "response": answer({"content": parts, "tool_calls": calls, "refusal": refusal}),
        "finish_reason": cut or response.get("status"),
        **tokens(usage.get("input_tokens"), usage.get("output_tokens")),
    }


def tokens(given: Any, made: Any) -> dict[str, Any]:
    """Columns of token counts; 0 and 0 means that nobody counted."""
    if _none(given) and _none(made):
        return {}
    return {"input_tokens": given, "output_tokens": made}


def cost(usd: Any) -> Any:
    """A cost, None where it is 0: that is what a gateway writes for a model without a price."""
    return None if _none(usd) else usd


def milliseconds(started: Any, ended: Any) -> float | None:
    """The time between two, in ISO 8601; None where that cannot be said."""
    try:
        return (_time(ended) - _time(started)).total_seconds() * 1000
    except (TypeError, ValueError):
        return None


def _time(given: Any) -> datetime:
    return datetime.fromisoformat(str(given))


def _none(number: Any) -> bool:
    if isinstance(number, str):
        return not number.strip("0. ")
    return not number


def joined_chunks(chunks: Iterable[Any]) -> dict[str, Any]:
    """The chunks of a stream as the completion that they make, its first choice only."""
    text: list[str] = []
    refusal: list[str] = []
    calls: dict[int, dict[str, Any]] = {}
    made: dict[str, Any] = {}
    reason = None
    for chunk in chunks:
        made |= {key: chunk[key] for key in ("id", "model", "usage") if chunk.get(key)}
        for choice in chunk.get("choices") or []:
            if choice.get("index"):
                continue
            delta = choice.get("delta") or {}
            text.append(delta.get("content") or "")
            refusal.append(delta.get("refusal") or "")
            for piece in delta.get("tool_calls") or []:
                _add_call(calls, piece)
            reason = choice.get("finish_reason") or reason
    message: dict[str, Any] = {"content": "".join(text)}
    message["refusal"] = "".join(refusal) or None
    message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return made | {"choices": [{"message": message, "finish_reason": reason}]}


def _add_call(calls: dict[int, dict[str, Any]], piece: dict[str, Any]) -> None:
    call = calls.setdefault(
        piece.get("index") or 0, {"id": None, "type": "function", "function": {}}
    )
    call["id"] = piece.get("id") or call["id"]
    function = piece.get("function") or {}
    known = call["function"]
    known["name"] = function.get("name") or known.get("name")
    known["arguments"] = known.get("arguments", "") + (function.get("arguments") or "")


def thumb(value: Any) -> float | None:
    """A verdict of a person as a score: 1.0 for up, 0.0 for down, None for anything else."""
    if isinstance(value, bool):
        return float(value)
    word = value.strip().lower() if isinstance(value, str) else ""
    return 1.0 if word in UP else 0.0 if word in DOWN else None


def feedback(score: float | None) -> dict[str, Any]:
    """Columns of a thumb."""
    return {} if score is None else {"score": score, "score_source": "feedback"}


def people(metadata: Any, user: Any) -> dict[str, Any]:
    """Session and user out of a request's own metadata."""
    own = decoded_object(metadata)
    return {"session_id": own.get("session_id"), "user_id": own.get("user_id") or user}
