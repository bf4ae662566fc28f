"""Which world a log is of: paired (every tier's answer to a request is known) or one-sided.

Where a sample took some requests more often than others (`suffice replay --strategy informative`),
all of them teach, but what is measured must be measured on requests that are like the traffic.
These are drawn from the sample by rejection (von Neumann, 1951): each is kept with the least
probability of the sample over its own, so that any one of the traffic was as likely to be kept as
any other. Promises, intervals and tests hold on them as they are; weights would widen each.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.errors import BadInput
from training.log.requests import Requests, thinning
from training.measure.offpolicy import Logged

PAIRED, ONE_SIDED = "paired", "one-sided"


@dataclass(frozen=True, slots=True)
class World:
    """The requests by which policies are judged, and whether they are paired or one-sided.

    Attributes:
        name: ``paired`` or ``one-sided``.
        rows: int64[m], the requests used; in a one-sided world also those with every tier's score.
        note: what was chosen, in words.
    """

    name: str
    rows: NDArray[np.int64]
    note: str

    @property
    def paired(self) -> bool:
        """Whether every tier's score is known on every row."""
        return self.name == PAIRED


def paired_world(requests: Requests) -> World:
    """The paired world, however many requests it has."""
    rows, paired = np.flatnonzero(comparable(requests)), int(requests.paired.sum())
    left, aside = len(requests) - paired, paired - len(rows)
    note = f"world: paired, {len(rows)} requests with every tier's score"
    note += f"; {left} without left out" * bool(left)
    told = f"; {aside} more, which a sample took more often than others, are learned from only"
    return World(PAIRED, rows, note + told * bool(aside))


def pick_world(requests: Requests, least: int) -> World:
    """Choose the world that says more: the one in which the rarest tier was seen more often.

    Args:
        requests: those that may be used.
        least: how many are needed.

    Raises:
        BadInput: neither world has enough; the message says what is missing, and how to get it.
    """
    paired = comparable(requests)
    chosen = ~np.isnan(requests.score) & ~np.isnan(requests.propensity)
    usable = valuable(requests)
    alone = usable & ~requests.paired
    rarest = int((chosen & alone[:, None]).sum(axis=0).min(initial=len(requests)))
    if paired.sum() >= max(least, rarest):
        return paired_world(requests)
    rows = np.flatnonzero(usable)
    if len(rows) >= least and alone.any():
        lost = len(requests) - len(rows)
        note = (
            f"world: one-sided, {int(alone.sum())} requests that one tier answered, with its "
            f"propensity, and {len(rows) - int(alone.sum())} with every tier's score: values are "
            "estimates"
        )
        return World(ONE_SIDED, rows, note + f"; {lost} without propensity left out" * bool(lost))
    left, known = len(requests) - int(paired.sum()), int(paired.sum())
    told = f"{known} requests with every tier's score, {least} are needed: give newer traffic"
    if left:
        told += f", or replay at least {max(least - known, 1)} on the tiers that did not answer"
    if left and not alone.any():
        told += (
            f"; the other {left} carry no propensity: log the chance with which your policy chose "
            "the tier (column propensity, data/README.md), or, if it chose by what is in the log "
            "alone, --estimate-propensities"
        )
    raise BadInput(told)


def unseen(
    requests: Requests, known: NDArray[np.bool_], pick: Callable[[Requests], World], name: str
) -> World:
    """The world of the requests that an artifact does not know, its rows numbered among all.

    Args:
        requests: n of them.
        known: bool[n], what the artifact was fitted or chosen on.
        pick: chooses the world.
        name: of the traffic, for messages.

    Raises:
        BadInput: as `pick`; the message says how many were left out.
    """
    fresh = np.flatnonzero(~known)
    try:
        world = pick(requests.take(fresh))
    except BadInput as error:
        out = f"without the {int(known.sum())} requests that the artifact was fitted or chosen on"
        raise BadInput(f"{name}: {out}, {error}") from None
    return replace(world, rows=fresh[world.rows])


def judging(requests: Requests, paired: bool) -> NDArray[np.bool_]:
    """bool[n]: the requests by which policies can be judged, in the paired or one-sided world."""
    return comparable(requests) if paired else valuable(requests)


def comparable(requests: Requests) -> NDArray[np.bool_]:
    """bool[n]: every tier's score is known, and together they are `like_traffic`."""
    return like_traffic(requests, requests.paired)


def valuable(requests: Requests) -> NDArray[np.bool_]:
    """bool[n]: every tier's score is known, or the propensity of one that answered.

    Together they are `like_traffic`.
    """
    chosen = ~np.isnan(requests.score) & ~np.isnan(requests.propensity)
    return like_traffic(requests, requests.paired | chosen.any(axis=1))


def like_traffic(requests: Requests, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool[n]: of the usable requests, bool[n], a part that is distributed like the traffic.

    It is all of them where there was no sample, and where requests that the sample passed over are
    usable, too: with those the sampled ones are the traffic.
    """
    chance = requests.sample_probability
    passed_over = usable & np.isnan(chance) & ~requests.paired
    sampled = usable & ~np.isnan(chance)
    if passed_over.any() or not sampled.any():
        return usable
    kept = usable.copy()
    rows = np.flatnonzero(sampled)
    odds = zip(requests.ids[rows], thinning(chance[rows]), strict=True)
    kept[rows] = [_draw(name) < odd for name, odd in odds]
    return kept


def _draw(request_id: str) -> float:
    """A number in [0, 1) that is always the same for a request: no job judges by other ones."""
    digest = hashlib.sha256(f"sample:{request_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def logged(requests: Requests, unit: NDArray[np.int64] | None = None) -> Logged:
    """What off-policy estimates look at; `unit` int64[n] in place of sessions where it is known."""
    unit = requests.sessions if unit is None else unit
    return Logged(requests.score, requests.propensity, unit)
