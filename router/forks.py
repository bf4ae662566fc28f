"""Renewing locks and threads after a fork, which copies locks even while held, and no threads."""

import logging
import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Something with locks or threads."""

    def renew(self) -> None:
        """Called in the child, right after the fork."""
        ...


_THINGS: WeakSet[Renewable] = WeakSet()
_logger = logging.getLogger("suffice")


def renew_after_fork(thing: Renewable) -> None:
    """Call ``thing.renew()`` in every child that this process forks, as long as it lives."""
    _THINGS.add(thing)


def _renew() -> None:
    for thing in list(_THINGS):
        try:
            thing.renew()
        except Exception as error:  # no thread is left for a watcher; a log still needs its lock
            _logger.warning("suffice: after a fork: %s: %s", type(thing).__name__, error)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew)
