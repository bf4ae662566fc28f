"""Which world a log is of: paired (every tier's answer to a request is known) or one-sided."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.errors import BadInput
from training.log.requests import Requests
from training.measure.offpolicy import Logged

PAIRED, ONE_SIDED = "paired", "one-sided"


@dataclass(frozen=True, slots=True)
class World:
    """The requests that can be judged by, and how.

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
    rows = np.flatnonzero(requests.paired)
    left = len(requests) - len(rows)
    note = f"world: paired, {len(rows)} requests with every tier's score"
    return World(PAIRED, rows, note + f"; {left} without left out" * bool(left))


def pick_world(requests: Requests, least: int) -> World:
    """Choose the world that says more: the one in which the rarest tier was seen more often.

    Args:
        requests: those that may be used.
        least: how many are needed.

    Raises:
        BadInput: neither world has enough; the message says what is missing, and how to get it.
    """
    paired = requests.paired
    chosen = ~np.isnan(requests.score) & ~np.isnan(requests.propensity)
    alone = valuable(requests) & ~paired
    rarest = int((chosen & alone[:, None]).sum(axis=0).min(initial=len(requests)))
    if paired.sum() >= max(least, rarest):
        return paired_world(requests)
    rows = np.flatnonzero(valuable(requests))
    if len(rows) >= least and alone.any():
        lost = len(requests) - len(rows)
        note = (
            f"world: one-sided, {int(alone.sum())} requests that one tier answered, with its "
            f"propensity, and {int(paired.sum())} with every tier's score: values are estimates"
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


def valuable(requests: Requests) -> NDArray[np.bool_]:
    """bool[n]: every tier's score is known, or the propensity of one that answered."""
    chosen = ~np.isnan(requests.score) & ~np.isnan(requests.propensity)
    return np.asarray(requests.paired | chosen.any(axis=1))


def logged(requests: Requests, unit: NDArray[np.int64] | None = None) -> Logged:
    """What off-policy estimates look at; `unit` int64[n] in place of sessions where it is known."""
    unit = requests.sessions if unit is None else unit
    return Logged(requests.score, requests.propensity, unit)
