"""How far the sources of labels agree, and how wrong the weaker ones are by the stronger.

Where two sources speak of the same answers, the stronger is taken for the truth. Intervals are
Wilson's (1927), 95 %. What this makes of the weaker one's weight: `trust`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.rate import Rate

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """A weaker source judged by a stronger one.

    Attributes:
        agree: of the rows on which both speak.
        false_positive: of the answers that did not suffice, the weaker says they did.
        false_negative: of the answers that sufficed, the weaker says they did not.
    """

    stronger: str
    weaker: str
    agree: Rate
    false_positive: Rate
    false_negative: Rate


def compare(scores: Mapping[str, Floats], order: Sequence[str], sufficed_at: float) -> list[Pair]:
    """Every pair of sources that overlap; `order` is strongest first.

    scores: float64[n] by source, NaN where it is silent.

    The rates of error are over all rows on which the stronger speaks: a weaker source that keeps
    silent on a row makes no error there.
    """
    pairs = []
    for k, stronger in enumerate(order):
        known = ~np.isnan(scores[stronger])
        truth = scores[stronger] >= sufficed_at
        for weaker in order[k + 1 :]:
            speaks = ~np.isnan(scores[weaker])
            both = known & speaks
            if not both.any():
                continue
            says = scores[weaker] >= sufficed_at
            pairs.append(
                Pair(
                    stronger,
                    weaker,
                    agree=_rate(says[both] == truth[both]),
                    false_positive=_rate((speaks & says)[known & ~truth]),
                    false_negative=_rate((speaks & ~says)[known & truth]),
                )
            )
    return pairs


def _rate(hits: NDArray[np.bool_]) -> Rate:
    return Rate.of(int(hits.sum()), len(hits))
