"""How far a judge agrees with people: accuracy and Cohen's kappa, with 95 % intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import confusion_matrix

RESAMPLES = 1000
FEW = 50  # gold labels under which an interval is too wide to say much


@dataclass(frozen=True, slots=True)
class Share:
    """k of n, and the 95 % limits of the rate (Wilson, 1927); NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, k: int, n: int) -> "Share":
        """Of a count."""
        if n == 0:
            return cls(float("nan"), float("nan"), float("nan"), 0)
        limits = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
        return cls(k / n, float(limits.low), float(limits.high), n)

    def __str__(self) -> str:
        """For people."""
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.n}"


@dataclass(frozen=True, slots=True)
class Concordance:
    """Judge against gold on the same rows.

    Attributes:
        accuracy: share of equal labels.
        kappa: Cohen's (1960), agreement beyond chance; NaN where both only ever say one thing.
        low, high: its 95 % percentile bootstrap limits.
        labels: the classes, in the order of `table`.
        table: counts, rows gold, columns judge.
    """

    accuracy: Share
    kappa: float
    low: float
    high: float
    labels: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        share = self.accuracy
        return {
            "n": share.n,
            "accuracy": {"value": share.value, "low": share.low, "high": share.high},
            "kappa": {"value": self.kappa, "low": self.low, "high": self.high},
            "labels": list(self.labels),
            "table": [list(row) for row in self.table],
        }


def concordance(
    gold: Sequence[str], judge: Sequence[str], labels: Sequence[str], seed: int = 0
) -> Concordance:
    """Compare two labellings of the same n rows, n ≥ 1."""
    table = confusion_matrix(gold, judge, labels=list(labels))
    n = len(gold)
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, RESAMPLES)
    rounds = _kappa(drawn.reshape(RESAMPLES, *table.shape))
    known = rounds[~np.isnan(rounds)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Concordance(
        Share.of(int(np.trace(table)), n),
        float(_kappa(table[None])[0]),
        float(low),
        float(high),
        tuple(labels),
        tuple(tuple(int(count) for count in row) for row in table),
    )


def _kappa(tables: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cohen's kappa of confusion tables int64[r, c, c], float64[r]; NaN where chance explains all.

    Drawing tables from their multinomial is the bootstrap over rows, many times faster.
    """
    shares = tables / tables.sum(axis=(1, 2), keepdims=True)
    agree = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1 - 1e-12, (agree - chance) / (1 - chance), np.nan)
