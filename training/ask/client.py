"""Whom to ask: a provider through LiteLLM's SDK, or an OpenAI-compatible server by plain HTTP.

One call of `Client.ask` is one attempt on the wire: `training.ask.asking` is the one place that
tries again. A named server needs none of LiteLLM's translations, and asking it directly takes a
tenth of the processor time, which is what limits many calls at a time.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from training.ask.answer import Answer
from training.errors import BadInput, EnvironmentProblem


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where and how to ask.

    Attributes:
        base_url: of an OpenAI-compatible server; None: LiteLLM's provider of each model.
        key_variable: name of the environment variable that holds the server's key.
        timeout: seconds per attempt.
        concurrency: calls under way at a time.
    """

    base_url: str | None = None
    key_variable: str | None = None
    timeout: float = 120.0
    concurrency: int = 8


DEFAULT = Upstream()


class Client(Protocol):
    """Somebody to ask."""

    def check(self, model: str) -> None:
        """Raise what can be known before the first call: no such provider, no key for it."""

    async def ask(
        self, model: str, messages: list[dict[str, Any]], max_tokens: int, key: str
    ) -> Answer:
        """One attempt; `key` goes along as Idempotency-Key where providers take one.

        Raises:
            TryAgain: another attempt may succeed.
            EnvironmentProblem: the provider refuses the key.
            BadInput: the provider has no such model.
        """

    async def close(self) -> None:
        """Close the connections that are kept open."""


def open_client(upstream: Upstream) -> Client:
    """A client for models by LiteLLM's names (`provider/model`), or any name at a server.

    Providers' keys come from the environment, as LiteLLM reads them. A server that is named is
    given the key in `key_variable`, or none. No key is kept, logged or put into an error.

    Raises:
        EnvironmentProblem: the extra `replay` is missing, or the named key.
        BadInput: `base_url` is no address, or a key is named without it.
    """
    base_url, key_variable = upstream.base_url, upstream.key_variable
    _need("tenacity", "aiohttp" if base_url else "litellm")
    if not base_url:
        if key_variable:
            raise BadInput(
                f"--api-key-env {key_variable}: it is the key of a --base-url; those of providers "
                "are in the variables that LiteLLM reads (OPENAI_API_KEY, …)"
            )
        from training.ask.providers import Providers

        return Providers(upstream.timeout)
    from training.ask.server import Server

    key = os.environ.get(key_variable) if key_variable else None
    if key_variable and not key:
        raise EnvironmentProblem(f"{key_variable} is not set: it is to hold the API key")
    return Server(base_url, upstream.timeout, key)


def _need(*names: str) -> None:
    for name in names:
        if find_spec(name) is None:
            raise EnvironmentProblem(
                f"asking models needs {name}, which is not installed; pip install 'suffice[replay]'"
            )
