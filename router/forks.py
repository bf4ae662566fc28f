"""After a fork: it copies locks as they are, even held ones, and no threads."""

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Something with locks or threads."""

    def renew(self) -> None:
        """Called in the child, right after the fork."""
        ...


_THINGS: WeakSet[Renewable] = WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Call ``thing.renew()`` in every child that this process forks, as long as it lives."""
    _THINGS.add(thing)


def _renew() -> None:
    for thing in list(_THINGS):
        thing.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew)
