"""Implicit signals: what a user did after an answer says whether it sufficed.

The rules, for an answer A (a call that did not fail) and a later request B of the log:

* **escalation** (0): in the same session, within the window, the user sends the prompt of A again
  (the same user turns, or A's with its last one once more; equal after NFKC, case and white space,
  or a near-duplicate with the same numbers) and a higher tier answers; or B is a complaint about A
  and a higher tier answers.
* **retry** (0): the same, with equal text, by the same user outside of the session, where the log
  tells that A was answered before (requests of a batch are all sent at once).
* **complaint** (0): the turn after A complains, and no higher tier answers.
* **thanked** (1): the turn after A begins with thanks.
* **abandoned** (1): nobody of the session asks anything after A, and the log goes on for longer
  than the window. Leaving may be good or bad (Li, Huffman and Tokuda 2009, "Good abandonment"), so
  its weight is 0 unless graded answers or the configuration say otherwise.
* **went_on** (1): the session's next request, within the window, asks something else. The same.

No signal: the same prompt on the same or a lower tier (a re-roll); a call that failed and what
followed it, a gateway's fallback included; a request sent before A was answered (shadow calls) or
with A's request id; steps of a tool chain; short turns that conversations repeat ("go on"); rows
without a time, and without a session and a user. A request looks back over at most 20 others.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.label.moods import COMPLAINT, THANKS
from training.label.turns import NEVER, NONE, Turns
from training.log.requests import SIGNALS

REACH = 20  # requests of a session or user between A and B
LEAST_CHARS = 20  # of a turn that, said twice in one conversation, is the same question again
NEAR = 0.8  # Jaccard similarity of 5-character shingles
_SHINGLE = 5
_SECOND = 1_000_000

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Candidates for A and B: positions in the log."""

    a: Rows
    b: Rows

    def where(self, kept: Bools) -> "Pairs":
        return Pairs(self.a[kept], self.b[kept])


def find_signals(
    turns: Turns,
    above: NDArray[np.bool_],
    minutes: float,
    last_turns: Callable[[Rows], dict[int, str]],
) -> dict[str, NDArray[np.float64]]:
    """Each signal's scores, float64[n], NaN where it says nothing.

    Args:
        turns: the rows of a log.
        above: bool[m, m] of `Ladder`.
        minutes: the window between A's answer and B.
        last_turns: fetches the last user turns of some rows, as compared.
    """
    found = {name: np.full(len(turns), np.nan) for name in SIGNALS}
    window = int(minutes * 60 * _SECOND)
    rescued = _rescued(turns)

    def higher(pairs: Pairs) -> Bools:
        return above[turns.who[pairs.a], turns.who[pairs.b]] & ~rescued[pairs.b]

    near: list[Pairs] = []
    spoken = np.zeros(len(turns), dtype=bool)  # B whose mood has found its A
    for reach, pairs in _pairs(turns, turns.session, window):
        up = pairs.where(higher(pairs))
        same = _same_prompt(turns, up)
        found["escalation"][up.a[same]] = 0.0
        near.append(up.where(~same & _may_be_near(turns, up)))
        told = pairs.where(_follows(turns, pairs, reach) & ~spoken[pairs.b])
        spoken[told.b] = True
        complains = turns.mood[told.b] == COMPLAINT
        found["escalation"][told.a[complains & higher(told)]] = 0.0
        found["complaint"][told.a[complains & ~higher(told)]] = 0.0
        found["thanked"][told.a[turns.mood[told.b] == THANKS]] = 1.0
        if reach == 1:
            other = ~_same_prompt(turns, pairs) & ~_may_be_near(turns, pairs)
            other &= turns.asks[pairs.a] & (turns.mood[pairs.a] != THANKS)
            went_on = pairs.a[other & (turns.mood[pairs.b] == 0)]
    for _, pairs in _pairs(turns, turns.user, window):
        one = (turns.session[pairs.a] == turns.session[pairs.b]) & (turns.session[pairs.a] != NONE)
        up = pairs.where(~one & turns.timed[pairs.a] & higher(pairs))
        found["retry"][up.a[_same_prompt(turns, up)]] = 0.0
    for pair in _near_duplicates(near, last_turns):
        found["escalation"][pair.a] = 0.0
    questioned = ~np.isnan(np.array(list(found.values()))).all(axis=0)
    found["went_on"][went_on[~questioned[went_on]]] = 1.0
    found["abandoned"][_last_of_sessions(turns, window)] = 1.0
    return found


def _pairs(turns: Turns, group: NDArray[np.uint64], window: int) -> Iterator[tuple[int, Pairs]]:
    """Pairs of one group with B asked after A was answered, nearest first; with their distance."""
    rows = np.flatnonzero(turns.ok & (group != NONE) & (turns.asked != NEVER))
    rows = rows[np.lexsort((rows, turns.asked[rows], group[rows]))]
    for reach in range(1, REACH + 1):
        a, b = rows[:-reach], rows[reach:]
        wait = turns.asked[b] - turns.answered[a]
        coarse = (turns.asked[a] % _SECOND == 0) & (turns.asked[b] % _SECOND == 0)
        after = wait >= np.where(coarse, -_SECOND, 0)  # logs that keep whole seconds
        kept = (group[a] == group[b]) & after & (wait <= window)
        kept &= turns.asks[b] & (turns.request[a] != turns.request[b])
        users = turns.user[a], turns.user[b]
        kept &= (users[0] == users[1]) | (users[0] == NONE) | (users[1] == NONE)
        yield reach, Pairs(a, b).where(kept)


def _same_prompt(turns: Turns, pairs: Pairs) -> Bools:
    """B's user turns are A's, or A's and the last of them once more."""
    a, b = pairs.a, pairs.b
    again = (turns.before[b] == turns.whole[a]) & (turns.last[a] == turns.last[b])
    again &= (turns.count[b] == turns.count[a] + 1) & (turns.chars[b] >= LEAST_CHARS)
    return (turns.whole[a] == turns.whole[b]) | again


def _may_be_near(turns: Turns, pairs: Pairs) -> Bools:
    """B's last turn may be a near-duplicate of A's: same place, same numbers, similar length."""
    a, b = pairs.a, pairs.b
    place = (turns.before[a] == turns.before[b]) & (turns.count[a] == turns.count[b])
    place |= (turns.before[b] == turns.whole[a]) & (turns.count[b] == turns.count[a] + 1)
    short, long = np.sort([turns.chars[a], turns.chars[b]], axis=0)
    return (
        place
        & (turns.last[a] != turns.last[b])
        & (turns.numbers[a] == turns.numbers[b])
        & (short >= LEAST_CHARS)
        & (short >= NEAR * long)
    )


def _follows(turns: Turns, pairs: Pairs, reach: int) -> Bools:
    """B is the turn after A: it holds A's turns before its own, or, alone, comes right after."""
    a, b = pairs.a, pairs.b
    holds = (turns.before[b] == turns.whole[a]) & (turns.count[b] == turns.count[a] + 1)
    alone = (turns.count[b] == 1) & (reach == 1)
    return (turns.mood[b] != 0) & (holds | alone)


def _rescued(turns: Turns) -> Bools:
    """Calls that a gateway made because the one before failed on another model, same prompt."""
    group = np.where(turns.session != NONE, turns.session, turns.user)
    rows = np.flatnonzero(group != NONE)
    rows = rows[np.lexsort((rows, turns.asked[rows], group[rows]))]
    here, before = rows[1:], rows[:-1]
    again = (group[here] == group[before]) & (turns.whole[here] == turns.whole[before])
    run = np.append(False, ~turns.ok[before] & again)[: len(rows)]  # goes on after a failure
    start = np.maximum.accumulate(np.where(run, 0, np.arange(len(rows))))
    rescued = np.zeros(len(turns), dtype=bool)
    rescued[rows] = run & (turns.who[rows[start]] != turns.who[rows])
    return rescued


def _near_duplicates(
    near: list[Pairs], last_turns: Callable[[Rows], dict[int, str]]
) -> Iterator[Pairs]:
    """The candidates whose texts are near-duplicates."""
    wanted = np.unique(
        np.concatenate([np.zeros(0, np.int64), *(p.a for p in near), *(p.b for p in near)])
    )
    if not len(wanted):
        return
    texts = last_turns(wanted)
    for pairs in near:
        alike = [
            similarity(texts[a], texts[b]) >= NEAR for a, b in zip(pairs.a, pairs.b, strict=True)
        ]
        yield pairs.where(np.array(alike, dtype=bool))


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the 5-character shingles of two texts."""
    first, second = _shingles(one), _shingles(other)
    return len(first & second) / max(len(first | second), 1)


def _shingles(text: str) -> set[str]:
    return {text[i : i + _SHINGLE] for i in range(max(len(text) - _SHINGLE + 1, 1))}


def _last_of_sessions(turns: Turns, window: int) -> Rows:
    """The last request of each session, if it was answered and the log goes on after it."""
    rows = np.flatnonzero((turns.session != NONE) & (turns.asked != NEVER))
    rows = rows[np.lexsort((rows, turns.asked[rows], turns.session[rows]))]
    session = turns.session[rows]
    last = rows[np.append(session[1:] != session[:-1], True)[: len(rows)]]
    end = turns.asked[rows].max(initial=NEVER)
    asked = turns.ok[last] & turns.asks[last] & (turns.mood[last] != THANKS)
    return last[asked & (turns.answered[last] + window < end)]
