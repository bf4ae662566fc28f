"""MLflow traces: `trace.to_json()` lines, the frame of `search_traces()`, or a tracking server.

Each chat span of a trace is a row; feedback of people on the trace belongs to its last call. Field
by field in data/README.md.
"""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from router.request import read_body
from training.errors import BadInput
from training.log.adapters.chat import (
    bare_model,
    completion,
    cost,
    feedback,
    joined_chunks,
    thumb,
    tokens,
)
from training.log.adapters.records import Numbered, decoded, decoded_object

UNNAMED = (None, "", "default", "anonymous")  # source ids that name nobody
CHAT = ("CHAT_MODEL", "LLM")
PREFIX = "mlflow"  # a source mlflow+URI#EXPERIMENT


def saw(record: dict[str, Any]) -> str | None:
    """Whether a record is a trace, and written by what."""
    info = record.get("info")
    if isinstance(info, dict) and ("trace_id" in info or "request_id" in info) and "data" in record:
        return "traces"
    if "spans" in record and ("trace_id" in record or "trace" in record):
        return "rows of search_traces"
    return None


def rows(record: dict[str, Any]) -> Iterator[dict[str, Any] | str]:
    """The chat calls of one trace."""
    info = record.get("info") or record
    listed = decoded((record.get("data") or record).get("spans")) or []
    spans = [_Span(decoded(span)) for span in listed]
    chats = [span for span in spans if span.inputs.get("messages")]
    if not chats:
        kinds = {str(span.kind) for span in spans if span.kind}
        if not kinds.isdisjoint(CHAT):
            yield "not a chat call (inputs without messages)"
        else:
            yield f"not a chat call ({', '.join(sorted(kinds)).lower() or 'no spans'})"
        return
    chats.sort(key=lambda span: span.started)
    trace = info.get("trace_id") or info.get("request_id")
    metadata = decoded_object(info.get("trace_metadata") or info.get("request_metadata"))
    given = decoded_object(info.get("tags")).items()
    tags = [f"{key}:{value}" for key, value in given if not key.startswith("mlflow.")]
    for span in chats:
        user = metadata.get("mlflow.trace.user") or span.inputs.get("user")
        yield {
            "request_id": trace if len(chats) == 1 else f"{trace}/{span.id}",
            "session_id": metadata.get("mlflow.trace.session"),
            "user_id": user,
            "tags": tags,
            **span.values(spans),
            **(_thumb(info.get("assessments"), user) if span is chats[-1] else {}),
        }


class _Span:
    """A span with its attributes decoded: each is JSON inside a JSON string."""

    def __init__(self, span: dict[str, Any]) -> None:
        self._span = span
        self._attributes = decoded_object(span.get("attributes"))
        self.kind = self.attribute("mlflow.spanType")
        self.inputs: dict[str, Any] = {}
        if self.kind in CHAT:
            self.inputs = decoded_object(self.attribute("mlflow.spanInputs"))
        context = span.get("context") or {}
        self.id = span.get("span_id") or context.get("span_id")
        self.parent = span.get("parent_span_id") or span.get("parent_id")
        self.started = int(span.get("start_time_unix_nano") or span.get("start_time") or 0)

    def attribute(self, name: str) -> Any:
        """The value, where it is JSON; else its text."""
        value = decoded(self._attributes.get(name))
        if value == "null" or (isinstance(value, str) and value[:1] == '"'):
            try:
                return json.loads(value)
            except ValueError:
                return value
        return value

    def values(self, trace: list["_Span"]) -> dict[str, Any]:
        ended = self._span.get("end_time_unix_nano") or self._span.get("end_time")
        used = decoded_object(self.attribute("mlflow.chat.tokenUsage"))
        spent = decoded_object(self.attribute("mlflow.llm.cost"))
        made = {
            "at": self.started or None,
            "latency_ms": None if ended is None else (int(ended) - self.started) / 1e6,
            "messages": read_body(self.inputs)[0],
            "model": bare_model(self.inputs.get("model") or self.attribute("mlflow.llm.model")),
            "cost_usd": cost(spent.get("total_cost")),
            # Older versions leave out what Anthropic read from its cache; the answer counts it.
            **tokens(used.get("input_tokens"), used.get("output_tokens")),
            **self._answer(),
        }
        if self._failed():
            parent = next((span for span in trace if span.id == self.parent), None)
            told = self._exception() or (parent._exception() if parent else None)
            return made | {"status": "error", "error": told or "ERROR"}
        return made | {"status": "ok"}

    def _answer(self) -> dict[str, Any]:
        outputs = self.attribute("mlflow.spanOutputs")
        if isinstance(outputs, str):
            return {"response": outputs}
        made = completion(outputs)
        if made.get("response"):
            return made
        events = self._span.get("events") or []
        chunks = [decoded((e.get("attributes") or {}).get("mlflow.chunk.value")) for e in events]
        streamed = completion(joined_chunks(c for c in chunks if isinstance(c, dict)))
        return streamed if streamed["response"] else made  # MLflow leaves out streamed tool calls

    def _failed(self) -> bool:
        status = self._span.get("status") or self._span.get("status_code")
        code = status.get("code") if isinstance(status, dict) else status
        return "ERROR" in str(code)

    def _exception(self) -> str | None:
        for event in self._span.get("events") or []:
            if event.get("name") == "exception":
                return (event.get("attributes") or {}).get("exception.type")
        return None


def _thumb(assessments: Any, user: str | None) -> dict[str, Any]:
    """The last valid thumb of the call's own user; a reviewer's or a judge's verdict is none."""
    found = None
    for told in sorted(decoded(assessments) or [], key=lambda told: str(told.get("create_time"))):
        source = told.get("source") or {}
        own = user is None or source.get("source_id") in (user, *UNNAMED)
        given = thumb((told.get("feedback") or {}).get("value"))
        human = str(source.get("source_type")) == "HUMAN"
        if own and human and told.get("valid") is not False and given is not None:
            found = given
    return feedback(found)


def is_tracked(source: str) -> bool:
    """Whether a source is an experiment of a tracking server: mlflow+URI#NAME or mlflow:NAME."""
    return source.startswith((f"{PREFIX}+", f"{PREFIX}:"))


def tracked(source: str) -> Iterator[Numbered]:
    """The traces of `mlflow+URI#EXPERIMENT` (`mlflow:EXPERIMENT` for the URI in the environment).

    Raises:
        BadInput: no such experiment, or a server that does not answer.
    """
    import mlflow

    uri, _, name = source.removeprefix(f"{PREFIX}:").removeprefix(f"{PREFIX}+").rpartition("#")
    client = mlflow.MlflowClient(uri or None)
    try:
        experiment = client.get_experiment_by_name(name)
        if experiment is None and name.isdecimal():
            experiment = client.get_experiment(name)
        if experiment is None:
            there = ", ".join(found.name for found in client.search_experiments(max_results=20))
            place = uri or mlflow.get_tracking_uri()
            raise BadInput(f"{source}: no experiment named {name!r} at {place}; there are: {there}")
        number, token = count(1), None
        while True:
            page = client.search_traces(
                locations=[experiment.experiment_id], max_results=100, page_token=token
            )
            yield from ((next(number), trace.to_dict()) for trace in page)
            token = page.token
            if not token:
                return
    except mlflow.MlflowException as error:
        raise BadInput(f"{source}: {error.message.splitlines()[0]}") from None
