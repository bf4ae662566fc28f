"""Asking a provider through LiteLLM's SDK, which is imported when something is asked, not before.

LiteLLM's and the provider SDK's own retries are off.
"""

import gc
import logging
import os
import re
from functools import cache
from time import perf_counter
from typing import Any

from training.ask.answer import Answer, clean, failed, read_answer
from training.errors import BadInput, EnvironmentProblem

_IDEMPOTENT = ("openai", "azure")  # providers that take an Idempotency-Key
_AWAY = re.compile(r"Cannot connect|Connect(ion)? error|Connect call failed|Name or service")
_NOISE = re.compile(
    r"litellm\.\w+: |\w+Exception - | ssl:<[^>]*>|Traceback \(most recent call.*", re.S
)


class Providers:
    """Models by LiteLLM's names (`provider/model`).

    `timeout` is in seconds per attempt. Keys are in the variables that LiteLLM reads.
    """

    def __init__(self, timeout: float) -> None:
        self._litellm = _litellm()
        self._timeout = timeout

    def check(self, model: str) -> None:
        """Raise what can be known before the first call: no such provider, no key for it."""
        try:
            self._litellm.get_llm_provider(model)
        except Exception as error:
            raise BadInput(
                f"model {model!r}: LiteLLM does not know whose it is; write provider/model (e.g. "
                "openai/gpt-4o-mini) in the tiers file, or give --base-url"
            ) from error
        missing = self._litellm.validate_environment(model)["missing_keys"]
        if missing:
            raise EnvironmentProblem(f"model {model!r} needs {', '.join(missing)}: not set")

    async def ask(
        self, model: str, messages: list[dict[str, Any]], max_tokens: int, key: str
    ) -> Answer:
        """One attempt; see `training.ask.client.Client`."""
        started = perf_counter()
        try:
            reply = await self._litellm.acompletion(
                model=model,
                messages=messages,
                max_tokens=max_tokens,
                timeout=self._timeout,
                max_retries=0,
                **self._header(model, key),
            )
        except Exception as error:
            return _failed(model, error)
        return read_answer(reply.model_dump(), 1000.0 * (perf_counter() - started))

    async def close(self) -> None:
        """Close the connections that LiteLLM keeps open."""
        await self._litellm.close_litellm_async_clients()

    def _header(self, model: str, key: str) -> dict[str, Any]:
        provider = self._litellm.get_llm_provider(model)[1]
        return {"extra_headers": {"Idempotency-Key": key}} if provider in _IDEMPOTENT else {}


def list_price(model: str) -> tuple[float, float] | None:
    """USD per million input and output tokens by LiteLLM's list; None where that has none."""
    try:
        info = _litellm().get_model_info(model)
    except Exception:  # LiteLLM raises bare Exception for a model that it does not list
        return None
    each = info.get("input_cost_per_token"), info.get("output_cost_per_token")
    return None if None in each else (each[0] * 1e6, each[1] * 1e6)


def _failed(model: str, error: Exception) -> Answer:
    status = getattr(error, "status_code", None)
    told = clean(_NOISE.sub("", str(error)), None)
    if status is None:  # not a provider's answer: a call that LiteLLM itself cannot make
        return Answer(error=f"{type(error).__name__}: {told}")
    headers = getattr(error, "litellm_response_headers", None)
    return failed(model, status, told, headers, answered=not _AWAY.search(told))


@cache
def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    import litellm

    gc.freeze()  # each full collection would walk all that LiteLLM imported, between two calls
    litellm.suppress_debug_info = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # every failure is told by this job
    return litellm
