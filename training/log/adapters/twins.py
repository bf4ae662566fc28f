"""Two libraries that tell of one call: a framework and the client that it uses, say."""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

RECENT: Final = 1000  # calls among which the other one is looked for


class Told(NamedTuple):
    """A call as one library tells it; `asked` is its last message, times are of one clock."""

    asked: str
    model: Any
    library: str
    started: int
    ended: int
    key: str


@dataclass(frozen=True, slots=True)
class Twins:
    """The last calls that were told of, in their order and by what was asked of which model."""

    recent: deque[Told] = field(default_factory=deque)
    alike: defaultdict[tuple[str, Any], deque[Told]] = field(
        default_factory=lambda: defaultdict(deque)
    )

    def inner(self, own: Told) -> Iterator[str]:
        """Keys of calls that another call holds: the same was asked, one during the other.

        Of the messages before the last, the two libraries tell differently.
        """
        for other in self.alike[own[:2]]:
            if other.library != own.library:
                inner, outer = sorted((own, other), key=lambda one: one.ended - one.started)
                if outer.started <= inner.started and inner.ended <= outer.ended:
                    yield inner.key
        self.recent.append(own)
        self.alike[own[:2]].append(own)
        if len(self.recent) > RECENT:
            oldest = self.recent.popleft()[:2]
            self.alike[oldest].popleft()
            if not self.alike[oldest]:
                del self.alike[oldest]
