"""The router that a service embeds."""

import hmac
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from inspect import iscoroutinefunction
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, TypedDict, Unpack

from router.artifact import Artifact
from router.decision import Decision
from router.explore import Exploration
from router.log import DecisionLog, Sink
from router.origin import Origin
from router.prompt import Messages, Prompt
from router.request import Request
from router.rules_file import load_rules
from router.served import Choice, Served
from router.sessions import Seen, Sessions
from router.switch import Switch
from router.watch import Watcher, load_settled


class Options(TypedDict, total=False):
    """What `Router.load` takes beside the artifact; `Router` describes each."""

    rules: str | os.PathLike[str] | None
    explore: float | Exploration
    log: str | os.PathLike[str] | Sink | DecisionLog | None
    shadow: "str | os.PathLike[str] | Router | None"


class Facts(TypedDict, total=False):
    """What `Router.route` takes beside the prompt and the tools."""

    max_tokens: int | None
    json_mode: bool
    session: str | None
    tenant: str | None
    tags: Collection[str]


class Router:
    """Picks a tier per prompt, in-process; safe to share between threads and after a fork.

    >>> router = Router.load("artifacts/current")
    >>> router.route("What is the capital of France?").tier
    """

    __slots__ = (
        "__weakref__",
        "_explore",
        "_key",
        "_log",
        "_observers",
        "_origin",
        "_rules_file",
        "_served",
        "_sessions",
        "_shadow",
        "_switch",
        "_watcher",
    )

    def __init__(
        self,
        artifact: Artifact,
        key: bytes | None = None,
        *,
        rules: str | os.PathLike[str] | None = None,
        explore: float | Exploration = 0.0,
        log: str | os.PathLike[str] | Sink | DecisionLog | None = None,
        shadow: "str | os.PathLike[str] | Router | None" = None,
    ) -> None:
        """Serve a loaded artifact.

        Args:
            artifact: what decides.
            key: makes prompt hashes; None: decisions carry none.
            rules: a TOML file of rules (see `router.rules`), in place of the artifact's own.
            explore: share of requests that try a dearer tier, where rules leave one.
            log: where decisions are logged: a path, a callable of a dict, or a `DecisionLog`.
            shadow: another router, or where its artifact is. It decides each request as well, in
                the log's thread; its decision is logged and has no other effect.

        Raises:
            ArtifactError: the shadow's artifact is refused.
            RulesError: the file is not one of rules for these tiers.
            TypeError: the key is not bytes.
            ValueError: `explore` is not a share, or there is a shadow and no log.
        """
        if shadow is not None and log is None:
            raise ValueError("a shadow is only logged: give a log, too")
        if not isinstance(key, bytes | None):  # hashing would fail, so every decision fall back
            raise TypeError(f"key: bytes are needed, got {type(key).__name__}")
        self._key = key
        self._explore = explore if isinstance(explore, Exploration) else Exploration(explore)
        self._log = _log(log)
        self._rules_file = None if rules is None else Path(rules).absolute()
        self._sessions = Sessions()
        self._switch = Switch()
        self._observers: tuple[Callable[[Decision], object], ...] = ()
        self._watcher: Watcher | None = None
        self._origin = Origin(str(artifact.path)).absolute()
        self._served = self._prepared(artifact)
        self._shadow = Router.load(shadow) if isinstance(shadow, str | os.PathLike) else shadow

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Unpack[Options]) -> "Router":
        """Check every byte of an artifact folder and build the router.

        The key of prompt hashes is the environment's SUFFICE_KEY, if it is set.

        Args:
            path: the artifact folder, or ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` of an
                MLflow registry (see `router.integrations.mlflow`).
            options: `rules`, `explore`, `log` and `shadow`, see `Router`.

        Raises:
            ArtifactError: the folder is not a whole, known and valid artifact; nothing was built.
            RulesError: the file `rules` is not one of rules for the artifact's tiers.
        """
        key = os.environ.get("SUFFICE_KEY")
        origin = Origin(os.fspath(path))
        router = cls(load_settled(origin.find()), os.fsencode(key) if key else None, **options)
        router._origin = origin.absolute()
        return router

    @property
    def artifact(self) -> Artifact:
        """The artifact being served."""
        return self._served.artifact

    @property
    def log(self) -> DecisionLog | None:
        """Where decisions are logged; its `counts` say what was dropped."""
        return self._log

    @property
    def watcher(self) -> Watcher | None:
        """What follows the artifact, after `watch`; it counts what was swapped and refused."""
        return self._watcher

    def watch(
        self, path: str | os.PathLike[str] | None = None, *, seconds: float | None = None
    ) -> "Router":
        """Follow an artifact: serve each new one once all of it is checked, refuse bad ones.

        Args:
            path: by default where this router was loaded from; a folder may be replaced by rename.
            seconds: between two looks, made by a thread of its own; by default 5 for a folder, 60
                for a registry.

        Returns:
            The router itself.

        Raises:
            ValueError: `seconds` is not a number above 0.
        """
        origin = self._origin if path is None else Origin(os.fspath(path)).absolute()
        pause = origin.pause if seconds is None else seconds
        watcher, before = Watcher(self, origin.find, self._rules_file, pause), self._watcher
        if before is not None:
            before.stop()
            watcher.swapped += before.swapped  # a counter of metrics never goes down
            watcher.refused += before.refused
        self._watcher = watcher
        return self

    def swap(self, artifact: Artifact) -> bool:
        """Serve another artifact from the next decision on; False if nothing is new in it.

        Raises:
            RulesError: the rules file does not fit its tiers; the artifact before it stays.
        """
        new = self._prepared(artifact)
        old = self._served
        if new.artifact.version == old.artifact.version and new.rules == old.rules:
            return False
        self._served = new  # one reference: a decision reads all of the old or all of the new
        return True

    def observe(self, callback: Callable[[Decision], object]) -> None:
        """Call back with every decision, in the request's thread; its exceptions are ignored.

        Raises:
            TypeError: the callback is a coroutine function, which nobody would await.
        """
        if iscoroutinefunction(callback):
            raise TypeError("observe: the callback is called at once; give one without async")
        self._observers = (*self._observers, callback)

    def close(self) -> None:
        """Stop watching and write what the log still holds; the router goes on deciding."""
        if self._watcher is not None:
            self._watcher.stop()
        if self._log is not None:
            self._log.flush()

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
            prompt: a text, or a list of chat messages (OpenAI's, Anthropic's, or items of the
                responses API); message objects that a client returned may be among them.
            tools: the tools offered with the request.
            max_tokens: the requested limit of output tokens; this and all below is for rules only.
            json_mode: whether the answer must be JSON.
            session: the conversation that this is a turn of.
            tenant: the customer or team on whose behalf the request is made.
            tags: names that pins and deny lists may refer to.
        """
        started = perf_counter()
        served = self._served
        request = Request(tools, max_tokens, json_mode, session, tenant, tags)
        read: Prompt | None = None
        try:
            if self._switch.off:
                decision = served.stand_in(request, "kill_switch", started)
            else:
                read = Prompt.of(prompt, tools)
                decision = self._decide(served, prompt, read, request, started)
        except Exception as error:  # whatever it is, the service must go on
            reason = f"fallback:{type(error).__name__}"
            decision = served.stand_in(request, reason, started)
        if self._log is not None:
            with suppress(Exception):  # no memory, or locks that gevent has patched too late
                more = self._shadow_values(prompt, read, request)
                self._log.offer(decision, prompt, request, more)
        for callback in self._observers:
            with suppress(Exception):
                callback(decision)
        return decision

    async def aroute(
        self,
        prompt: str | Messages,
        tools: Sequence[Any] | None = None,
        **facts: Unpack[Facts],
    ) -> Decision:
        """`route` for an event loop: in a thread if the artifact has a transformer, else at once.

        A static table decides within a millisecond, and handing over to a thread would take longer.
        """
        if self._served.quick:
            return self.route(prompt, tools, **facts)
        from asyncio import to_thread

        try:
            return await to_thread(self.route, prompt, tools, **facts)
        except RuntimeError:  # the loop's executor was shut down: the service is ending
            return self.route(prompt, tools, **facts)

    def route_batch(self, prompts: Sequence[str | Messages]) -> list[Decision]:
        """Decide many requests; each as `route` would.

        Raises:
            TypeError: `prompts` is one prompt or message, whose letters or keys would be decided.
        """
        if isinstance(prompts, str | bytes | Mapping):
            one = type(prompts).__name__
            raise TypeError(f"route_batch: a list of prompts is needed, got one {one}; see route")
        return [self.route(prompt) for prompt in prompts]

    def _prepared(self, artifact: Artifact) -> Served:
        if self._rules_file is None:
            return Served(artifact, artifact.rules)
        return Served(artifact, load_rules(self._rules_file, artifact.predictor.tiers))

    def _shadow_values(
        self, raw: Any, prompt: Prompt | None, request: Request
    ) -> Callable[[], Mapping[str, Any]] | None:
        """A function for the log's thread, which returns what the shadow adds to the log's line.

        None where there is no shadow, or the request cannot be read.
        """
        shadow = self._shadow
        if shadow is None or prompt is None:
            return None
        served, now = shadow._served, monotonic()
        try:
            # Now, so that the waiting line need not keep messages and tools in memory.
            unread = served.unread(raw, request)
            request = replace(request, tools=None)
        except Exception:
            return None
        asked = (unread, prompt, request, now)
        return lambda: {"shadow": shadow._decide_as_shadow(served, *asked)}

    def _decide_as_shadow(
        self, served: Served, unread: int, prompt: Prompt, request: Request, now: float
    ) -> dict[str, Any]:
        """A decision as values of the log, by this router's memory of sessions; never raises."""
        version = {"router_version": served.artifact.version}
        try:
            choice = served.choose(unread, prompt, request, self._recall(served, request, now))
            self._remember(served, request, choice, choice.tier, now)
        except Exception as error:
            return version | {"error": type(error).__name__}
        return version | served.log_values(choice)

    def _decide(
        self, served: Served, raw: Any, prompt: Prompt, request: Request, started: float
    ) -> Decision:
        seen = self._recall(served, request, monotonic())
        choice = served.choose(served.unread(raw, request), prompt, request, seen)
        index, propensity = self._explore.try_another(choice.tier, choice.allowed)
        tier, explored = served.tiers[index], index != choice.tier
        decision = Decision(
            tier=tier.name,
            model=tier.model,
            p_suffices=dict(zip(served.names, choice.p, strict=False)),
            expected_cost_usd=dict(zip(served.names, choice.usd, strict=False)),
            reason="explore" if explored else choice.reason,
            propensity=propensity,
            router_version=served.artifact.version,
            prompt_hash=self._hash(prompt.text),
            latency_us=(perf_counter() - started) * 1e6,
            stage=choice.stage,
        )
        self._remember(served, request, choice, index, monotonic())
        return decision

    def _recall(self, served: Served, request: Request, now: float) -> Seen | None:
        """The session's last turn, without what is too old for the rules; None if there is none."""
        if request.session is None or served.rules is None or not served.rules.follows_sessions:
            return None
        seen = self._sessions.last(request.tenant, request.session)
        return None if seen is None else served.rules.still(seen.among(served.names), now)

    def _remember(
        self, served: Served, request: Request, choice: Choice, index: int, now: float
    ) -> None:
        """Keep a turn that went to the tier `index`, where rules follow sessions."""
        rules = served.rules
        if request.session is None or rules is None or not rules.follows_sessions:
            return
        tokens = choice.tokens[index] if choice.tokens else 0.0
        turn = Seen(served.names, choice.tier, index, tokens, now)
        self._sessions.note(request.tenant, request.session, turn, rules.floor_seconds or 0.0)

    def _hash(self, text: str) -> str | None:
        if self._key is None:
            return None
        return hmac.digest(self._key, text.encode("utf-8"), "sha256").hex()[:32]


def _log(log: Any) -> DecisionLog | None:
    return log if log is None or isinstance(log, DecisionLog) else DecisionLog(log)
