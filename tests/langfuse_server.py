"""A Langfuse server on loopback: it takes what the SDK posts and exports it as Langfuse does.

What the real server does between the two is repeated here as far as an export needs it: an
observation per span, OpenAI's names of token counts replaced, a score's subject. The rows are the
SDK's own models of them, dumped by these, so that a release which changes one is noticed.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from langfuse._client.attributes import LangfuseOtelSpanAttributes as Name
from langfuse.api import ObservationV2, ScoreV3_Boolean
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PROJECT = "project-1"
COUNTS = {"prompt_tokens": "input", "completion_tokens": "output", "total_tokens": "total"}


class Server:
    """What was posted so far; the base URL is where."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Any] = []
        self.scores: list[dict[str, Any]] = []

    def take(self, path: str, body: bytes) -> dict[str, Any]:
        """Keep one post; the answer to it."""
        if path.endswith("/media"):
            return {"mediaId": "image-1", "uploadUrl": None}  # it is there already
        if path.endswith("/v1/traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            return {}
        posted = json.loads(body)
        rows = posted.get("scores", posted) if isinstance(posted, dict) else posted
        self.scores += rows if isinstance(rows, list) else [rows]
        return {"id": "1", "successes": [], "errors": []}

    def observations(self) -> list[str]:
        """Exported observations, a JSON object each."""
        return [_observation(span).json() for span in self.spans]

    def exported_scores(self) -> list[str]:
        """Exported scores, a JSON object each."""
        return [_score(score).json() for score in self.scores]


@contextmanager
def langfuse_server() -> Iterator[Server]:
    """Serve while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            protobuf = "protobuf" in self.headers["content-type"]
            answer = json.dumps(taken.take(self.path, body)).encode()
            answer = b"" if protobuf else answer
            self.send_response(200)
            self.send_header("content-type", self.headers["content-type"])
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken = Server(f"http://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()


def _observation(span: Any) -> ObservationV2:
    told = {pair.key: _plain(pair.value) for pair in span.attributes}
    counts = json.loads(told.get(Name.OBSERVATION_USAGE_DETAILS) or "null")
    used = counts and {COUNTS[name]: counts[name] for name in COUNTS if name in counts}
    prefix = f"{Name.OBSERVATION_METADATA}."
    end = _time(span.end_time_unix_nano)
    return ObservationV2(
        id=span.span_id.hex(),
        trace_id=span.trace_id.hex(),
        parent_observation_id=span.parent_span_id.hex() or None,
        project_id=PROJECT,
        start_time=_time(span.start_time_unix_nano),
        end_time=end,
        updated_at=end,
        type=told.get(Name.OBSERVATION_TYPE, "span").upper(),
        name=span.name,
        level=told.get(Name.OBSERVATION_LEVEL, "DEFAULT"),
        status_message=told.get(Name.OBSERVATION_STATUS_MESSAGE),
        user_id=told.get(Name.TRACE_USER_ID),
        session_id=told.get(Name.TRACE_SESSION_ID),
        input=told.get(Name.OBSERVATION_INPUT),
        output=told.get(Name.OBSERVATION_OUTPUT),
        metadata={k.removeprefix(prefix): v for k, v in told.items() if k.startswith(prefix)},
        model=told.get(Name.OBSERVATION_MODEL),
        usage_details=used,
        latency=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        tags=told.get(Name.TRACE_TAGS),
    )


def _score(posted: dict[str, Any]) -> ScoreV3_Boolean:
    return ScoreV3_Boolean(
        id=posted["id"],
        project_id=PROJECT,
        name=posted["name"],
        value=bool(posted["value"]),
        source="API",
        timestamp=posted["timestamp"],
        environment=posted.get("environment") or "default",
        created_at=posted["timestamp"],
        updated_at=posted["timestamp"],
        subject={"kind": "trace", "id": posted["traceId"]},
    )


def _plain(value: Any) -> Any:
    if value.WhichOneof("value") == "array_value":
        return [_plain(part) for part in value.array_value.values]
    return getattr(value, value.WhichOneof("value"))


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
