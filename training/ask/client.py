"""Asking a model, through LiteLLM's SDK: the only file that imports it, and only when it asks.

One call of `Client.ask` is one attempt on the wire. LiteLLM's and the provider SDK's own retries
are off: `training.ask.asking` is the one place that tries again.
"""

import gc
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from training.errors import BadInput, EnvironmentProblem

COMPATIBLE = "hosted_vllm"  # LiteLLM's plain client of such servers: half the cost of its `openai`
_FINAL = frozenset({400, 405, 406, 409, 410, 411, 413, 414, 415, 422, 451})
_REFUSED = frozenset({401, 402, 403})
_AWAY = re.compile(r"Cannot connect|Connect(ion)? error|Connect call failed|Name or service")
_NOISE = re.compile(
    r"litellm\.\w+: |\w+Exception - | ssl:<[^>]*>|Traceback \(most recent call.*", re.S
)
_TOLD = 300  # characters of a provider's own words that are kept
_SECRET = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][\w\-.*]{4,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one call; tokens are as billed, None where the provider does not say.

    `error` is set where the call failed for good; then there is no text and nothing was billed.
    """

    text: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    error: str | None = None


class TryAgain(Exception):
    """An attempt that failed in a way that may pass: 408, 429, 5xx, time-outs, unreadable answers.

    `after` is the provider's Retry-After in seconds, or None; `answered` whether anything at all
    came back; `maybe_paid` whether the provider may have done the work (a time-out, a cut answer).
    """

    def __init__(self, told: str, after: float | None, answered: bool, maybe_paid: bool) -> None:
        super().__init__(told)
        self.after, self.answered, self.maybe_paid = after, answered, maybe_paid


class Client:
    """Models by LiteLLM's names (`provider/model`), or any name at an OpenAI-compatible server.

    Keys come from the environment, as LiteLLM reads them; with `base_url` it is `key_variable`,
    and a server that wants none is given none. No key is kept, logged or put into an error.

    Raises:
        EnvironmentProblem: the extra `replay` is missing, or the named key.
    """

    def __init__(
        self, base_url: str | None, timeout: float, key_variable: str | None = None
    ) -> None:
        self._litellm = _litellm()
        self._base_url, self._timeout = base_url, timeout
        if base_url and not re.match(r"https?://[^/\s]+", base_url):
            raise BadInput(f"--base-url {base_url}: expected http://HOST/… or https://HOST/…")
        default = "" if base_url else "OPENAI_API_KEY"  # not for any server that is named
        self._key = os.environ.get(key_variable or default)
        if key_variable and not self._key:
            raise EnvironmentProblem(f"{key_variable} is not set: it is to hold the API key")

    def check(self, model: str) -> None:
        """Raise what can be known before the first call: no such provider, no key for it."""
        if self._base_url:
            return
        try:
            self._litellm.get_llm_provider(model)
        except Exception as error:
            raise BadInput(
                f"model {model!r}: LiteLLM does not know whose it is; write provider/model (e.g. "
                "openai/gpt-4o-mini) in the tiers file, or give --base-url"
            ) from error
        missing = self._litellm.validate_environment(model)["missing_keys"]
        if missing and not self._key:
            raise EnvironmentProblem(f"model {model!r} needs {', '.join(missing)}: not set")

    def price(self, model: str) -> tuple[float, float] | None:
        """USD per million input and output tokens by LiteLLM's list, None where it has none."""
        try:
            info = self._litellm.get_model_info(model)
        except Exception:  # LiteLLM raises bare Exception for a model that it does not list
            return None
        each = info.get("input_cost_per_token"), info.get("output_cost_per_token")
        return None if None in each else (each[0] * 1e6, each[1] * 1e6)

    async def ask(
        self, model: str, messages: list[dict[str, Any]], max_tokens: int, key: str
    ) -> Answer:
        """One attempt; `key` goes along as Idempotency-Key where providers take one.

        Raises:
            TryAgain: another attempt may succeed.
            EnvironmentProblem: the provider refuses the key.
            BadInput: the provider has no such model.
        """
        started = perf_counter()
        try:
            reply = await self._litellm.acompletion(
                model=model,
                messages=messages,
                max_tokens=max_tokens,
                timeout=self._timeout,
                max_retries=0,
                **self._where(model, key),
            )
        except Exception as error:
            return self._failed(model, error)
        return _read(reply, 1000.0 * (perf_counter() - started))

    async def close(self) -> None:
        """Close the connections that LiteLLM keeps open."""
        await self._litellm.close_litellm_async_clients()

    def _where(self, model: str, key: str) -> dict[str, Any]:
        header = {"extra_headers": {"Idempotency-Key": key}}
        if self._base_url:
            server = {"api_base": self._base_url, "api_key": self._key or "none"}
            return {"custom_llm_provider": COMPATIBLE, **server, **header}
        provider = self._litellm.get_llm_provider(model)[1]
        return header if provider in ("openai", "azure") else {}

    def _failed(self, model: str, error: Exception) -> Answer:
        status = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        told = _clean(str(error), self._key)
        if status in _REFUSED:
            raise EnvironmentProblem(f"model {model!r}: the provider refuses ({told})") from None
        if status == 404:
            raise BadInput(f"model {model!r}: not found at the provider ({told})") from None
        if status in _FINAL:
            return Answer(error=told)
        if status is None:  # not a provider's answer: a call that LiteLLM itself cannot make
            return Answer(error=f"{type(error).__name__}: {told}")
        paid = status in (200, 408)  # an answer that cannot be read, or none in time
        raise TryAgain(told, _seconds(headers), not _AWAY.search(told), paid) from None


def _read(reply: Any, latency_ms: float) -> Answer:
    """A reply as an Answer; TryAgain where it holds no text."""
    if not reply.choices:
        raise TryAgain("an answer without choices", None, answered=True, maybe_paid=True)
    choice, usage = reply.choices[0], getattr(reply, "usage", None)
    text = choice.message.content
    if text is None and choice.message.tool_calls:
        text = ""  # a tool call is an answer; its arguments are not kept
    if not isinstance(text, str):
        raise TryAgain("an answer without text", None, answered=True, maybe_paid=True)
    sent, got = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    told = bool(sent or got)
    return Answer(
        text=text,
        finish_reason=choice.finish_reason,
        input_tokens=sent if told else None,
        output_tokens=got if told else None,
        latency_ms=latency_ms,
    )


def _litellm() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    try:
        import litellm
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            f"asking models needs LiteLLM ({error.name} is not installed); "
            "pip install 'suffice[replay]'"
        ) from error
    gc.freeze()  # each full collection would walk all that LiteLLM imported, between two calls
    litellm.suppress_debug_info = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # every failure is told by this job
    return litellm


def _seconds(headers: Mapping[str, str] | None) -> float | None:
    try:
        return max(float((headers or {})["retry-after"]), 0.0)
    except (KeyError, ValueError):
        return None  # absent, or an HTTP date


def _clean(text: str, key: str | None) -> str:
    """A provider's words without any key and without LiteLLM's own trimmings, on one line."""
    text = _NOISE.sub("", text)
    secrets = [v for n, v in os.environ.items() if n.endswith(("_KEY", "_TOKEN", "_SECRET"))]
    for secret in (key, *secrets):
        if secret and len(secret) >= 6:
            text = text.replace(secret, "***")
    text = " ".join(_SECRET.sub("***", text).split())
    return text if len(text) <= _TOLD else text[: _TOLD - 1] + "…"
