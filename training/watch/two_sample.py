"""Tests of two samples: is the recent one drawn from the distribution that was learned from?

Each test has a size and a direction, and is corrected for the number of tests (Holm, 1979): if
nothing drifted, any of them says otherwise at most once in twenty looks.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression

from training.watch.baseline import Floats, Sample

RISK = 0.05
LEAST = 100  # a kind with fewer rows is not tested
BINS = 10
COMPONENTS = 32  # means are compared in so many of the 64 dimensions


@dataclass(frozen=True, slots=True)
class Finding:
    """One test.

    Attributes:
        kind: prompts, probabilities, labels, calibration, mix, cost, prices, models.
        name: what was compared.
        size: how large the change is, in the unit that `unit` names.
        unit: of `size` and `least`.
        low, high: 95 % limits of the size, NaN where there are none.
        least: a smaller change is no reason to retrain.
        p_value: corrected for the number of tests; 0 where a fact and not a sample speaks.
    """

    kind: str
    name: str
    size: float
    unit: str
    low: float
    high: float
    least: float
    p_value: float

    @property
    def due(self) -> bool:
        """Whether the change is shown, and large enough to matter."""
        return self.p_value < RISK and abs(self.size) >= self.least


def compare(reference: Sample, recent: Sample, names: Sequence[str]) -> tuple[Finding, ...]:
    """Every test of two samples, corrected together."""
    old, both = reference.decided, (reference, recent)
    # In a space fitted on them, rows of a small log lie unlike any others: new ones would be drift.
    place = reference.place[reference.unfitted]
    found = [_means(place, recent.place), _classifier(place, recent.place)]
    for k, name in enumerate(names):
        found.append(_probabilities(reference.p[old, k], recent.p[:, k], name))
        # Of paired rows only: else the mean also tells which prompts the log sent to this tier.
        was, now = (part.score[~np.isnan(part.score).any(axis=1), k] for part in both)
        found.append(_scores("labels", f"score of {name}", was, now))
        was, now = (part.score[:, k] - part.p[:, k] for part in both)
        found.append(_scores("calibration", f"score − P of {name}", was, now))
    found.append(_mix(reference.tier[old], recent.tier, names))
    rows = np.arange(len(recent))
    was = reference.usd[old, reference.tier[old]]
    found.append(_cost(was, recent.usd[rows, recent.tier]))
    return _corrected([one for one in found if one is not None])


def _means(old: NDArray[np.float32], new: NDArray[np.float32]) -> Finding | None:
    """Hotelling's two-sample T² in the leading dimensions; the size is Mahalanobis' distance.

    At unequal covariances, by the F distribution of Krishnamoorthy & Yu (2004): of a hundred rows
    χ² would find one false change in seven looks.
    """
    a, b = old[:, :COMPONENTS].astype(np.float64), new[:, :COMPONENTS].astype(np.float64)
    n, m = len(a), len(b)
    if min(n, m) < LEAST:
        return None
    shift = b.mean(axis=0) - a.mean(axis=0)
    spread = [np.cov(part, rowvar=False) for part in (a, b)]
    pooled = ((n - 1) * spread[0] + (m - 1) * spread[1]) / (n + m - 2)
    distance = sqrt(max(float(shift @ np.linalg.pinv(pooled) @ shift), 0.0))
    inverse = np.linalg.pinv(spread[0] / n + spread[1] / m)
    squared = float(shift @ inverse @ shift)
    parts = [inverse @ spread[0] / n, inverse @ spread[1] / m]
    d = round(np.trace(parts[0] + parts[1]))  # their rank
    if d == 0:  # all ask the same
        return None
    lost = sum(
        (np.trace(part @ part) + np.trace(part) ** 2) / (rows - 1)
        for part, rows in zip(parts, (n, m), strict=True)
    )
    freedom = (d + d**2) / lost - d + 1
    p_value = float(stats.f.sf(squared * freedom / ((freedom + d - 1) * d), d, freedom))
    return Finding("prompts", "mean of embeddings", distance, "sd", nan, nan, 0.1, p_value)


def _classifier(old: NDArray[np.float32], new: NDArray[np.float32]) -> Finding | None:
    """Can a classifier tell recent prompts from old ones (Lopez-Paz & Oquab, 2017)?

    Fitted on one half, judged on the other, so that the test is exact; the size is AUC − 0.5. Its
    features are the places and their squares, so that a new topic off the mean is seen, too.
    """
    if min(len(old), len(new)) < 2 * LEAST:
        return None
    rng = np.random.default_rng(0)
    a, b = rng.permutation(len(old)), rng.permutation(len(new))
    x = np.concatenate([old, new]).astype(np.float64)
    x = np.hstack([x, x**2])
    y = np.repeat([0, 1], [len(old), len(new)])
    half = np.concatenate([a[: len(a) // 2], len(old) + b[: len(b) // 2]])
    rest = np.setdiff1d(np.arange(len(y)), half)
    x = (x - x[half].mean(axis=0)) / np.maximum(x[half].std(axis=0), 1e-9)
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=300)
    margin = model.fit(x[half], y[half]).decision_function(x[rest])
    ones, zeros = margin[y[rest] == 1], margin[y[rest] == 0]
    test = stats.mannwhitneyu(ones, zeros, alternative="greater")
    auc = float(test.statistic) / (len(ones) * len(zeros))
    error = _auc_error(auc, len(ones), len(zeros))
    limits = (auc - 1.96 * error - 0.5, auc + 1.96 * error - 0.5)
    name = "told apart by a classifier"
    return Finding("prompts", name, auc - 0.5, "AUC", *limits, 0.02, float(test.pvalue))


def _auc_error(auc: float, ones: int, zeros: int) -> float:
    """Standard error of an AUC (Hanley & McNeil, 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (ones - 1) * (q1 - auc**2) + (zeros - 1) * (q2 - auc**2)
    return sqrt(max(variance, 0.0) / (ones * zeros))


def _probabilities(old: Floats, new: Floats, name: str) -> Finding | None:
    """Kolmogorov–Smirnov; the size is the population stability index over deciles."""
    if min(len(old), len(new)) < LEAST or np.ptp(old) == 0:
        return None
    edges = np.unique(np.quantile(old, np.arange(1, BINS) / BINS))
    was, now = (
        (np.bincount(np.searchsorted(edges, p), minlength=len(edges) + 1) + 0.5) / (len(p) + 0.5)
        for p in (old, new)
    )
    index = float(((now - was) * np.log(now / was)).sum())
    p_value = float(stats.ks_2samp(old, new).pvalue)
    what = f"P of {name}, mean {old.mean():.3f} → {new.mean():.3f}"
    return Finding("probabilities", what, index, "PSI", nan, nan, 0.05, p_value)


def _scores(kind: str, name: str, old: Floats, new: Floats) -> Finding | None:
    """Student's or Welch's test of two means, of rows where both are known: the more careful one.

    Where a tier hardly ever fails, 120 recent rows may hold no failure, and Welch's takes their
    mean for certain; where they hold a few by chance, Student's takes them for as many as before.
    """
    old, new = old[~np.isnan(old)], new[~np.isnan(new)]
    if min(len(old), len(new)) < LEAST or np.ptp(np.concatenate([old, new])) == 0:
        return None
    with warnings.catch_warnings():  # of scores that are all alike, as where nothing failed
        warnings.simplefilter("ignore", RuntimeWarning)
        tests = [stats.ttest_ind(new, old, equal_var=equal) for equal in (True, False)]
    careful = min(tests, key=lambda test: abs(test.statistic))
    low, high = map(float, careful.confidence_interval(0.95))
    size = float(new.mean() - old.mean())
    return Finding(kind, name, size, "of score", low, high, 0.02, float(careful.pvalue))


def _mix(old: NDArray[np.int64], new: NDArray[np.int64], names: Sequence[str]) -> Finding | None:
    """χ² of the router's choices; the size is the largest change of a share."""
    counts = np.stack([np.bincount(part, minlength=len(names)) for part in (old, new)])
    if min(len(old), len(new)) < LEAST:
        return None
    used = counts[:, counts.sum(axis=0) > 0]
    shares = counts / counts.sum(axis=1, keepdims=True)
    change = shares[1] - shares[0]
    most = int(np.abs(change).argmax())
    p_value = float(stats.chi2_contingency(used).pvalue) if used.shape[1] > 1 else 1.0
    name = f"share sent to {names[most]}"
    return Finding("mix", name, float(change[most]), "of traffic", nan, nan, 0.03, p_value)


def _cost(old: Floats, new: Floats) -> Finding | None:
    """Mann–Whitney of costs per call; the size is the relative change of the mean."""
    if min(len(old), len(new)) < LEAST or old.mean() <= 0:
        return None
    p_value = float(stats.mannwhitneyu(new, old).pvalue)
    size = float(new.mean() / old.mean() - 1)
    return Finding("cost", "per call as routed", size, "of the mean", nan, nan, 0.05, p_value)


def _corrected(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Holm's p-values, in the order of the tests."""
    order = np.argsort([one.p_value for one in found], kind="stable")
    corrected, largest = list(found), 0.0
    for rank, j in enumerate(order):
        largest = max(largest, min(1.0, (len(found) - rank) * found[j].p_value))
        corrected[j] = replace(found[j], p_value=largest)
    return tuple(corrected)
