"""The router that a service embeds."""

import hmac
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from router.artifact import Artifact, load_artifact
from router.decision import Decision
from router.prompt import Messages, Prompt
from router.request import Request
from router.rules_file import load_rules
from router.served import Served
from router.sessions import Seen, Sessions


class Router:
    """Picks a tier per prompt, in-process; safe to share between threads and after a fork.

    >>> router = Router.load("artifacts/current")
    >>> router.route("What is the capital of France?").tier
    """

    __slots__ = ("_key", "_rules_file", "_served", "_sessions")

    def __init__(
        self,
        artifact: Artifact,
        key: bytes | None = None,
        *,
        rules: str | os.PathLike[str] | None = None,
    ) -> None:
        """Serve a loaded artifact.

        Args:
            artifact: what decides.
            key: makes prompt hashes; None: decisions carry none.
            rules: a TOML file of rules (see `router.rules`), in place of the artifact's own.

        Raises:
            RulesError: the file is not one of rules for these tiers.
        """
        self._key = key
        self._rules_file = None if rules is None else Path(rules)
        self._sessions = Sessions()
        self._served = self._prepared(artifact)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, rules: str | os.PathLike[str] | None = None
    ) -> "Router":
        """Check every byte of an artifact folder and build the router.

        The key of prompt hashes is the environment's SUFFICE_KEY, if it is set.

        Raises:
            ArtifactError: the folder is not a whole, known and valid artifact; nothing was built.
            RulesError: the file `rules` is not one of rules for the artifact's tiers.
        """
        key = os.environ.get("SUFFICE_KEY")
        return cls(load_artifact(Path(path)), os.fsencode(key) if key else None, rules=rules)

    @property
    def artifact(self) -> Artifact:
        """The artifact being served."""
        return self._served.artifact

    def route(
        self,
        prompt: str | Messages,
        tools: Sequence[Any] | None = None,
        *,
        max_tokens: int | None = None,
        json_mode: bool = False,
        session: str | None = None,
        tenant: str | None = None,
        tags: Collection[str] = (),
    ) -> Decision:
        """Decide one request; never raises: on any failure the top tier, with the reason.

        Args:
            prompt: a text, or a list of chat messages.
            tools: the tools offered with the request.
            max_tokens: output tokens asked for; only rules read this and what follows.
            json_mode: whether the answer must be JSON.
            session: the conversation that this is a turn of.
            tenant: on whose behalf.
            tags: anything that rules name.
        """
        started = perf_counter()
        served = self._served
        request = Request(tools, max_tokens, json_mode, session, tenant, tags)
        try:
            return self._decide(served, prompt, request, started)
        except Exception as error:  # whatever it is, the service must go on
            return self._stand_in(served, request, f"fallback:{type(error).__name__}", started)

    def route_batch(self, prompts: Sequence[str | Messages]) -> list[Decision]:
        """Decide many requests; each as `route` would."""
        return [self.route(prompt) for prompt in prompts]

    def _prepared(self, artifact: Artifact) -> Served:
        if self._rules_file is None:
            return Served(artifact, artifact.rules)
        return Served(artifact, load_rules(self._rules_file, artifact.predictor.tiers))

    def _decide(self, served: Served, raw: Any, request: Request, started: float) -> Decision:
        prompt = Prompt.of(raw, request.tools)
        seen = self._recall(served, request)
        choice = served.choose(raw, prompt, request, seen)
        tier = served.tiers[choice.tier]
        names = [tier.name for tier in served.tiers]
        decision = Decision(
            tier=tier.name,
            model=tier.model,
            p_suffices=dict(zip(names, choice.p, strict=False)),
            expected_cost_usd=dict(zip(names, choice.usd, strict=False)),
            reason=choice.reason,
            propensity=1.0,
            router_version=served.artifact.version,
            prompt_hash=self._hash(prompt.text),
            latency_us=(perf_counter() - started) * 1e6,
        )
        if request.session is not None and served.rules is not None:
            tokens = choice.tokens[choice.tier] if choice.tokens else 0.0
            life = served.rules.session_seconds
            if life:
                self._sessions.note(
                    request.tenant, request.session, choice.tier, tokens, True, life
                )
        return decision

    def _recall(self, served: Served, request: Request) -> Seen | None:
        """The session's last turn, as far as rules still count it."""
        if request.session is None or served.rules is None or not served.rules.follows_sessions:
            return None
        seen = self._sessions.last(request.tenant, request.session)
        return None if seen is None else served.rules.still(seen, monotonic(), len(served.tiers))

    def _stand_in(self, served: Served, request: Request, reason: str, started: float) -> Decision:
        """The top tier, or the highest that the request is not denied."""
        top = len(served.tiers) - 1
        if served.rules is not None:
            try:
                top = served.rules.top(request)
            except Exception:  # tags or a tenant of a type that cannot be looked up
                top = len(served.tiers) - 1
        tier = served.tiers[top]
        return Decision(
            tier=tier.name,
            model=tier.model,
            p_suffices={},
            expected_cost_usd={},
            reason=reason,
            propensity=1.0,
            router_version=served.artifact.version,
            prompt_hash=None,
            latency_us=(perf_counter() - started) * 1e6,
        )

    def _hash(self, text: str) -> str | None:
        if self._key is None:
            return None
        return hmac.digest(self._key, text.encode("utf-8"), "sha256").hex()[:32]
