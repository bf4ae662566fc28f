"""What the last turns of a session were, in bounded memory."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Final

from router.forks import renew_after_fork

LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as its last turn left it.

    Attributes:
        floor: index of the highest tier that the policy or a rule chose in it.
        tier: index of the tier that its last turn went to.
        tokens: input tokens of that turn on that tier; 0 where nobody counted.
        at: when, in seconds of the monotonic clock, which never jumps back.
    """

    floor: int
    tier: int
    tokens: float
    at: float


class Sessions:
    """The most recently active sessions of this process, at most `limit` of them.

    Only a hash of the session's name is kept. Processes do not share it: where several serve, a
    session that moves between them is followed in each by itself.
    """

    __slots__ = ("__weakref__", "_limit", "_lock", "_seen")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self._lock = Lock()
        renew_after_fork(self)

    def __len__(self) -> int:
        return len(self._seen)

    def last(self, tenant: str | None, session: str) -> Seen | None:
        """The session's last turn, None for a new one."""
        return self._seen.get(hash((tenant, session)))

    def note(
        self, tenant: str | None, session: str, tier: int, tokens: float, raises: bool, life: float
    ) -> None:
        """Keep a turn.

        Args:
            tenant, session: whose turn.
            tier: index of the tier that it went to.
            tokens: input tokens on that tier, 0 if not counted.
            raises: whether the tier counts for the floor (an explored one does not).
            life: seconds without a turn after which a session starts anew.
        """
        key, now = hash((tenant, session)), monotonic()
        with self._lock:
            old = self._seen.get(key)
            floor = old.floor if old is not None and now - old.at <= life else 0
            self._seen[key] = Seen(max(floor, tier) if raises else floor, tier, tokens, now)
            self._seen.move_to_end(key)
            if len(self._seen) > self._limit:
                self._seen.popitem(last=False)

    def renew(self) -> None:
        """In a forked child: a lock that no thread of the parent holds."""
        self._lock = Lock()
