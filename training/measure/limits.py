"""Limits that hold where few losses were seen, or where few sessions hold most of the requests.

A bootstrap of 40 requests without one failure has no width, yet one request in eleven may fail.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit
from scipy.stats import beta

from training.measure.intervals import Floats, Interval

FEW, LEAST = 30, 10  # sessions of equal size


def half_width(values: Floats, session: ArrayLike, confidence: float = 0.95) -> float:
    """Half of a Student's t interval of a mean; NaN where there is one session only.

    The standard error is the jackknife's over sessions (Tukey, 1958): it sees what the rows would
    say without the session that most of them are of. The degrees of freedom are one less than
    `independent_units`, at least one: Satterthwaite's where rows are independent (Bell & McCaffrey,
    2002), but for the leverage that the jackknife already allows for. Of sessions of equal size it
    is the t interval of their means. Where one to three hold 40–60 % of the requests and go alike
    inside, 80–99 % of such intervals of costs hold the truth; 58–82 % do without the jackknife and
    with the degrees of freedom of as many equal sessions.

    values: float64[n]; session: labels [n].
    """
    return _half_width(values, _numbered(session), confidence)


def rate(values: Floats, session: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of shares in [0, 1], with limits by `proportion` from its `half_width`.

    values: float64[n]; session: labels [n].
    """
    return _rate(values, _numbered(session), confidence)


def proportion(p: float, half: float, rows: int, units: float, confidence: float) -> Interval:
    """Clopper–Pearson limits at the effective sample size (Korn & Graubard, 1998).

    That is the number of independent rows whose t interval is as wide.

    p: the share. half: its `half_width`. rows: how many. units: what they are worth if those of one
    session say the same (`independent_units`).
    """
    tail, size = (1 - confidence) / 2, units
    if half > 0:
        spread = half / float(stdtrit(rows - 1, 1 - tail))
        size = float(np.clip(p * (1 - p) / spread**2, units, rows))
    hits = p * size
    low = float(beta.ppf(tail, hits, size - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, size - hits)) if hits < size else 1.0
    return Interval(p, p, min(low, p), max(high, p), 0.0)


def independent_units(sizes: NDArray[np.int64]) -> float:
    """What rows are worth if those of one session say the same (Kish, 1965): (Σm)² / Σm².

    sizes: int64[sessions], rows of each. Of equal sessions this is their number; where one of 41
    has 500 of 540 rows it is 1.2.
    """
    size = sizes.astype(np.float64)
    return float(size.sum() ** 2 / (size @ size))


def allowing(
    found: Interval, gain: Floats, session: ArrayLike, per: float = 1.0, confidence: float = 0.95
) -> Interval:
    """Limits of a paired difference that allow for losses and gains too rare to have been seen.

    Where 40 requests show no loss, no resample does, and Student's t sees none. So the limits are
    at least as far away as losses, and gains, may each be more than those seen (`rate`).

    found: mean of `gain`, or that divided by `per`, plus a constant. gain: float64[n] in [−1, 1],
    request by request. session: labels [n].
    """
    number = _numbered(session)
    lost, won = (_rate(np.maximum(side * gain, 0.0), number, confidence) for side in (-1.0, 1.0))
    low = found.value - (lost.high - lost.value) / per
    high = found.value + (won.high - won.value) / per
    return replace(found, low=min(found.low, low), high=max(found.high, high))


def share_of_top(found: Interval, own: Floats, top: Floats, session: ArrayLike) -> Interval:
    """Such limits of a quality as a share of the top tier's, which no score can leave.

    Where the top tier is always right, by assumption or as seen, nothing keeps more than 100 %.

    found: mean of `own` by that of `top`, float64[n] each, in [0, 1]. session: labels [n].
    """
    per = float(top.mean())
    limits = allowing(found, own - top, session, per)
    return replace(limits, low=max(limits.low, 0.0), high=min(limits.high, 1.0 / per))


def choice_limits(
    found: Mapping[str, Interval],
    tier: NDArray[np.int64],
    score: Floats,
    bad: NDArray[np.bool_],
    session: NDArray[np.int64],
) -> dict[str, Interval]:
    """The figures of a choice of tiers, those of quality and of bad downgrades with such limits.

    found: of a bootstrap; what is not among `quality`, `quality_top`, `quality_of_top` and
    `bad_downgrade` stays as it is, and so do the last two of what all goes to the top tier.
    tier: int64[n], the choice. score: float64[n, k]. bad: bool[n], its bad downgrades. session:
    int64[n].
    """
    own, top = score[np.arange(len(score)), tier], score[:, -1]
    shares = {"quality": own, "quality_top": top}
    metrics = dict(found)
    if (tier < score.shape[1] - 1).any():
        shares["bad_downgrade"] = bad.astype(np.float64)
        if "quality_of_top" in found and top.any():
            metrics["quality_of_top"] = share_of_top(found["quality_of_top"], own, top, session)
    return metrics | {name: rate(shares[name], session) for name in shares.keys() & found.keys()}


def few_sessions(session: ArrayLike) -> tuple[str, ...]:
    """Said where few sessions hold so many requests that the others add little, or all of them.

    A `rate` allows for that; resampled sessions do not: of 2, 3, 5 and 10 equal ones, 55, 75, 83
    and 90 % of the bootstrap's 95 % intervals of a mean hold the truth.

    session: labels [n].
    """
    size = np.bincount(_numbered(session))
    least = max(LEAST, min(FEW, len(size) / 2))
    if len(size) < 2 or (units := independent_units(size)) >= least:
        return ()
    return (
        f"one session, or one prompt asked again and again, holds {size.max() / size.sum():.0%} of "
        f"the requests: where those of a session go alike, all {len(size)} tell as much as "
        f"{units:.2g} of equal size; intervals from so few are rough",
    )


def _rate(values: Floats, number: NDArray[np.int64], confidence: float) -> Interval:
    half = _half_width(values, number, confidence)
    units = independent_units(np.bincount(number))
    return proportion(float(values.mean()), half, len(values), units, confidence)


def _half_width(values: Floats, number: NDArray[np.int64], confidence: float) -> float:
    size = np.bincount(number)
    if len(size) < 2:
        return nan
    moved = np.bincount(number, weights=values - values.mean()) / (len(values) - size)
    spread = np.sqrt((moved @ moved) * (1 - 1 / len(size)))
    freedom = max(independent_units(size) - 1, 1.0)
    return float(stdtrit(freedom, (1 + confidence) / 2) * spread)


def _numbered(session: ArrayLike) -> NDArray[np.int64]:
    """Labels [n] as numbers from 0, int64[n]; the sort is most of what a `rate` takes."""
    return np.unique(np.asarray(session), return_inverse=True)[1]
