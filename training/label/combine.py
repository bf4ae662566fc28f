"""Several sources' scores of one answer → one label and how far it is trusted.

Sources at or above `sufficed_at` stand against those below it, each with its evidence (`trust`).
The side with more evidence wins; the label is the mean score of its sources, and its weight
tanh(|evidence for − evidence against|/2): a source alone keeps its score and its weight, agreement
adds weight, conflict takes it away. Evidence that cancels out leaves the row unlabelled. Where a
source that is not firm speaks, and no firm one, the weight stays below `FIRM`. Not that of signals:
whatever it is, no promise rests on them (`Requests.trusted`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.label.plan import LabelPlan
from training.label.trust import Trust
from training.log.requests import FIRM, SIGNALS

Floats = NDArray[np.float64]
SOFT = FIRM - 0.01


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of n rows.

    Attributes:
        score, weight: float64[n], NaN where there is no label.
        sources: names, strongest first.
        spoke: bool[n, sources].
        trusted: mean weight with which each source spoke, NaN of one that never did.
        conflicts: rows on which sources stood on both sides.
    """

    score: Floats
    weight: Floats
    sources: tuple[str, ...]
    spoke: NDArray[np.bool_]
    trusted: tuple[float, ...]
    conflicts: int

    @classmethod
    def none(cls, rows: int) -> "Labels":
        """No source said anything."""
        nothing = np.full(rows, np.nan)
        return cls(nothing, nothing, (), np.zeros((rows, 0), dtype=bool), (), 0)

    def names(self, start: int, stop: int) -> list[str | None]:
        """The sources of each label, joined by `+`, of some rows."""
        codes, index = np.unique(self.spoke[start:stop], axis=0, return_inverse=True)
        texts = ["+".join(np.array(self.sources)[code]) or None for code in codes]
        labelled = ~np.isnan(self.score[start:stop])
        return [
            texts[i] if known else None for i, known in zip(index.ravel(), labelled, strict=True)
        ]


def combine(
    scores: Mapping[str, Floats],
    trusts: Mapping[str, Trust],
    who: NDArray[np.int32],
    plan: LabelPlan,
    sufficed_at: float,
) -> Labels:
    """Combine the sources' scores, float64[n] each, NaN where a source says nothing.

    `who`, int32[n], is the index of who answered in the evidence of `trusts`.
    """
    names = sorted(scores, key=lambda name: (-plan.weight(name), name))
    n = len(next(iter(scores.values())))
    spoke = np.zeros((n, len(names)), dtype=bool)
    firm = np.zeros(n, dtype=bool)
    support = np.zeros((2, n))  # evidence against and for
    mean = np.zeros((2, n))
    trusted = []
    for k, name in enumerate(names):
        rows = np.flatnonzero(~np.isnan(scores[name]))
        side = (scores[name][rows] >= sufficed_at).astype(int)
        evidence = trusts[name].evidence[side, who[rows]]
        trusted.append(float(np.tanh(evidence / 2.0).mean()) if len(rows) else float("nan"))
        heard = evidence > 0
        rows, side, evidence = rows[heard], side[heard], evidence[heard]
        spoke[rows, k] = True
        firm[rows] |= trusts[name].firm
        support[side, rows] += evidence
        part = evidence / support[side, rows]  # a running mean: of one score, exactly that
        mean[side, rows] += (scores[name][rows] - mean[side, rows]) * part
    net = support[1] - support[0]
    winner = (net > 0).astype(int)
    known = np.abs(net) > 1e-9
    score = np.where(known, np.take_along_axis(mean, winner[None], 0)[0], np.nan)
    weight = np.where(known, np.tanh(np.abs(net) / 2.0), np.nan)
    others = spoke[:, [name not in SIGNALS for name in names]].any(axis=1)
    weight = np.where(firm | ~others, weight, np.minimum(weight, SOFT))
    conflicts = int((support > 0).all(axis=0).sum())
    return Labels(score, weight, tuple(names), spoke, tuple(trusted), conflicts)
