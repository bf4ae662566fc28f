"""Logs written by the real libraries while `CALLS` go to a server: python -m tests.write_logs.

Each library patches what it logs, so each runs in a process of its own.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
IMAGE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4"
PICTURE = {"type": "image_url", "image_url": {"url": IMAGE}}
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
SESSION, USER = "session-1", "user-1"


def _said(text: Any, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


CALLS: list[dict[str, Any]] = [
    _said("plain question", user=USER),
    _said("use a tool", tools=[TOOL]),
    _said("streamed, counted", stream=True, stream_options={"include_usage": True}),
    _said("streamed, not counted", stream=True),
    _said("please fail"),
    _said(
        [{"type": "text", "text": "look at"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    ),
    {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "said"},
            {"role": "user", "content": "second, 請"},
        ],
    },
]


def litellm_payloads(url: str, out: Path) -> None:
    """Standard logging payloads of direct calls, by a callback, as LiteLLM's page on it says."""
    import litellm
    from litellm.integrations.custom_logger import CustomLogger

    rows: list[str] = []

    class Keep(CustomLogger):  # type: ignore[misc]
        async def async_log_success_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            rows.append(json.dumps(kwargs["standard_logging_object"], default=str))

        async_log_failure_event = async_log_success_event

    litellm.callbacks = [Keep()]
    where: dict[str, Any] = {"api_base": url, "api_key": "none", "max_retries": 0}
    where["_skip_mcp_handler"] = True  # else calls with tools need the package mcp

    async def ask() -> None:
        for call in CALLS:
            prefixed = {**call, "model": f"openai/{call['model']}"}
            try:
                answer = await litellm.acompletion(
                    **prefixed, **where, metadata={"session_id": SESSION, "tags": ["team:a"]}
                )
                if call.get("stream"):
                    async for _ in answer:
                        pass
            except litellm.RateLimitError:
                pass
        del where["_skip_mcp_handler"]
        await litellm.aembedding(model="openai/text-embedding-3-small", input=["x"], **where)
        for _ in range(100):
            if len(rows) > len(CALLS):
                break
            await asyncio.sleep(0.1)

    asyncio.run(ask())
    _write(out / "litellm.jsonl", rows)


def litellm_spend(url: str, out: Path) -> None:
    """Rows of the proxy's spend log, in a Python of its own (`tests.gateway`)."""
    from tests.gateway import spending

    folder = out.parent / f"{out.name}-proxy"  # beside the log, which is read as a whole
    folder.mkdir()
    told = {"litellm_session_id": SESSION, "metadata": {"tags": ["team:a"]}}
    with spending(folder, url) as proxy:
        list(_asked(f"{proxy.url}/v1", [{**call, "extra_body": told} for call in CALLS]))
        rows: list[str] = []
        until = time.monotonic() + 60
        while len(rows) <= len(CALLS) and time.monotonic() < until:
            time.sleep(0.2)
            spend = folder / "spend.jsonl"
            rows = spend.read_text().splitlines() if spend.exists() else []
    _write(out / "spend.jsonl", rows)


def openai_pairs(url: str, out: Path) -> None:
    """Requests and responses as an application writes them with the SDK's own dump."""
    rows = []
    for call, answer, error in _asked(url):
        told = {"ts": "2026-11-02T10:00:00Z", "session_id": SESSION, "user_id": USER}
        if isinstance(answer, list):
            response: Any = [chunk.model_dump(mode="json", exclude_none=True) for chunk in answer]
        else:
            response = answer.model_dump(mode="json") if answer else None
        failed = {"type": type(error).__name__, "message": str(error)} if error else None
        rows.append(json.dumps({**told, "request": call, "response": response, "error": failed}))
    _write(out / "openai.jsonl", rows)


def mlflow_traces(url: str, out: Path) -> None:
    """Traces of `mlflow.openai.autolog()`: two files, and the store itself."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{out}/mlflow.db")
    mlflow.set_experiment("support")
    mlflow.openai.autolog()

    @mlflow.trace
    def handle(call: dict[str, Any]) -> None:
        mlflow.update_current_trace(
            metadata={"mlflow.trace.session": SESSION, "mlflow.trace.user": USER},
            tags={"team": "a"},
        )
        list(_asked(url, [call], embed=False))

    for call in CALLS:
        handle(call)
    list(_asked(url, []))
    mlflow.flush_trace_async_logging()
    traces = mlflow.search_traces(return_type="list")
    for trace, value in zip([t for t in traces if "plain" in t.to_json()], ["up"], strict=True):
        mlflow.log_feedback(
            trace_id=trace.info.trace_id,
            name="thumbs",
            value=value,
            source=mlflow.entities.AssessmentSource("HUMAN", USER),
        )
    traces = mlflow.search_traces(return_type="list")
    _write(out / "mlflow.jsonl", [trace.to_json() for trace in traces])
    frame = mlflow.search_traces()
    frame.to_json(out / "mlflow_frame.jsonl", orient="records", lines=True)


def otel_spans(url: str, out: Path) -> None:
    """Spans and events of opentelemetry-instrumentation-openai-v2, as OTLP-JSON lines."""
    from opentelemetry import trace
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.json.file import FileSpanExporter
    from opentelemetry.exporter.otlp.json.file._log_exporter import FileLogExporter
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    spans, logs = TracerProvider(), LoggerProvider()
    spans.add_span_processor(SimpleSpanProcessor(FileSpanExporter(path=str(out / "spans.jsonl"))))
    logs.add_log_record_processor(
        SimpleLogRecordProcessor(FileLogExporter(path=str(out / "events.jsonl")))
    )
    trace.set_tracer_provider(spans)
    set_logger_provider(logs)
    OpenAIInstrumentor().instrument()
    tracer = trace.get_tracer("app")
    for call in CALLS:
        with tracer.start_as_current_span("POST /ask") as span:
            span.set_attributes({"session.id": SESSION, "user.id": USER})
            list(_asked(url, [call], embed=False))
    list(_asked(url, []))
    spans.shutdown()
    logs.shutdown()
    for name in ("spans", "events"):
        _write(out / f"{name}.jsonl", (out / f"{name}.jsonl").read_text().splitlines())


def langfuse_exports(url: str, out: Path) -> None:
    """What Langfuse exports of calls by its OpenAI client, and of a thumb."""
    from langfuse import Langfuse, propagate_attributes
    from langfuse.openai import openai

    from tests.langfuse_server import langfuse_server

    with langfuse_server() as server:
        told = Langfuse(public_key="pk-1", secret_key="sk-1", base_url=server.url)
        for number, call in enumerate(CALLS):
            trace = told.create_trace_id(seed=str(number))
            with (
                told.start_as_current_observation(name="handle", trace_context={"trace_id": trace}),
                propagate_attributes(session_id=SESSION, user_id=USER, tags=["team:a"]),
            ):
                list(_asked(url, [call], embed=False, sdk=openai))
            if call["messages"][0]["content"] == "plain question":
                told.create_score(name="thumb", value=1, data_type="BOOLEAN", trace_id=trace)
        told.flush()
        _write(out / "observations.jsonl", server.observations())
        _write(out / "scores.jsonl", server.exported_scores())


def _asked(
    url: str, calls: list[dict[str, Any]] = CALLS, embed: bool = True, sdk: Any = None
) -> Any:
    """(call, completion or list of chunks, error) of each call by the SDK, then an embedding."""
    import openai

    with (sdk or openai).OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        for call in calls:
            try:
                answer: Any = client.chat.completions.create(**call)
                yield call, list(answer) if call.get("stream") else answer, None
            except openai.APIError as error:
                yield call, None, error
        if embed:
            client.embeddings.create(model="text-embedding-3-small", input="x")


def _write(path: Path, rows: list[str]) -> None:
    """Lines, without the place where this machine keeps its libraries."""
    text = "\n".join(row.strip() for row in rows) + "\n"
    gateway = str(Path(os.environ.get("SUFFICE_GATEWAY_PYTHON", sys.executable)).parents[1])
    usr = (gateway, sys.prefix, sys.base_prefix)
    for place, told in (*((path, "/usr") for path in usr), (str(Path.cwd()), "/app")):
        text = text.replace(place, told)
    path.write_text(text)


# What the command line of each needs in its environment.
MODES: dict[str, tuple[str, dict[str, str]]] = {
    "litellm": ("litellm", {}),
    "litellm_spend": ("litellm_spend", {}),
    "openai": ("openai", {}),
    "mlflow": ("mlflow", {}),
    "langfuse": ("langfuse", {}),
    "otel_legacy": ("otel", {CAPTURE: "true"}),
    "otel_latest": (
        "otel",
        {CAPTURE: "span_and_event", "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental"},
    ),
}
WRITERS: dict[str, Callable[[str, Path], None]] = {
    "litellm": litellm_payloads,
    "litellm_spend": litellm_spend,
    "openai": openai_pairs,
    "mlflow": mlflow_traces,
    "langfuse": langfuse_exports,
    "otel": otel_spans,
}

if __name__ == "__main__":
    WRITERS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
