"""An OpenAI-compatible server on loopback that fails as real ones do, and counts what it answered.

Run as a process of its own (`python -m tests.stub_upstream`), so that its work is not the client's:
it prints its port. `GET /counts` tells, per prompt, how often it was asked and answered.
"""

import asyncio
import json
import random
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

FAULTS = ("429", "500", "hang")


@dataclass(frozen=True, slots=True)
class Stub:
    """A running stub."""

    url: str

    def counts(self) -> dict[str, Any]:
        """{"asked": {prompt: n}, "answered": {…}, "faults": {kind: n}, "busiest": n, "keys": …}."""
        with urllib.request.urlopen(self.url.replace("/v1", "/counts"), timeout=10) as reply:
            return json.loads(reply.read())


@contextmanager
def stub(latency: float = 0.0, errors: float = 0.0, reply: str = "ok") -> Iterator[Stub]:
    """Start one; `errors` is the share of attempts that fail, `reply` what `_reply` knows."""
    command = [sys.executable, "-m", "tests.stub_upstream", str(latency), str(errors), reply]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            yield Stub(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
        finally:
            process.kill()


def completion(model: str, text: Any, prompt: int = 12, answer: int = 30) -> dict[str, Any]:
    """A chat completion as OpenAI's API gives it."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        },
    }


def _judge(prompt: str) -> str:
    """A judge that likes the answer with the word better in it, and ties where neither has it."""
    first, _, second = prompt.partition("ANSWER B")
    first = first.partition("ANSWER A")[2]
    if ("better" in first) == ("better" in second):
        return '{"verdict": "tie"}'
    return json.dumps({"verdict": "A" if "better" in first else "B"})


class _Server:
    def __init__(self, latency: float, errors: float, reply: str) -> None:
        self.latency, self.errors, self.kind = latency, errors, reply
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.keys: dict[str, list[str]] = {}
        self.busy = self.busiest = 0
        self.random = random.Random(7)
        self.last: dict[str, Any] = {}

    async def counts(self, _: web.Request) -> web.Response:
        told = {name: getattr(self, name) for name in ("asked", "answered", "faults", "busiest")}
        return web.json_response(told | {"keys": self.keys, "last": self.last})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            return await self._complete(request, body)
        finally:
            self.busy -= 1

    async def _complete(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        prompt = str(body["messages"][-1]["content"])
        self.asked[prompt] += 1
        self.keys.setdefault(prompt, []).append(request.headers.get("Idempotency-Key", ""))
        self.last = {"body": body, "authorization": request.headers.get("Authorization")}
        await asyncio.sleep(self.latency)
        fault = self.random.choice(FAULTS) if self.random.random() < self.errors else None
        if fault:
            self.faults[fault] += 1
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault:
            return web.json_response({"error": {"message": "no"}}, status=int(fault))
        if self.kind == "echo" and prompt == "refuse me":
            return web.json_response({"error": {"message": "refused"}}, status=400)
        if body.get("stream") and self.kind == "echo":
            return await self._stream(request, body, prompt)
        return self._reply(body, prompt)

    async def _stream(
        self, request: web.Request, body: dict[str, Any], prompt: str
    ) -> web.StreamResponse:
        """The answer word by word, as server-sent events."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        said = [({"content": f"{word} "}, None) for word in f"answer to {prompt}".split(" ")]
        for delta, finish_reason in [*said, ({}, "stop")]:  # LiteLLM 1.110 wants an end
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
            text = json.dumps(chunk | {"model": body["model"], "choices": [choice]})
            await response.write(f"data: {text}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    def _reply(self, body: dict[str, Any], prompt: str) -> web.StreamResponse:
        model = body["model"]
        status = {"401": 401, "404": 404, "400": 400, "429": 429, "500": 500}.get(self.kind)
        if status:
            said = f"refused, Incorrect API key provided: {self.last['authorization']}"
            return web.json_response({"error": {"message": said}}, status=status)
        if self.kind == "garbage":
            kinds = (
                web.Response(body=b"\xff\xfe\x00" * 99, content_type="application/json"),
                web.Response(text="data: {\n\ndata: [DONE]\n\n", content_type="text/event-stream"),
                web.Response(text="<html>no</html>", content_type="text/html"),
                web.json_response({"choices": []}),
                web.json_response({"choices": [{"message": {"content": {"a": 1}}}]}),
            )
            return self.random.choice(kinds)
        self.answered[prompt] += 1
        if self.kind == "dear":
            return web.json_response(completion(model, "long", 12, 30_000))
        if self.kind == "unbilled":
            return web.json_response({**completion(model, "free?"), "usage": None})
        grade = json.dumps({"grade": 4 if "better answer" in prompt else 1})
        texts = {
            "grade": f"Well.\n{grade}",
            "judge": _judge(prompt),
            "prose": "Both are lovely.",
            "first": '{"verdict": "A"}',
        }
        return web.json_response(completion(model, texts.get(self.kind, f"answer to {prompt}")))


async def _serve(latency: float, errors: float, reply: str) -> None:
    server = _Server(latency, errors, reply)
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/chat/completions", server.complete)
    app.router.add_get("/counts", server.counts)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
