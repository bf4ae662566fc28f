"""Figures as text, the same wherever people read them: terminal, card, page."""

from collections.abc import Callable
from math import isfinite
from typing import Final

from training.measure.intervals import Interval

NONE = "–"
_THIN = "\u202f"  # a narrow space that does not break


def dollars(value: float) -> str:
    """USD with about three digits: $0.0612, $1.02, $48.3, $12,340."""
    if not isfinite(value):
        return NONE
    size, sign = abs(value), "−" if value < 0 else ""
    if size >= 1000:
        return f"{sign}${size:,.0f}"
    if size >= 1:
        return f"{sign}${size:.2f}" if size < 100 else f"{sign}${size:.1f}"
    return f"{sign}${size:#.3g}" if size else "$0"


def signed(value: float) -> str:
    """A difference in USD, as `dollars` but with its sign: +$0.120."""
    return f"+{dollars(value)}" if value > 0 else dollars(value)


def change(before: float, after: float) -> str:
    """How a cost in USD changes: 33 % less ($1.24 → $0.835); one sum where it does not."""
    if before == after:
        return dollars(after)
    return f"{rise(before, after)} ({dollars(before)} → {dollars(after)})"


def rise(before: float, after: float) -> str:
    """How much more or less, as a share of what it was: 33 % less."""
    which = "more" if after > before else "less"
    share = abs(after / before - 1) if before > 0 else float("inf")
    if not isfinite(share):
        return which
    return f"{percent(share, 0 if 0.01 <= share <= 0.99 else 1)} {which}"


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * value:.{digits}f}{_THIN}%" if isfinite(value) else NONE


def times(value: float) -> str:
    """A ratio: 1.98×."""
    if value == float("inf"):
        return "∞"
    if not isfinite(value):
        return NONE
    return f"{value:.2f}×" if value < 100 else f"{value:,.0f}×"


def plain(value: float, digits: int = 3) -> str:
    """A figure without a unit."""
    return f"{value:.{digits}f}" if isfinite(value) else NONE


FORMS: Final[dict[str, Callable[[float], str]]] = {
    "percent": percent,
    "dollars": dollars,
    "times": times,
    "plain": plain,
}


def limits(found: Interval, form: str) -> str:
    """The 95 % limits, "a to b", in the form that the figure has; empty without any."""
    write = FORMS[form]
    low, high = write(found.low), write(found.high)
    if NONE in (low, high) or low == high:
        return ""  # unknown, or fixed by construction
    return f"{low.removesuffix(f'{_THIN}%')} to {high}"


def count(value: float, noun: str) -> str:
    """A whole number and its noun, which takes an s."""
    return f"{value:,.0f} {noun}{'' if value == 1 else 's'}"
