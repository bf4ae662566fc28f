"""LiteLLM: standard logging payloads, and the proxy's spend log as JSON lines or Postgres CSV.

Field by field in data/README.md. Zero tokens and zero cost mean "unknown" here.
"""

from collections.abc import Iterator
from typing import Any

from training.log.adapters.chat import bare_model, completion, cost, milliseconds, tokens, unique_id
from training.log.adapters.records import decoded, decoded_object

CHAT = ("completion", "acompletion", "", "None", None)
CUT = "(litellm_truncated skipped "
WITHHELD = "redacted-by-litellm"


def saw(record: dict[str, Any]) -> str | None:
    """Which of LiteLLM's two logs a record is from."""
    if "spend" in record and "request_id" in record and "call_type" in record:
        return "rows of the proxy's spend log"
    if "call_type" in record and "startTime" in record and "response_cost" in record:
        return "standard logging payloads"
    return None


def rows(record: dict[str, Any]) -> Iterator[dict[str, Any] | str]:
    """The call of one record."""
    if record.get("call_type") not in CHAT:
        yield f"not a chat call ({record['call_type']})"
        return
    made = _spend(record) if "spend" in record else _payload(record)
    messages = made["messages"]
    if not messages or messages in ("{}", "[]"):
        yield "no prompt in the log"
        return
    texts = list(_texts(messages))
    if any(CUT in text for text in texts):
        yield "the logger cut the prompt"
    elif WITHHELD in texts:
        yield "the logger withheld the text"
    else:
        if CUT in (made.get("response") or ""):
            made["response"] = None
        yield made


def _payload(record: dict[str, Any]) -> dict[str, Any]:
    parameters = record.get("model_parameters") or {}
    started, ended = record["startTime"], record.get("endTime")
    failed = record.get("error_information") or {}
    made = {
        "request_id": _own_id(record, record["id"]),
        "at": started,
        "session_id": record.get("session_id") or record.get("trace_id"),
        "user_id": record.get("end_user") or parameters.get("user"),
        "messages": record.get("messages"),
        "model": bare_model(record.get("model"), record.get("custom_llm_provider")),
        "cost_usd": cost(record.get("response_cost")),
        "latency_ms": None if ended is None else (ended - started) * 1000,
        "tags": _tags(record.get("request_tags")),
        "error": failed.get("error_class") or failed.get("error_code"),
        "status": record.get("status"),
    }
    metadata = decoded_object(record.get("metadata"))
    made |= completion(record.get("response")) | _decided(record, metadata)
    return made | tokens(record.get("prompt_tokens"), record.get("completion_tokens"))


def _spend(record: dict[str, Any]) -> dict[str, Any]:
    metadata = decoded_object(record.get("metadata"))
    request = decoded(record.get("proxy_server_request"))
    messages = decoded(record.get("messages"))
    if not isinstance(messages, list):  # the database's own column is filled by old versions only
        messages = request.get("messages") if isinstance(request, dict) else request
    failed = metadata.get("error_information") or {}
    made = {
        "request_id": _own_id(record, record["request_id"]),
        "at": record.get("startTime"),
        "session_id": record.get("session_id"),
        "user_id": record.get("end_user"),
        "messages": messages,
        "model": bare_model(record.get("model"), record.get("custom_llm_provider")),
        "cost_usd": cost(record.get("spend")),
        "latency_ms": _milliseconds(record),
        "tags": _tags(decoded(record.get("request_tags"))),
        "error": failed.get("error_class") or failed.get("error_code"),
        "status": record.get("status") or metadata.get("status"),
    }
    made |= completion(decoded_object(record.get("response"))) | _decided(record, metadata)
    return made | tokens(record.get("prompt_tokens"), record.get("completion_tokens"))


def _own_id(record: dict[str, Any], given: Any) -> Any:
    """The answer's id; where that is one of many, LiteLLM's own, if the log has it."""
    return unique_id(given) or record.get("litellm_call_id") or given


def _decided(record: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Tier and propensity of our own decision, where what it chose is what answered."""
    logged = metadata.get("spend_logs_metadata")
    signed = logged.get("suffice") if isinstance(logged, dict) else None
    if not isinstance(signed, dict) or not isinstance(signed.get("tier"), str):
        return {}
    answered = bare_model(record.get("model"), record.get("custom_llm_provider"))
    same_model = answered == bare_model(signed.get("model"))
    same = same_model or record.get("model_group") == signed["tier"]
    return {key: signed.get(key) for key in ("tier", "propensity")} if same else {}


def _milliseconds(record: dict[str, Any]) -> Any:
    given = record.get("request_duration_ms")
    if given is not None and given != "":
        return given
    return milliseconds(record.get("startTime"), record.get("endTime"))


def _tags(tags: Any) -> list[Any]:
    """The tags without those that the proxy adds by itself."""
    if not isinstance(tags, list):
        return []
    return [tag for tag in tags if not str(tag).startswith("User-Agent:")]


def _texts(messages: Any) -> Iterator[str]:
    """Every text that was sent."""
    if isinstance(messages, str):
        yield messages
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else message
        for part in content if isinstance(content, list) else (content,):
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text
