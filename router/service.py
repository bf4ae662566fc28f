"""The router that a service embeds."""

import hmac
import os
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

from router.artifact import Artifact, load_artifact
from router.decision import Decision
from router.prompt import Messages, Prompt


class Router:
    """Picks a tier per prompt, in-process; safe to share between threads.

    >>> router = Router.load("artifacts/current")
    >>> router.route("What is the capital of France?").tier
    """

    __slots__ = ("_artifact", "_key", "_policy", "_predictor")

    def __init__(self, artifact: Artifact, key: bytes | None = None) -> None:
        """Serve a loaded artifact; `key` makes prompt hashes (None: decisions carry none)."""
        self._artifact = artifact
        self._predictor = artifact.predictor
        self._policy = artifact.policy
        self._key = key

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Router":
        """Check every byte of an artifact folder and build the router.

        The key of prompt hashes is the environment's SUFFICE_KEY, if it is set.

        Raises:
            ArtifactError: the folder is not a whole, known and valid artifact; nothing was built.
        """
        key = os.environ.get("SUFFICE_KEY")
        return cls(load_artifact(Path(path)), os.fsencode(key) if key else None)

    @property
    def artifact(self) -> Artifact:
        """The artifact being served."""
        return self._artifact

    def route(self, prompt: str | Messages, tools: Sequence[Any] | None = None) -> Decision:
        """Decide one request; never raises: on any failure the top tier, with the reason.

        Args:
            prompt: a text, or a list of chat messages.
            tools: the tools offered with the request.
        """
        started = perf_counter()
        try:
            return self._decide(Prompt.of(prompt, tools), started)
        except Exception as error:  # whatever it is, the service must go on
            return self._fall_back(error, started)

    def route_batch(self, prompts: Sequence[str | Messages]) -> list[Decision]:
        """Decide many requests; each as `route` would."""
        return [self.route(prompt) for prompt in prompts]

    def _decide(self, prompt: Prompt, started: float) -> Decision:
        p, usd = self._predictor.estimate_one(prompt)
        if not (isfinite(sum(p)) and isfinite(sum(usd))):
            raise ArithmeticError("an estimate is not a finite number")  # max would take NaN
        chosen = self._policy.choose_one(p, usd)
        tiers = self._predictor.tiers
        names = [tier.name for tier in tiers]
        return Decision(
            tier=tiers[chosen].name,
            model=tiers[chosen].model,
            p_suffices=dict(zip(names, p, strict=True)),
            expected_cost_usd=dict(zip(names, usd, strict=True)),
            reason="policy",
            propensity=1.0,
            router_version=self._artifact.version,
            prompt_hash=self._hash(prompt.text),
            latency_us=(perf_counter() - started) * 1e6,
        )

    def _fall_back(self, error: Exception, started: float) -> Decision:
        top = self._predictor.tiers[-1]
        return Decision(
            tier=top.name,
            model=top.model,
            p_suffices={},
            expected_cost_usd={},
            reason=f"fallback:{type(error).__name__}",
            propensity=1.0,
            router_version=self._artifact.version,
            prompt_hash=None,
            latency_us=(perf_counter() - started) * 1e6,
        )

    def _hash(self, text: str) -> str | None:
        if self._key is None:
            return None
        return hmac.digest(self._key, text.encode("utf-8"), "sha256").hex()[:32]
