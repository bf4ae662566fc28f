"""The decision log: a JSON line per decision, written beside the request, never in its way."""

import atexit
import json
import logging
import sys
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from inspect import iscoroutine, iscoroutinefunction
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Any, Final

from router.decision import Decision
from router.forks import renew_after_fork
from router.lines import LineFile
from router.prompt import as_mapping
from router.request import Request, without_bytes

CAPACITY: Final = 10_000  # lines that may wait
MAX_WAITING: Final = 64 * 2**20  # characters of requests that may wait
MAX_MESSAGES: Final = 2**20  # characters, bytes of images left out; longer ones are not logged
_DRAIN_SECONDS: Final = 5.0  # at exit
_GATHER_SECONDS: Final = 0.25  # to gather lines for, since each run of the thread delays requests

_FIELDS: Final = tuple(name for name in Decision.__dataclass_fields__ if name != "id")

Sink = Callable[[dict[str, Any]], Any]
_logger = logging.getLogger("suffice")


@dataclass(frozen=True, slots=True)
class LogCounts:
    """What became of the decisions: ``offered == written + dropped + failed + waiting``.

    Attributes:
        offered: decisions made.
        written: lines that the sink took.
        dropped: decisions that found the queue full (of lines, or of characters of requests).
        failed: lines that the sink refused (a full disk, an exception).
        waiting: lines still to be written.
    """

    offered: int
    written: int
    dropped: int
    failed: int
    waiting: int


class DecisionLog:
    """Takes decisions without blocking; a thread of its own writes them.

    >>> log = DecisionLog("decisions.jsonl")
    >>> router = Router.load("artifacts/current", log=log)
    """

    __slots__ = (
        "__weakref__",
        "_capacity",
        "_changed",
        "_counts",
        "_held",
        "_hurry",
        "_messages",
        "_running",
        "_sink",
        "_version",
        "_waiting",
        "_warned_at",
        "_writing",
    )

    def __init__(
        self, sink: "str | Path | Sink", *, messages: bool = False, capacity: int = CAPACITY
    ) -> None:
        """Log to a file (it rotates, see `router.lines`) or to any callable of a dict.

        Args:
            sink: a path, or what is called with each line's values, in the log's thread.
            messages: whether the request's messages, session, tenant and tags are logged, too.
                They are users' words: without it a line holds none.
            capacity: lines that may wait; decisions beyond are dropped and counted.

        Raises:
            TypeError: the sink is a coroutine function, which the log's thread cannot await.
        """
        if iscoroutinefunction(sink):
            raise TypeError("log: a sink is called in the log's thread; give one without async")
        self._sink: Sink = sink if callable(sink) else LineFile(Path(sink)).write
        self._messages = messages
        self._capacity = capacity
        self._warned_at = -1e9
        try:
            self._version: str | None = version("suffice")
        except PackageNotFoundError:  # imported from a checkout
            self._version = None
        self.renew()
        renew_after_fork(self)
        atexit.register(_close, weakref.ref(self))

    def renew(self) -> None:
        """In a forked child: begin with an empty queue, as the parent writes what waits in its."""
        self._changed = Condition()
        self._waiting: deque[tuple[Callable[[], dict[str, Any]], int]] = deque()
        self._held = 0  # characters of requests among them
        self._counts = {"offered": 0, "written": 0, "dropped": 0, "failed": 0}
        self._writing = self._hurry = self._running = False

    @property
    def counts(self) -> LogCounts:
        """What became of the decisions so far."""
        with self._changed:
            return LogCounts(**self._counts, waiting=len(self._waiting) + self._writing)

    def offer(
        self,
        decision: Decision,
        raw: Any,
        request: Request,
        more: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Take one decision; returns at once and never raises.

        Args:
            decision: the decision.
            raw: the prompt as the caller gave it; kept only with `messages`, as of now.
            request: what else the caller said.
            more: further values of the line; called in the log's thread.
        """
        content = self._content(raw, request) if self._messages else {}
        size = _chars(content, request) if content or more is not None else 0

        def line() -> dict[str, Any]:
            return self._line(decision, content) | dict(more() if more is not None else {})

        with self._changed:
            self._counts["offered"] += 1
            if len(self._waiting) >= self._capacity or self._held + size > MAX_WAITING:
                self._counts["dropped"] += 1
                return
            self._waiting.append((line, size))
            self._held += size
            if not self._running:
                self._start()
            if len(self._waiting) == 1:
                self._changed.notify_all()

    def flush(self, timeout: float = _DRAIN_SECONDS) -> bool:
        """Wait until nothing waits; False where that took longer than `timeout` seconds."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._waiting and not self._writing, timeout)
            self._hurry = False
            return done

    def _start(self) -> None:
        self._running = True  # before: a signal's handler may offer a decision in the middle
        try:
            Thread(
                target=_write, args=(weakref.ref(self),), name="suffice-log", daemon=True
            ).start()
        except RuntimeError:  # no more threads, or the interpreter is ending: the next tries again
            self._running = False
            return
        if (util := sys.modules.get("multiprocessing.util")) is not None:
            # A child of multiprocessing ends without atexit; this does no harm in any other.
            util.Finalize(None, _close, (weakref.ref(self),), exitpriority=0)

    def _line(self, decision: Decision, content: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "decision_id": decision.id,
            **{name: getattr(decision, name) for name in _FIELDS},
            "suffice": self._version,
            **content,
        }

    def _content(self, raw: Any, request: Request) -> dict[str, Any]:
        """The request's messages (as text, since the caller may change them), session and tags."""
        try:
            messages = _as_text(raw)
        except Exception:  # messages that contain themselves
            messages = None
        return {
            "messages": messages,
            "session_id": request.session,
            "tenant": request.tenant,
            "tags": list(request.tags),
        }

    def _next(self) -> Callable[[], dict[str, Any]] | None:
        """The next line, after a wait for it; None after a second without one."""
        with self._changed:
            idle = not self._waiting
            self._changed.wait_for(lambda: self._waiting, 1.0)
            if idle and self._waiting:  # more requests may follow the one that woke this thread
                self._changed.wait_for(lambda: self._hurry, _GATHER_SECONDS)
            if not self._waiting:
                return None
            self._writing = True
            line, size = self._waiting.popleft()
            self._held -= size
            return line

    def _take(self, line: Callable[[], dict[str, Any]]) -> None:
        outcome = "written"
        try:
            taken = self._sink(line())
            if iscoroutine(taken):  # the constructor cannot tell that of a lambda or an object
                taken.close()
                raise TypeError("the sink has to be awaited, and nobody does")
        except BaseException as error:  # a full disk, a sink that fails or exits: the log goes on
            outcome = "failed"
            with suppress(Exception):  # the error's own text, a handler of the service's logging
                self._warn(error)
        with self._changed:
            self._counts[outcome] += 1
            self._writing = False
            self._changed.notify_all()

    def _warn(self, error: BaseException) -> None:
        """Warn that lines are lost, at most once a minute."""
        if monotonic() - self._warned_at > 60:
            self._warned_at = monotonic()
            why = f"{type(error).__name__}: {error}"  # the text of some errors is empty
            _logger.warning("suffice: decisions cannot be logged: %s", why)


def _as_text(raw: Any) -> str | None:
    """Messages as JSON text without bytes of images; None where that is too long."""
    given = [{"role": "user", "content": raw}] if isinstance(raw, str) else raw
    messages, chars = [], 0
    for message in map(as_mapping, given):
        content = message.get("content")
        if isinstance(content, str):
            chars += len(content)
            if chars > MAX_MESSAGES:  # known before the whole is written out
                return None
        elif content is not None:
            message = {**message, "content": without_bytes(content)}
        messages.append(message)
    text = json.dumps(messages, default=str)
    return text if len(text) <= MAX_MESSAGES else None


def _chars(content: Mapping[str, Any], request: Request) -> int:
    """Characters that a waiting line keeps in memory: its messages, and who asked."""
    texts = (content.get("messages"), request.session, request.tenant, *request.tags)
    return sum(len(text) for text in texts if text)


def _write(reference: "weakref.ref[DecisionLog]") -> None:
    """The log's thread; it ends with the log."""
    while (log := reference()) is not None:
        line = log._next()
        if line is not None:
            log._take(line)
        del log, line


def _close(reference: "weakref.ref[DecisionLog]") -> None:
    log = reference()
    if log is not None:
        log.flush()
