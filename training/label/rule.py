"""The label rule: what counts as "this tier sufficed"."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router.tier import Tier
from training.errors import BadInput
from training.log.requests import (
    FIRM,
    Requests,
    bill_notes,
    by_time,
    gather,
    of_tiers,
    propensity_notes,
)
from training.log.traffic import TrafficTable, read_traffic, require_scores

_ROUNDING: Final = 1e-9  # 0.7 is 0.1 below 0.8, though not as floats subtract


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How scores become "sufficed", for the promise and the report; heads learn the score itself.

    Attributes:
        sufficed_at: a score of at least this sufficed.
        margin: relative rule instead: sufficed if the score is at least the top tier's − margin.
        assume_top_suffices: the top tier was never observed and counts as always right.
    """

    sufficed_at: float = 0.5
    margin: float | None = None
    assume_top_suffices: bool = False

    def __post_init__(self) -> None:
        """Raise BadInput for a limit outside its range, or for rules that exclude each other."""
        if not 0.0 < self.sufficed_at <= 1.0:
            raise BadInput(f"[label] sufficed_at must be in (0, 1], got {self.sufficed_at}")
        if self.margin is not None and not 0.0 <= self.margin < 1.0:
            raise BadInput(f"[label] margin must be in [0, 1), got {self.margin}")
        if self.margin is not None and self.assume_top_suffices:
            raise BadInput(
                "[label] margin compares with the top tier's score, which assume_top_suffices "
                "says was never observed: choose one"
            )

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    def apply(self, requests: Requests) -> Requests:
        """The requests with the assumption, if any, filled in.

        Raises:
            BadInput: `assume_top_suffices` beside observed top scores.
        """
        if not self.assume_top_suffices:
            return requests
        observed = int((~np.isnan(requests.score[:, -1])).sum())
        if observed:
            raise BadInput(
                f"[label] assume_top_suffices: {observed} rows hold a score of the top tier; train "
                "without the assumption, what was observed is better"
            )
        score = requests.score.copy()
        score[:, -1] = 1.0
        return replace(requests, score=score)

    def warnings(self) -> tuple[str, ...]:
        """What every report under this rule must say."""
        if not self.assume_top_suffices:
            return ()
        return ("ASSUMED, not measured: the top tier suffices always (assume_top_suffices)",)

    def sufficed(self, score: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool[n, k] from scores float64[n, k] without NaN."""
        if self.margin is None:
            return np.asarray(score >= self.sufficed_at)
        return np.asarray(score >= score[:, -1:] - self.margin - _ROUNDING)


def firm_requests(requests: Requests) -> tuple[Requests, tuple[str, ...]]:
    """The requests that figures may rest on (`Requests.firm`), and how many do not, in words.

    Raises:
        BadInput: all labels are weak.
    """
    firm = np.flatnonzero(requests.firm)
    weak = len(requests) - len(firm)
    if not len(firm):
        raise BadInput(
            f"column label_weight: all labels are of users' signals, or below {FIRM}: they can be "
            "trained on, but they measure nothing; grade or judge a random part of the answers"
        )
    note = f"{weak} requests are labelled by signals or less than {FIRM} (label_weight): left out"
    return requests.take(firm), (note,) * bool(weak)


def load_requests(
    traffic: Path, tiers: tuple[Tier, ...], rule: LabelRule
) -> tuple[Requests, tuple[str, ...]]:
    """Labelled requests of a traffic file under a label rule, and what was left out, in words."""
    return labelled_requests(read_traffic(traffic), tiers, rule)


def labelled_requests(
    table: TrafficTable, tiers: tuple[Tier, ...], rule: LabelRule
) -> tuple[Requests, tuple[str, ...]]:
    """As `load_requests`, of a table that was read already; in order of time, then of ids."""
    require_scores(table)
    frame, left_out = of_tiers(table.frame, tiers)
    requests = gather(by_time(frame), tiers)
    labelled = np.flatnonzero(~np.isnan(requests.score).all(axis=1))
    notes = [*table.notes, *left_out]
    if len(labelled) < len(requests):
        notes.append(f"{len(requests) - len(labelled)} requests carry no score and are left out")
    requests = requests.take(labelled)
    notes += [*propensity_notes(requests), *bill_notes(requests, tiers)]
    return rule.apply(requests), tuple(notes)
