"""Following an artifact folder: load what is new, refuse what is bad, keep what is served."""

import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import TIMEOUT_MAX, Event, Thread
from time import sleep
from typing import Any, Final, Protocol

from router.artifact import ALL_FILES, Artifact, ArtifactError, load_artifact
from router.forks import renew_after_fork

_TRIES: Final = 4
_INSTANT: Final = 0.05  # seconds that a folder may be away between two renames
_logger = logging.getLogger("suffice")

Mark = tuple[Any, ...]


class Swappable(Protocol):
    """What the watcher asks of a router."""

    def swap(self, artifact: Artifact) -> bool:
        """Serve another artifact; False where it is the one being served."""
        ...


def mark(path: Path, rules: Path | None = None) -> Mark | None:
    """A value that changes with an artifact or its rules file; None where there is no manifest."""
    sealed = path / "manifest.sha256"
    try:
        if not sealed.is_file():  # reading a pipe would wait for ever
            return None
        with sealed.open("rb") as stream:
            stated = stream.read(200)  # however large it is
    except OSError:
        return None
    files = [path / name for name in ("manifest.json", *ALL_FILES)] + ([rules] if rules else [])
    return stated, *map(_stamp, files)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def load_settled(path: Path) -> Artifact:
    """Load an artifact, again where its folder was replaced in the middle of it.

    Raises:
        ArtifactError: what is there now is not a whole, known and valid artifact.
    """
    for _ in range(_TRIES - 1):
        before = mark(path)
        try:
            return load_artifact(path)
        except ArtifactError:
            if before is None and path.parent.is_dir():
                sleep(_INSTANT)
            if mark(path) == before:
                raise
    return load_artifact(path)


class Watcher:
    """Looks at a folder every few seconds in a thread of its own, as long as the router lives.

    Attributes:
        swapped: artifacts, or new rules of one, put in place; here and below, those of a watcher
            before this one count, too.
        refused: artifacts, or rules files, that were there and bad; what was before stayed.
        refusal: why the last one was refused, None after a good one.
    """

    __slots__ = (
        "__weakref__",
        "_absent",
        "_find",
        "_mark",
        "_router",
        "_rules",
        "_seconds",
        "_stop",
        "refusal",
        "refused",
        "swapped",
    )

    def __init__(
        self, router: Swappable, find: Callable[[], Path], rules: Path | None, seconds: float
    ) -> None:
        """Watch for a router.

        Args:
            router: whom to give new artifacts.
            find: where the artifact is now.
            rules: the router's rules file, watched with it.
            seconds: between two looks.

        Raises:
            ValueError: seconds is not a number above 0, or more than a thread can wait.
        """
        if not (isinstance(seconds, int | float) and 0 < seconds <= TIMEOUT_MAX):
            raise ValueError(f"watch: seconds must be a number above 0, got {seconds!r}")
        self._router = weakref.ref(router)
        self._find, self._rules, self._seconds = find, rules, seconds
        self._mark: Mark | None = None
        self._absent = 0  # looks in a row that found no artifact
        self.swapped = self.refused = 0
        self.refusal: str | None = None
        self._start()
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked child: go on there, unless it was stopped before."""
        if not self._stop.is_set():
            self._start()

    def _start(self) -> None:
        self._stop = Event()
        watcher = weakref.ref(self)
        Thread(
            target=_follow,
            args=(watcher, self._stop, self._seconds),
            name="suffice-watch",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def look(self) -> None:
        """Look once; whatever is found there, nothing is raised."""
        try:
            self._look()
        except Exception as error:  # a registry, a file system, a rules file: any of them
            with suppress(Exception):  # the error's own text, a handler of the service's logging
                self._refuse(error)

    def _look(self) -> None:
        try:
            path = self._find()
        except Exception:
            self._mark = None  # so that finding the same artifact again ends the refusal
            raise
        found = mark(path, self._rules)
        self._absent = self._absent + 1 if found is None else 0
        if self._absent == 2:  # once may be between two renames
            self._mark = None  # as above
            if path.is_dir() and any(path.iterdir()):
                raise ArtifactError(f"{path}: half an artifact: no manifest.sha256 can be read")
            _logger.warning("suffice: %s: there is no artifact; the one before stays", path)
        if found is None or found == self._mark:
            return
        router = self._router()
        if router is None:
            return
        try:
            if router.swap(load_settled(path)):
                self.swapped += 1
            self.refusal = None
        except Exception as error:
            if mark(path, self._rules) != found:
                return  # half-written
            if _may_pass(error):
                self._mark = None  # as above
            else:
                self._mark = found  # it is bad: refuse it once
                self.refusal = None  # what was refused before was another artifact
            raise
        self._mark = found

    def _refuse(self, error: Exception) -> None:
        if str(error) == self.refusal:  # a registry shows the same bad one at every look
            return
        self.refused += 1
        self.refusal = str(error)
        _logger.warning("suffice: refused, the artifact and the rules before stay: %s", error)


def _may_pass(error: Exception) -> bool:
    """Whether a file is there and cannot be read; when it can be, it need not look changed."""
    cause = error.__cause__
    return isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)


def _follow(reference: "weakref.ref[Watcher]", stop: Event, seconds: float) -> None:
    while not stop.wait(seconds):
        watcher = reference()
        if watcher is None or watcher._router() is None:
            return
        watcher.look()
        del watcher
