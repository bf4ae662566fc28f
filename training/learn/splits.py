"""Fit, choose and test rows that share nothing: no session, no near-duplicate, no future.

Near-duplicates are prompts equal after normalising, then those whose Jaccard similarity on
5-character shingles to their group's first member is at least 0.9 (candidates by MinHash, Broder
1997, each then checked exactly).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from router.prompt import Prompt
from training.errors import BadInput
from training.log.imprint import Imprint, plain, shingles
from training.log.requests import Requests

JACCARD = 0.9
BANDS, BAND_ROWS = 12, 5  # a pair at Jaccard 0.9 shares no band once in 45,000 times
TOO_LARGE = 0.2  # largest share of all requests that near-duplicates may chain into one group


@dataclass(frozen=True, slots=True)
class Splits:
    """Row numbers of the three parts, and how they were made.

    Attributes:
        fit: int64[·], for members, their weights and calibration, by cross-fitting.
        choose: int64[·], for the operating point and its promise, used once.
        test: int64[·], for the report, used once; may be empty.
        group: int64[n], rows of one group are in one part.
        units: int64[partitions, n], numbers of independent units, see `independent`.
        leakage: one line for the summary.
    """

    fit: NDArray[np.int64]
    choose: NDArray[np.int64]
    test: NDArray[np.int64]
    group: NDArray[np.int64]
    units: NDArray[np.int64]
    leakage: str

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each part, by its name."""
        return {"fit": len(self.fit), "choose": len(self.choose), "test": len(self.test)}


def parse_shares(text: str) -> tuple[float, float, float]:
    """Read ``75/15/10`` (percent) as shares of fit, choose and test.

    Raises:
        BadInput: not three numbers that add up to 100, or no fit or choose rows.
    """
    try:
        fit, choose, test = (float(part) for part in text.split("/"))
    except ValueError:
        raise BadInput(f"--split {text!r}: give three percentages, such as 75/15/10") from None
    whole = abs(fit + choose + test - 100.0) <= 1e-6  # False for NaN
    if not whole or fit <= 0 or choose <= 0 or test < 0:
        raise BadInput(
            f"--split {text!r}: fit, choose and test must add up to 100, fit and choose above 0"
        )
    return fit / 100, choose / 100, test / 100


def split(
    requests: Requests,
    shares: tuple[float, float, float],
    seed: int,
    twin: NDArray[np.int64] | None = None,
) -> Splits:
    """Assign whole groups to fit, choose and test: by time where every request has one.

    A group is a session with all near-duplicates of its prompts and their sessions. Requests whose
    labels are not firm are fitted on, or left out: they neither choose nor test.

    Args:
        requests: n of them.
        shares: of fit, choose and test.
        seed: of the order, where there is no time.
        twin: int64[n], what `near_duplicates` says of the prompts, where that is known.
    """
    if twin is None:
        twin = near_duplicates(list(requests.prompts))
    sessions = requests.sessions
    group, released = _groups(sessions, twin)
    note = f"; {released} prompts asked in very many sessions left where these are" * bool(released)
    timed = not np.isnat(requests.at).any()
    order = _by_time(group, requests.at) if timed else _shuffled(group, seed)
    sizes = np.bincount(group)[order]
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    part_of_group = np.empty(len(order), dtype=np.int64)
    part_of_group[order] = np.searchsorted(np.cumsum(shares)[:2], middle, side="right")
    if shares[2] == 0:
        part_of_group = np.minimum(part_of_group, 1)
    part = part_of_group[group]
    fit, choose, test = (np.flatnonzero(part == k) for k in range(3))
    firm = requests.firm
    weak = int((~firm[part > 0]).sum())
    choose, test = choose[firm[choose]], test[firm[test]]
    note += f"; {weak} weakly labelled requests left out of choose and test" * bool(weak)
    twins = len(twin) - len(np.unique(twin))
    shared = _crossing(twin, part)
    leakage = (
        f"leakage: split {'by time' if timed else 'at random (not every request has a time)'}; "
        f"{twins} near-duplicate prompts kept with their twins, {shared} across parts; "
        f"0 sessions across parts{note}"
    )
    return Splits(fit, choose, test, group, _units(sessions, twin, group), leakage)


def independent(requests: Requests, twin: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Numbers of independent units, int64[partitions, n]: a prompt asked twice is evidence once.

    A unit is a session with all near-duplicates of its prompts and their sessions. Prompts that
    very many sessions ask would tie everything into one unit, so they tie nothing. There are then
    two partitions, one of tied sessions and one of prompts, and a claim must be shown on both.

    Args:
        requests: n of them.
        twin: int64[n], what `near_duplicates` says of these or more prompts, where it is known.
    """
    sessions = requests.sessions
    if not len(sessions):
        return sessions[None]
    if twin is None:
        twin = near_duplicates(list(requests.prompts))
    _, first, number = np.unique(twin, return_index=True, return_inverse=True)
    twin = np.asarray(first[number], dtype=np.int64)
    return _units(sessions, twin, _groups(sessions, twin)[0])


def coarsest(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """The one of several partitions, int64[partitions, n], with the fewest units: int64[n]."""
    return min(units, key=lambda unit: len(np.unique(unit)))


def several_units(requests: Requests) -> NDArray[np.int64]:
    """The `coarsest` units of requests on which something is measured, int64[n].

    Raises:
        BadInput: it is one unit alone, which tells nothing of how sure anything is.
    """
    unit = coarsest(independent(requests))
    if len(np.unique(unit)) < 2:
        raise BadInput("all requests ask the same, or are of one session: an interval needs more")
    return unit


def _units(
    sessions: NDArray[np.int64], twin: NDArray[np.int64], group: NDArray[np.int64]
) -> NDArray[np.int64]:
    prompts = np.asarray(np.unique(twin, return_inverse=True)[1], dtype=np.int64)
    if len(np.unique(sessions)) == len(sessions):  # prompts tie no others
        return prompts[None]
    tied = len(np.unique(np.stack([prompts, group]), axis=1).T) == prompts.max() + 1
    return group[None] if tied else np.stack([group, prompts])


def _groups(sessions: NDArray[np.int64], twin: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Groups int64[n], and how many prompts had to be released to keep them from being one.

    A prompt that everybody asks ties all sessions together. While one group is too large, the
    prompts asked in the most sessions no longer tie: first those in over half of the sessions, then
    in over a quarter, and so on.
    """
    pairs = np.unique(np.stack([twin, sessions]), axis=1)
    asked_in = np.bincount(pairs[0], minlength=len(twin))[twin]
    limit = total = len(np.unique(sessions))
    tied = twin
    while True:
        group = _join(sessions, tied)
        if limit <= 1 or total <= 10 or np.bincount(group).max() <= max(TOO_LARGE * len(twin), 10):
            return group, len(np.unique(twin[asked_in > limit]))
        limit //= 2
        tied = np.where(asked_in > limit, np.arange(len(twin)), twin)


def near_duplicates(prompts: Sequence[Prompt | Imprint]) -> NDArray[np.int64]:
    """int64[n]: the row of each prompt's group leader (its own, where it has no earlier twin).

    Only earlier prompts count, so the first m entries are those of the first m prompts alone.
    """
    first: dict[str | bytes, int] = {}
    leader = np.arange(len(prompts))
    lsh = MinHashLSH(num_perm=BANDS * BAND_ROWS, params=(BANDS, BAND_ROWS))
    blank = MinHash(num_perm=BANDS * BAND_ROWS, hashfunc=int)
    kept: dict[int, NDArray[Any]] = {}
    for row, prompt in enumerate(prompts):
        same = prompt.same if isinstance(prompt, Imprint) else plain(prompt.text)
        leader[row] = first.setdefault(same, row)
        if leader[row] != row:
            continue
        own = prompt.shingles if isinstance(prompt, Imprint) else shingles(str(same))
        sketch = blank.copy()
        sketch.update_batch(own.tolist())
        for candidate in sorted(lsh.query(sketch)):
            if _alike(own, kept[candidate]):
                leader[row] = first[same] = candidate
                break
        else:
            lsh.insert(row, sketch)
            kept[row] = own
    return leader


def _alike(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two sets of shingles have a Jaccard similarity of at least JACCARD."""
    few, many = sorted((len(a), len(b)))
    if few / many < JACCARD:  # too few to have that in common
        return False
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (few + many - common) >= JACCARD


def _join(sessions: NDArray[np.int64], twin: NDArray[np.int64]) -> NDArray[np.int64]:
    """Components of "same session or same twin", int64[n]."""
    n = len(sessions)
    ends = np.concatenate([sessions, twin + sessions.max() + 1])
    rows = np.concatenate([np.arange(n), np.arange(n)])
    size = n + int(ends.max()) + 1
    links = coo_matrix((np.ones(2 * n), (rows, ends + n)), shape=(size, size))
    labels = connected_components(links, directed=False)[1][:n]
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


def _by_time(group: NDArray[np.int64], at: NDArray[np.datetime64]) -> NDArray[np.int64]:
    first = np.full(int(group.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, group, at.astype("datetime64[us]").astype(np.int64))
    return np.argsort(first, kind="stable")


def _shuffled(group: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(int(group.max()) + 1)


def _crossing(twin: NDArray[np.int64], part: NDArray[np.int64]) -> int:
    """How many prompts have their leader in another part."""
    return int((part != part[twin]).sum())
