"""Suggestions for names that are not known."""

from collections.abc import Collection
from difflib import get_close_matches


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of a message that suggests the known name most like `name`; empty if none is."""
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def hint(name: str, known: Collection[str]) -> str:
    """As `did_you_mean`, but with a list of all known names if none is like `name`."""
    return did_you_mean(name, known) or f"; known: {', '.join(known)}"
