"""The last turn of each session, in bounded memory."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from threading import RLock
from typing import Final

from router.forks import renew_after_fork

LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Seen:
    """A session as its last turn left it.

    Attributes:
        tiers: names of the tiers that there were, cheapest first.
        floor: index of the highest tier that the policy or a rule chose in it; what exploration
            tried in its place is left out, so that no floor depends on a draw.
        tier: index of the tier that its last turn went to.
        tokens: input tokens of that turn on that tier; 0 where nobody counted.
        at: when, in seconds of the monotonic clock, which never jumps back.
    """

    tiers: tuple[str, ...]
    floor: int
    tier: int
    tokens: float
    at: float

    def among(self, tiers: tuple[str, ...]) -> "Seen":
        """The same turn by the tiers of another artifact, matched by name.

        A floor that is not among them becomes the next tier above it, or else the top tier.
        """
        if tiers == self.tiers:
            return self
        above = [tiers.index(name) for name in self.tiers[self.floor :] if name in tiers]
        floor = min(above, default=len(tiers) - 1) if self.floor else 0
        name = self.tiers[self.tier]
        if name not in tiers:
            return Seen(tiers, floor, floor, 0.0, self.at)
        return Seen(tiers, floor, tiers.index(name), self.tokens, self.at)


class Sessions:
    """The most recently active sessions of this process, at most `limit` of them.

    Only a hash of the session's name is kept. Processes do not share it: where several serve, a
    session that moves between them is followed in each by itself.
    """

    __slots__ = ("__weakref__", "_limit", "_lock", "_seen")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self._lock = RLock()
        renew_after_fork(self)

    def __len__(self) -> int:
        return len(self._seen)

    def last(self, tenant: str | None, session: str) -> Seen | None:
        """The session's last turn, None for a new one."""
        return self._seen.get(hash((tenant, session)))

    def note(self, tenant: str | None, session: str, turn: Seen, life: float) -> None:
        """Keep a turn.

        Args:
            tenant, session: whose turn.
            turn: its floor is the tier chosen for this turn alone; an earlier floor is kept here.
            life: seconds without a turn after which a floor is forgotten.
        """
        key = hash((tenant, session))
        with self._lock:
            old = self._seen.get(key)
            if old is not None and turn.at - old.at <= life:
                turn = replace(turn, floor=max(turn.floor, old.among(turn.tiers).floor))
            self._seen[key] = turn
            self._seen.move_to_end(key)
            if len(self._seen) > self._limit:
                self._seen.popitem(last=False)

    def renew(self) -> None:
        """In a forked child: a lock that no thread of the parent holds.

        Re-entrant, as a signal's handler may ask the router in the middle of a turn.
        """
        self._lock = RLock()
