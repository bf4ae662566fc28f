"""An OpenAI-compatible server on loopback with fixed answers: no call leaves the machine."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

SNAPSHOT = {"gpt-4o-mini": "gpt-4o-mini-2024-07-18", "gpt-4o": "gpt-4o-2024-08-06"}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Accra"}'},
}
OBJECT = '{"city": "Accra"}'  # the answer where the caller asks for JSON
USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}


@contextmanager
def upstream() -> Iterator[str]:
    """Serve while the block runs; the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def answer_to(prompt: str) -> str:
    """What the server says."""
    return f"You asked: {prompt}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    numbers = iter(range(10**9))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/embeddings"):
            vector = {"object": "embedding", "index": 0, "embedding": [0.0, 0.5]}
            usage = {"prompt_tokens": 3, "total_tokens": 3}
            self._send(
                {"object": "list", "data": [vector], "model": asked["model"], "usage": usage}
            )
            return
        said = [message["content"] for message in asked["messages"] if message["role"] == "user"]
        content = said[-1]
        prompt = content if isinstance(content, str) else content[0]["text"]
        if "fail" in prompt:
            error = {"message": "Rate limit reached", "type": "requests", "param": None}
            self._send({"error": error | {"code": "rate_limit_exceeded"}}, 429)
        elif asked.get("stream"):
            self._stream(asked, prompt)
        else:
            self._send(_completion(asked, prompt))

    def _send(self, body: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _stream(self, asked: dict[str, Any], prompt: str) -> None:
        whole = _completion(asked, prompt)
        usage = (asked.get("stream_options") or {}).get("include_usage")
        base = {k: whole[k] for k in ("id", "created", "model")}
        base["object"] = "chat.completion.chunk"
        [choice] = whole["choices"]
        words = re.findall(r"\s*\S+", choice["message"]["content"] or "")
        calls = choice["message"].get("tool_calls", [])
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word} for word in words]
        deltas += [{"tool_calls": [{"index": n, **call}]} for n, call in enumerate(calls)]
        chunks = [
            {**base, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas
        ]
        last = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
        chunks.append({**base, "choices": [last]})
        if usage:
            chunks.append({**base, "choices": [], "usage": USAGE})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        if "break" in prompt:
            chunks[2:] = [{"error": {"message": "Server overloaded", "type": "server_error"}}]
        for chunk in chunks:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def _completion(asked: dict[str, Any], prompt: str) -> dict[str, Any]:
    number = next(_Handler.numbers)
    told = OBJECT if asked.get("response_format") else answer_to(prompt)
    message: dict[str, Any] = {"role": "assistant", "content": told, "refusal": None}
    reason = "stop"
    if "tools" in asked and asked["messages"][-1]["role"] != "tool":
        message |= {"content": None, "tool_calls": [CALL]}
        reason = "tool_calls"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {
        "id": f"chatcmpl-{number:06d}",
        "object": "chat.completion",
        "created": 1_790_000_000 + number,
        "model": SNAPSHOT.get(asked["model"], asked["model"]),
        "choices": [choice],
        "usage": USAGE,
    }
