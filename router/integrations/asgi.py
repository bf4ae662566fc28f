"""An ASGI middleware that picks the model of OpenAI requests whose model is ``"auto"``.

    app = SufficeMiddleware(app, Router.load("artifacts/current"))

Wrap a gateway of your own with it. Nothing but numpy and tokenizers is needed.
"""

import json
from asyncio import to_thread
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from router.request import read_body
from router.service import Router

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ROUTED: Final = ("/chat/completions", "/responses")
HEADER: Final = b"x-suffice-decision"
_LENGTHS: Final = (b"content-length", b"transfer-encoding")  # of the body as it came


class SufficeMiddleware:
    """Replaces ``"model": "auto"`` in the body by the picked model; the rest passes unchanged.

    The answer carries the decision's id in the header ``x-suffice-decision``. What the decision log
    still holds is written when the server shuts the app down: afterwards uvicorn ends itself by the
    signal that it received, and then no exit handler runs.
    """

    def __init__(self, app: App, router: Router, model: str = "auto") -> None:
        """Wrap `app`; `model` is the name that asks for a choice."""
        self._app, self._router, self._model = app, router, model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, self._flushing(receive), send)
            return
        routed = scope["type"] == "http" and scope["method"] == "POST"
        if not routed or not scope["path"].endswith(_ROUTED):
            await self._app(scope, receive, send)
            return
        taken = await _take(receive)
        body = b"".join(message.get("body", b"") for message in taken)
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):  # the app will answer that
            asked = None
        if not isinstance(asked, dict) or asked.get("model") != self._model:
            await self._app(scope, _again(taken, receive), send)
            return
        prompt, facts = read_body(asked)
        decision = await self._router.aroute(prompt, **facts)
        body = json.dumps({**asked, "model": decision.model}).encode()
        headers = [pair for pair in scope["headers"] if pair[0].lower() not in _LENGTHS]
        headers.append((b"content-length", str(len(body)).encode()))

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = [*message.get("headers", ()), (HEADER, decision.id.encode())]
                message = {**message, "headers": sent}
            await send(message)

        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        await self._app({**scope, "headers": headers}, _again(whole, receive), signed)

    def _flushing(self, receive: Receive) -> Receive:
        """Write what the log holds before the app learns of its shutdown."""

        async def give() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and self._router.log is not None:
                await to_thread(self._router.log.flush)
            return message

        return give


async def _take(receive: Receive) -> list[Message]:
    """All messages of the body, up to its end or the client's disconnection."""
    taken = [await receive()]
    while taken[-1]["type"] == "http.request" and taken[-1].get("more_body", False):
        taken.append(await receive())
    return taken


def _again(taken: list[Message], receive: Receive) -> Receive:
    """A `receive` that gives the messages already taken again, then those that follow."""
    left = iter(taken)

    async def give() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return give
