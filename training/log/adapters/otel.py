"""OpenTelemetry GenAI: OTLP-JSON lines of spans and of log events, as the collector's file exporter
and the SDKs write them.

Conventions up to 1.36 have the messages in events, one each (`gen_ai.user.message`, …); later ones
in `gen_ai.input.messages` and `gen_ai.output.messages` of the span, or of one event. Files of spans
and of events are given together. `genai` reads the messages; attributes of other writers are made
those of the conventions by `flat`. Field by field in data/README.md.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.log.adapters.chat import bare_model, feedback, text_of, thumb, tokens, unique_id
from training.log.adapters.flat import conventional
from training.log.adapters.genai import from_events, messages_of
from training.log.adapters.people import people_of
from training.log.adapters.records import UNREADABLE, Numbered, bad, decoded, records
from training.log.adapters.rows import Bad, Record, Row, Skip
from training.log.adapters.shelf import Shelf
from training.log.adapters.twins import Told, Twins

SPANS, EVENTS = "spans of OTLP", "log events of OTLP"
CHAT = ("chat", "generate_content")  # a set would need values that can be hashed
DETAILS = "gen_ai.client.inference.operation.details"
VERDICT = "gen_ai.evaluation.result"
FAILED = (2, "2", "STATUS_CODE_ERROR")
LOST = "the logger dropped the prompt"
FULL = "the SDK dropped attributes of a full span (set OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT higher)"
TWICE = "another library tells of the same call"
OPENED = "the opening of a stream; Logfire tells of the call when it has ended"
SCRUBBED = "[Scrubbed due to "  # what Logfire writes for a value, session.id by default


def saw(record: dict[str, Any]) -> str | None:
    """Whether a record is an OTLP export of spans or of log events; what Langfuse posts is not."""
    for key, inner, what in (
        ("resourceSpans", "scopeSpans", SPANS),
        ("resourceLogs", "scopeLogs", EVENTS),
    ):
        if not isinstance(record.get(key), list):
            continue
        scopes = [s for r in record[key] if isinstance(r, dict) for s in r.get(inner) or []]
        names = {(s.get("scope") or {}).get("name") for s in scopes if isinstance(s, dict)}
        return None if names == {"langfuse-sdk"} else what
    return None


def join(parts: Sequence[tuple[Path, str]]) -> Iterator[tuple[int, Record]]:
    """The chat spans of files (path, what was seen), each with the number of the file.

    A collector may write spans, events and metrics to one file: each line is judged by itself.
    """
    with Shelf() as around:
        only_events = set(range(len(parts)))
        twins = Twins()
        for number, (path, _) in enumerate(parts):
            for record in records(path):
                if not isinstance(record, Bad) and "resourceLogs" in record[1]:
                    _quietly(_keep_event, record[1], around)
                    continue
                only_events.discard(number)
                if not isinstance(record, Bad):
                    _quietly(_keep_spans, record[1], around, twins)
        for number, (path, _) in enumerate(parts):
            for record in records(path) if number not in only_events else ():
                for found in [record] if isinstance(record, Bad) else _calls(record, around):
                    yield number, found


def _quietly(keep: Callable[..., None], *given: Any) -> None:
    """What cannot be read here is told of when the calls are read; an event's loss shows there."""
    with suppress(*UNREADABLE):
        keep(*given)


def _keep_spans(record: dict[str, Any], around: Shelf, twins: Twins) -> None:
    for span, attributes, _, scope in _spans(record):
        around.put(_key(span), {**people_of(attributes), "parent": span.get("parentSpanId")})
        _quietly(_keep_twins, span, attributes, scope, around, twins)


def _keep_twins(
    span: dict[str, Any], attributes: dict[str, Any], scope: str, around: Shelf, twins: Twins
) -> None:
    """Framework and client tell of one call: the inner span of the two is not read."""
    told = conventional(attributes)
    messages, _ = messages_of(told)
    if messages is None or _no_chat(span, told) or _no_prompt(messages):
        return
    asked = text_of(messages[-1].get("content"))
    if not asked:
        return
    times = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    for key in twins.inner(Told(asked, _model(told), scope, *times, _key(span))):
        around.put(f"twice {key}", None)


def _keep_event(record: dict[str, Any], around: Shelf) -> None:
    for resource in record["resourceLogs"]:
        for scope in resource.get("scopeLogs") or []:
            for event in scope.get("logRecords") or []:
                attributes = _attributes(event)
                name = event.get("eventName") or attributes.get("event.name")
                told = {"name": name, "body": _value(event.get("body") or {}), **attributes}
                if name == VERDICT and "gen_ai.response.id" in attributes:
                    around.put(f"answer {attributes['gen_ai.response.id']}", told)
                else:
                    around.put(f"event {_key(event)}", told)


def _calls(record: Numbered, around: Shelf) -> Iterator[Record]:
    line, batch = record
    if "resourceLogs" in batch:
        return
    if "resourceMetrics" in batch:
        yield Skip(line, "metrics")
        return
    try:
        spans = list(_spans(batch))
    except UNREADABLE as error:
        yield bad(line, batch, error)
        return
    for span, attributes, service, _ in spans:
        try:
            found = _call(span, conventional(attributes), around)
        except UNREADABLE as error:
            yield bad(line, span, error)
            continue
        if isinstance(found, str):
            yield Skip(line, found)
        else:
            yield Row(line, {**found, "source": service})


def _call(span: dict[str, Any], told: dict[str, Any], around: Shelf) -> dict[str, Any] | str:
    if why := _no_chat(span, told):
        return why
    events = around.find(f"event {_key(span)}")
    details: dict[str, Any] = next((e for e in events if e["name"] == DETAILS), {})
    messages, answered = messages_of(details | told)
    if messages is None:
        messages, answered = from_events(events)
    if around.find(f"twice {_key(span)}"):
        return TWICE
    if why := _no_prompt(messages):
        return why
    started, ended = int(span["startTimeUnixNano"]), int(span.get("endTimeUnixNano") or 0)
    given = unique_id(told.get("gen_ai.response.id"))
    reasons = decoded(told.get("gen_ai.response.finish_reasons")) or None
    reason = reasons[0] if isinstance(reasons, list) else reasons
    # A stream that breaks is an error by its reason alone, as the AI SDK tells it up to version 6.
    failed = (span.get("status") or {}).get("code") in FAILED or reason == "error"
    if not (failed or given or answered) and told.get("logfire.span_type") == "span":
        return OPENED
    if told.get("logfire.span_type") == "log":  # written when a stream has ended
        started -= int(told.get("duration", 0) * 1e9)
    verdicts = [e for e in events if e["name"] == VERDICT]
    return {
        "request_id": given or f"span-{_key(span)}",
        "at": started,
        **_people(span, told, around),
        "messages": messages,
        "model": _model(told),
        **tokens(_used(told, "input", "prompt"), _used(told, "output", "completion")),
        "latency_ms": (ended - started) / 1e6 if ended else None,
        "response": answered,
        "finish_reason": reason,
        "error": _error(span, told) if failed else None,
        "status": "error" if failed else "ok",
        **feedback(_verdict(verdicts + (around.find(f"answer {given}") if given else []))),
    }


def _no_chat(span: dict[str, Any], told: dict[str, Any]) -> str | None:
    """Why a span is not read at all."""
    operation = told.get("gen_ai.operation.name")
    if not operation and "gen_ai.request.model" in told:
        return "a model's call in attributes that are not read (no gen_ai.operation.name)"
    if operation not in CHAT:
        return f"not a chat call ({operation or 'a span of the application'})"
    return FULL if span.get("droppedAttributesCount") else None


def _no_prompt(messages: list[dict[str, Any]] | None) -> str | None:
    """Why messages are no prompt."""
    if not messages:
        return "no prompt in the log (content was not captured)"
    lost = any(m["role"] == "user" and m["content"] == [] for m in messages)
    return LOST if lost else None


def _error(span: dict[str, Any], told: dict[str, Any]) -> Any:
    raised = [_attributes(event) for event in span.get("events") or []]
    types = [told.get("error.type"), *(one.get("exception.type") for one in raised)]
    return next(filter(None, types), "ERROR")


def _model(told: dict[str, Any]) -> Any:
    return bare_model(told.get("gen_ai.request.model") or told.get("gen_ai.response.model"))


def _used(told: dict[str, Any], name: str, old: str) -> Any:
    return told.get(f"gen_ai.usage.{name}_tokens", told.get(f"gen_ai.usage.{old}_tokens"))


def _people(span: dict[str, Any], told: dict[str, Any], around: Shelf) -> dict[str, Any]:
    """Session, user and tags, from the span or the nearest one above it that has them.

    The task, too, is a tag.
    """
    found = people_of(told)
    above, seen = span.get("parentSpanId"), set()
    while above and above not in seen and not all(found.values()):
        seen.add(above)
        for parent in around.find(f"{span.get('traceId')}:{above}")[:1]:
            found = {name: value or parent.get(name) for name, value in found.items()}
            above = parent.get("parent")
    task = found.pop("task")
    if task and isinstance(found["tags"], list | None):
        found["tags"] = [*(found["tags"] or []), task]
    return found


def _verdict(events: list[dict[str, Any]]) -> float | None:
    """The last thumb; a number alone counts where the verdict's name says that it is one."""
    found = None
    for event in events:
        given = thumb(event.get("gen_ai.evaluation.score.label"))
        value = event.get("gen_ai.evaluation.score.value")
        name = event.get("gen_ai.evaluation.name")
        if given is None and "thumb" in str(name) and value in (0, 1, -1):
            given = float(value > 0)
        found = found if given is None else given
    return found


def _spans(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], Any, str]]:
    """Each span with its attributes, its service, and the library that wrote it."""
    for resource in record["resourceSpans"]:
        service = _attributes(resource.get("resource") or {}).get("service.name")
        for scope in resource.get("scopeSpans") or []:
            library = str((scope.get("scope") or {}).get("name"))
            for span in scope.get("spans") or []:
                yield span, _attributes(span), service, library


def _key(span: dict[str, Any]) -> str:
    return f"{span.get('traceId')}:{span.get('spanId')}"


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:
    told = {entry["key"]: _value(entry.get("value")) for entry in holder.get("attributes") or []}
    return {key: value for key, value in told.items() if not _scrubbed(value)}


def _scrubbed(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(SCRUBBED)


def _value(value: Any) -> Any:
    """An OTLP value: 64-bit integers may be text."""
    if not isinstance(value, dict) or not value:
        return None
    kind, content = next(iter(value.items()))
    if kind == "intValue":
        return int(content)
    if kind == "arrayValue":
        return [_value(entry) for entry in content.get("values") or []]
    if kind == "kvlistValue":
        return {e["key"]: _value(e.get("value")) for e in content.get("values") or []}
    return content
