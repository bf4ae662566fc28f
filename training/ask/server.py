"""Asking a model at an OpenAI-compatible server: one POST of aiohttp, and nothing between."""

import json
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from training.ask.answer import TIMED_OUT, Answer, TryAgain, clean, failed, read_answer, unreadable
from training.errors import BadInput

LONGEST = 2**26  # bytes of an answer: more is no answer


class Server:
    """A server at `base_url` (`http://host/v1`); `timeout` in seconds; `key` or None for no key.

    Raises:
        BadInput: `base_url` is no such address.
    """

    def __init__(self, base_url: str, timeout: float, key: str | None) -> None:
        if not _is_address(base_url):
            raise BadInput(f"--base-url {base_url}: expected http://HOST/… or https://HOST/…")
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._timeout, self._key = timeout, key
        self._proxy = _proxy(self._url)
        self._open: aiohttp.ClientSession | None = None

    def check(self, model: str) -> None:
        """Any model may be there."""

    async def ask(
        self, model: str, messages: list[dict[str, Any]], max_tokens: int, key: str
    ) -> Answer:
        """One attempt; see `training.ask.client.Client`."""
        body = {"model": model, "messages": messages, "max_tokens": max_tokens}
        started = perf_counter()
        try:
            async with self._session().post(
                self._url, json=body, headers=self.headers(key), proxy=self._proxy
            ) as reply:
                text = await _body(reply)
        except TimeoutError:
            return failed(model, TIMED_OUT, f"no answer within {self._timeout:g} s", None)
        except aiohttp.ClientConnectorError as error:
            raise TryAgain(clean(str(error), self._key), None, False, False) from None
        except (aiohttp.ClientError, OSError) as error:  # the connection broke: before or after?
            told = clean(f"{type(error).__name__}: {error}", self._key)
            raise TryAgain(told, None, answered=True, maybe_paid=True) from None
        if reply.status != 200:
            told = f"HTTP {reply.status}: {text.decode(errors='replace')}"
            return failed(model, reply.status, clean(told, self._key), reply.headers)
        try:
            decoded = json.loads(text)
        except (ValueError, RecursionError):
            raise unreadable("an answer that is no JSON") from None
        return read_answer(decoded, 1000.0 * (perf_counter() - started))

    async def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            await self._open.close()

    def headers(self, key: str) -> dict[str, str]:
        """Of one call."""
        told = {"Idempotency-Key": key}
        return told | {"Authorization": f"Bearer {self._key}"} if self._key else told

    def _session(self) -> aiohttp.ClientSession:
        if self._open is None:  # not before there is an event loop
            limit = aiohttp.TCPConnector(limit=0)  # asking itself says how many at a time
            timeout = aiohttp.ClientTimeout(self._timeout)
            self._open = aiohttp.ClientSession(connector=limit, timeout=timeout)
        return self._open


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """All of an answer; TryAgain where it does not end."""
    body = bytearray()
    async for part in reply.content.iter_any():
        body += part
        if len(body) > LONGEST:
            raise unreadable(f"an answer of more than {LONGEST >> 20} MB")
    return bytes(body)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        return known and (parts.port or 0) >= 0 and not any(c.isspace() for c in url)
    except ValueError:  # a port that is none, or half an IPv6 address
        return False


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
