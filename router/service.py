"""The router that a service embeds."""

import hmac
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, TypedDict, Unpack

from router.artifact import Artifact, load_artifact
from router.decision import Decision
from router.explore import Exploration
from router.log import DecisionLog, Sink
from router.prompt import Messages, Prompt
from router.request import Request
from router.rules_file import load_rules
from router.served import Served
from router.sessions import Seen, Sessions


class Options(TypedDict, total=False):
    """What `Router.load` takes beside the artifact; `Router` describes each."""

    rules: str | os.PathLike[str] | None
    explore: float | Exploration
    log: str | os.PathLike[str] | Sink | DecisionLog | None


class Router:
    """Picks a tier per prompt, in-process; safe to share between threads and after a fork.

    >>> router = Router.load("artifacts/current")
    >>> router.route("What is the capital of France?").tier
    """

    __slots__ = ("_explore", "_key", "_log", "_rules_file", "_served", "_sessions")

    def __init__(
        self,
        artifact: Artifact,
        key: bytes | None = None,
        *,
        rules: str | os.PathLike[str] | None = None,
        explore: float | Exploration = 0.0,
        log: str | os.PathLike[str] | Sink | DecisionLog | None = None,
    ) -> None:
        """Serve a loaded artifact.

        Args:
            artifact: what decides.
            key: makes prompt hashes; None: decisions carry none.
            rules: a TOML file of rules (see `router.rules`), in place of the artifact's own.
            explore: share of requests that try a dearer tier, where rules leave one.
            log: where decisions are logged: a path, a callable of a dict, or a `DecisionLog`.

        Raises:
            RulesError: the file is not one of rules for these tiers.
            ValueError: `explore` is not a share.
        """
        self._key = key
        self._explore = explore if isinstance(explore, Exploration) else Exploration(explore)
        self._log = _log(log)
        self._rules_file = None if rules is None else Path(rules)
        self._sessions = Sessions()
        self._served = self._prepared(artifact)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Unpack[Options]) -> "Router":
        """Check every byte of an artifact folder and build the router.

        The key of prompt hashes is the environment's SUFFICE_KEY, if it is set.

        Args:
            path: the artifact folder.
            options: `rules`, `explore` and `log`, see `Router`.

        Raises:
            ArtifactError: the folder is not a whole, known and valid artifact; nothing was built.
            RulesError: the file `rules` is not one of rules for the artifact's tiers.
        """
        key = os.environ.get("SUFFICE_KEY")
        return cls(load_artifact(Path(path)), os.fsencode(key) if key else None, **options)

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
            decision = self._decide(served, prompt, request, started)
        except Exception as error:  # whatever it is, the service must go on
            reason = f"fallback:{type(error).__name__}"
            decision = self._stand_in(served, request, reason, started)
        if self._log is not None:
            self._log.offer(decision, prompt, request)
        return decision

    def route_batch(self, prompts: Sequence[str | Messages]) -> list[Decision]:
        """Decide many requests; each as `route` would."""
        return [self.route(prompt) for prompt in prompts]

    @property
    def log(self) -> DecisionLog | None:
        """Where decisions are logged; its `counts` say what was dropped."""
        return self._log

    def _prepared(self, artifact: Artifact) -> Served:
        if self._rules_file is None:
            return Served(artifact, artifact.rules)
        return Served(artifact, load_rules(self._rules_file, artifact.predictor.tiers))

    def _decide(self, served: Served, raw: Any, request: Request, started: float) -> Decision:
        prompt = Prompt.of(raw, request.tools)
        seen = self._recall(served, request)
        choice = served.choose(raw, prompt, request, seen)
        index, propensity = self._explore.try_another(choice.tier, choice.allowed)
        tier, explored = served.tiers[index], index != choice.tier
        names = [tier.name for tier in served.tiers]
        decision = Decision(
            tier=tier.name,
            model=tier.model,
            p_suffices=dict(zip(names, choice.p, strict=False)),
            expected_cost_usd=dict(zip(names, choice.usd, strict=False)),
            reason="explore" if explored else choice.reason,
            propensity=propensity,
            router_version=served.artifact.version,
            prompt_hash=self._hash(prompt.text),
            latency_us=(perf_counter() - started) * 1e6,
        )
        if request.session is not None and served.rules is not None:
            tokens = choice.tokens[index] if choice.tokens else 0.0
            life = served.rules.session_seconds
            if life:
                self._sessions.note(
                    request.tenant, request.session, index, tokens, not explored, life
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


def _log(log: Any) -> DecisionLog | None:
    return log if log is None or isinstance(log, DecisionLog) else DecisionLog(log)
