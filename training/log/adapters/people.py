"""Who asked, and with which tags: what the attributes of one span tell of it."""

from typing import Any

# Under these an application's own names are told: the AI SDK's metadata (to version 6) and runtime
# context (from 7 on), and Traceloop's association properties.
OWN = ("ai.telemetry.metadata.", "ai.settings.context.", "traceloop.association.properties.")
SESSION = ("sessionid", "conversationid", "threadid", "chatid")
NO_SIGNS = str.maketrans("", "", "._-")
TASK = ("ai.telemetry.functionId", "gen_ai.agent.name")  # which call of the application it is


def people_of(told: dict[str, Any]) -> dict[str, Any]:
    """Session, user, tags and task; None where the span has none."""
    own: dict[str, Any] = {}
    for name, value in told.items():
        for prefix in filter(name.startswith, OWN):
            own.setdefault(name.removeprefix(prefix).translate(NO_SIGNS).lower(), value)
    return {
        "session_id": _first(told, "session.id", "gen_ai.conversation.id") or _first(own, *SESSION),
        "user_id": _first(told, "user.id", "enduser.id") or _first(own, "userid"),
        "tags": _first(told, "app.tags", "tags", "tag.tags") or _first(own, "tags"),
        "task": _first(told, *TASK),
    }


def _first(told: dict[str, Any], *names: str) -> Any:
    return next((told[name] for name in names if told.get(name)), None)
