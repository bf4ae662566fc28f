"""Decisions sorted in hindsight, for notebooks, where every tier's outcome is known."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

SAVED: Final = "cheaper tier, and it sufficed"
BAD: Final = "cheaper tier failed: bad downgrade"
LOST: Final = "cheaper tier failed, so would the top"
NEEDED: Final = "top tier, and it was needed"
NEEDLESS: Final = "top tier, a cheaper one would do"
CASES: Final = (SAVED, LOST, BAD, NEEDLESS, NEEDED)


def cases_of(tier: NDArray[np.int64], sufficed: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Which of CASES each decision is: text[n].

    The top tier counts as needed also where no tier suffices.

    Args:
        tier: int64[n], the choice.
        sufficed: bool[n, k].
    """
    top = sufficed.shape[1] - 1
    own = sufficed[np.arange(len(tier)), tier]
    cheap = tier < top
    cases = [cheap & own, cheap & sufficed[:, top], cheap, sufficed[:, :top].any(axis=1)]
    return np.select(cases, [SAVED, BAD, LOST, NEEDLESS], NEEDED)
