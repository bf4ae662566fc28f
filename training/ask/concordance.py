"""How far a judge agrees with people: accuracy and Cohen's kappa, with 95 % intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from training.rate import Rate

RESAMPLES = 1000
FEW = 50  # gold labels under which an interval is too wide to say much


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

    accuracy: Rate
    kappa: float
    low: float
    high: float
    labels: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "n": self.accuracy.n,
            "accuracy": self.accuracy.as_json(),
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
        Rate.of(int(np.trace(table)), n),
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
