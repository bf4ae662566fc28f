"""The rows of a report: what is known of requests whose every tier's score is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.predictor import Estimates
from router.tier import Tier
from training.label.rule import LabelRule
from training.log.requests import Requests
from training.measure.slices import Slice, slices_of


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows that a report is about, every tier's score known.

    Attributes:
        names: of the k tiers, cheapest first.
        p, usd: float64[n, k], the predictor's estimates.
        score, paid: float64[n, k], observed scores, and USD of each tier in the account.
        sufficed: bool[n, k], by the label rule.
        session: int64[n], independent units (see `training.learn.splits.independent`).
        characters: float64[n], prompt length.
        baselines: {name: float64[n, k]}, other methods' estimates of the score.
        slices: of the traffic, by rows.
    """

    names: tuple[str, ...]
    p: NDArray[np.float64]
    usd: NDArray[np.float64]
    score: NDArray[np.float64]
    paid: NDArray[np.float64]
    sufficed: NDArray[np.bool_]
    session: NDArray[np.int64]
    characters: NDArray[np.float64]
    baselines: Mapping[str, NDArray[np.float64]]
    slices: tuple[Slice, ...] = ()

    @classmethod
    def of(
        cls,
        tiers: Sequence[Tier],
        estimates: Estimates,
        paid: NDArray[np.float64],
        requests: Requests,
        unit: NDArray[np.int64],
        rule: LabelRule,
        others: Mapping[str, NDArray[np.float64]],
        surface: NDArray[np.float32],
    ) -> "Rows":
        """What a report looks at; every array has a row per request, in the order of `requests`.

        Args:
            tiers: cheapest first.
            estimates: by the predictor.
            paid: float64[n, k], the account.
            requests: n of them.
            unit: int64[n], independent units.
            rule: what sufficing means.
            others: {name: float64[n, k]}, other methods' estimates of the score.
            surface: float32[n, surface features].
        """
        return cls(
            names=tuple(tier.name for tier in tiers),
            p=estimates.p,
            usd=estimates.usd,
            score=requests.score,
            paid=paid,
            sufficed=rule.sufficed(requests.score),
            session=unit,
            characters=np.array([prompt.chars for prompt in requests.prompts], dtype=np.float64),
            baselines=others,
            slices=slices_of(requests, surface),
        )
