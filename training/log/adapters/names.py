"""What other logs call the columns of the traffic table: to ask about, never to map by."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

OTHERS = {
    "request_id": ("id", "uuid", "call_id", "completion_id", "trace_id"),
    "at": ("ts", "time", "timestamp", "date", "datetime", "created", "created_at", "start_time"),
    "session_id": ("session", "conversation", "conversation_id", "thread_id", "chat_id"),
    "user_id": ("user", "end_user", "customer", "customer_id", "account_id"),
    "messages": ("chat", "chat_messages"),
    "prompt": ("query", "question", "input", "input_text"),
    "model": ("model_name", "model_id", "engine", "deployment"),
    "propensity": ("probability", "action_probability", "action_prob"),
    "input_tokens": ("prompt_tokens", "tokens_in", "num_input_tokens"),
    "output_tokens": ("completion_tokens", "tokens_out", "num_output_tokens"),
    "cost_usd": ("cost", "total_cost", "response_cost", "price", "spend"),
    "latency_ms": ("latency", "duration_ms", "response_time_ms", "request_duration_ms"),
    "response": ("answer", "completion", "output", "output_text", "reply"),
    "reference": ("expected", "expected_output", "ground_truth", "gold", "target"),
    "source": ("app", "application", "task", "tenant", "project"),
    "finish_reason": ("stop_reason",),
    "error": ("error_message", "error_code"),
    "score": ("feedback", "rating", "grade", "label", "thumb", "correct", "quality"),
}
_MEANT = {other: column for column, others in OTHERS.items() for other in others}
_NEAR = 0.8  # of difflib's ratio: a slip of the pen, not another word


def question(unread: Iterable[str], free: Collection[str]) -> str:
    """Ask whether columns that are not read are columns of the table that are `free`, in words.

    Empty where nothing looks like one.
    """
    found: dict[str, str] = {}
    for name in unread:
        plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).lower()
        near = [_MEANT.get(plain), *get_close_matches(plain, free, 1, _NEAR)]
        if column := next((column for column in near if column in free), None):
            found.setdefault(column, name)
    asked = ", ".join(f'{column} = "{name}"' for column, name in found.items())
    return f"; did you mean {asked}?" if asked else ""
