"""The OpenAI client that picks the model where the caller says ``model="auto"``.

>>> client = SufficeOpenAI(router=Router.load("artifacts/current"))
>>> client.chat.completions.create(model="auto", messages=[...])

Everything else is the client's own: streaming, tools, retries, errors, raw responses.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

from router.decision import Decision
from router.integrations import extra
from router.request import read_body
from router.service import Router

with extra("openai"):
    from openai import AsyncOpenAI, OpenAI
    from openai._models import FinalRequestOptions

AUTO: Final = "auto"
_ROUTED: Final = ("/chat/completions", "/responses")
_last: ContextVar[Decision | None] = ContextVar("suffice_decision", default=None)


def last_decision() -> Decision | None:
    """The last decision made in this thread or task; its `id` joins the answer with the log."""
    return _last.get()


class SufficeOpenAI(OpenAI):
    """`openai.OpenAI` with a router."""

    def __init__(self, *args: Any, router: Router, **options: Any) -> None:
        """Take the client's own arguments and the router that picks."""
        self._suffice = router
        super().__init__(*args, **options)

    def copy(self, **options: Any) -> "SufficeOpenAI":
        """The client with other options, and the same router."""
        return super().copy(**_with_router(options, self._suffice))

    with_options = copy

    def _prepare_options(self, options: FinalRequestOptions) -> FinalRequestOptions:
        body = _asks(options)
        if body is not None:
            prompt, facts = read_body(_sent(body, options))
            _pick(body, self._suffice.route(prompt, **facts))
        return super()._prepare_options(options)


class AsyncSufficeOpenAI(AsyncOpenAI):
    """`openai.AsyncOpenAI` with a router."""

    def __init__(self, *args: Any, router: Router, **options: Any) -> None:
        """Take the client's own arguments and the router that picks."""
        self._suffice = router
        super().__init__(*args, **options)

    def copy(self, **options: Any) -> "AsyncSufficeOpenAI":
        """The client with other options, and the same router."""
        return super().copy(**_with_router(options, self._suffice))

    with_options = copy

    async def _prepare_options(self, options: FinalRequestOptions) -> FinalRequestOptions:
        body = _asks(options)
        if body is not None:
            prompt, facts = read_body(_sent(body, options))
            _pick(body, await self._suffice.aroute(prompt, **facts))
        return await super()._prepare_options(options)


def _asks(options: FinalRequestOptions) -> dict[str, Any] | None:
    """The body of a request whose model is to be picked."""
    body = options.json_data
    routed = options.url in _ROUTED and isinstance(body, dict) and body.get("model") == AUTO
    return body if routed else None  # type: ignore[return-value]


def _sent(body: Mapping[str, Any], options: FinalRequestOptions) -> Mapping[str, Any]:
    """The body with what the caller adds to it as `extra_body`."""
    return {**body, **options.extra_json} if options.extra_json else body


def _pick(body: dict[str, Any], decision: Decision) -> None:
    """Set the model in place: a retry sends the same body, and must not be decided again."""
    body["model"] = decision.model
    _last.set(decision)


def _with_router(options: Mapping[str, Any], router: Router) -> dict[str, Any]:
    extra = {**options.get("_extra_kwargs", {}), "router": router}
    return {**options, "_extra_kwargs": extra}
