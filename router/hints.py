"""What somebody may have meant by a name that is not known."""

from collections.abc import Collection
from difflib import get_close_matches


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The known name nearest to it, as the end of a message; empty where none is near."""
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def hint(name: str, known: Collection[str]) -> str:
    """The same, or all that is known where none is near."""
    return did_you_mean(name, known) or f"; known: {', '.join(known)}"
