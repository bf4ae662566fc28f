"""Partial pooling: requests of one kind say together how far tiers differ on them.

One outcome hardly tells that: mostly both tiers suffice or both fail, and where they differ chance
has a say. Requests with a source and tags in common (application, task, tenant) tell it better
together. So linear, forest and encoder learn, of a request that shows every tier's outcome, its own
difference and the mean one of its kind in equal parts; the level, how hard it is for all tiers,
remains its own. Neighbours do not: what past requests scored is told where a decision is explained.

A kind's mean is shrunk towards that of all requests, as far as chance explains that kinds differ
(empirical Bayes, Efron and Morris, 1975). Where chance explains all of it nothing is pooled.

Sources and tags are used for fitting only: what is served reads the prompt alone.
"""

from collections import Counter
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.learn.joint import mostly_unpaired

OWN: Final = 0.5  # part of a request's own difference; .2 orders MMLU's prompts worse, 0 all
COMMON: Final = 20  # requests that a tag needs to be part of a kind: others are ids, not tasks


def kinds(source: NDArray[np.object_], tags: NDArray[np.object_]) -> NDArray[np.int64]:
    """Number of each request's kind, its source and common tags: int64[n].

    Args:
        source: object[n], texts or None.
        tags: object[n], tuples of texts.
    """
    count = Counter(tag for held in tags for tag in set(held))
    common = {tag for tag, rows in count.items() if rows >= COMMON}
    named = np.empty(len(source), dtype=object)
    named[:] = [
        (name is None, name or "", *sorted(common & set(held)))
        for name, held in zip(source, tags, strict=True)
    ]
    return np.asarray(pd.factorize(named)[0], dtype=np.int64)


def pooled(
    score: NDArray[np.float64], weight: NDArray[np.float64], kind: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What is learned, float64[n, k] in [0, 1]; rows without every tier's score as they are.

    Nothing is pooled where less than half of the labelled rows are paired: what tiers differ by is
    learned in another way there (`learn.joint`, `learn.gaps`).

    Args:
        score: float64[n, k] in [0, 1], NaN where not observed.
        weight: float64[n, k].
        kind: int64[n].
    """
    paired = np.flatnonzero(~np.isnan(score).any(axis=1))
    if score.shape[1] < 2 or not len(paired) or mostly_unpaired(score):
        return score
    level = score[paired].mean(axis=1, keepdims=True)
    own = score[paired] - level
    shared = _of_others(own, weight[paired].mean(axis=1), kind[paired])
    if shared is None:
        return score
    both = level + OWN * own + (1 - OWN) * shared
    both -= np.maximum(both.max(axis=1, keepdims=True) - 1.0, 0.0)  # moved into [0, 1] as one,
    both -= np.minimum(both.min(axis=1, keepdims=True), 0.0)  # so the differences stay
    found = score.copy()
    found[paired] = np.clip(both, 0.0, 1.0)
    return found


def _of_others(
    own: NDArray[np.float64], weight: NDArray[np.float64], kind: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Mean difference of the kind's other rows, shrunk: float64[m, k]; None if kinds are alike.

    The variance between kinds is estimated by moments (DerSimonian and Laird, 1986).
    """
    number = np.unique(kind, return_inverse=True)[1]
    rows = np.bincount(number, weights=weight)
    sums = np.stack([np.bincount(number, weights=weight * column) for column in own.T], axis=1)
    total = rows.sum()
    mean, of_kind = sums.sum(axis=0) / total, sums / rows[:, None]
    free = total - len(rows)
    if len(rows) < 2 or free <= 0:
        return None
    within = float(weight @ ((own - of_kind[number]) ** 2).sum(axis=1)) / free
    between = float(rows @ ((of_kind - mean) ** 2).sum(axis=1)) - (len(rows) - 1) * within
    between /= total - float(rows @ rows) / total
    if between <= 0:
        return None
    prior = max(within / between, 1.0)  # rows' worth of the mean of all
    left = (sums[number] - weight[:, None] * own) + prior * mean
    return np.asarray(left / (rows[number] - weight + prior)[:, None])
