"""What each member of the heads adds, beside the others, on margins of rows it did not learn from.

The members are weighed again without the one in question, so what it adds is what would be lost,
not what it can do alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from router.head import MEMBERS, Constant, Head
from router.predictor import Predictor
from router.prompt import Prompt
from training.learn.blending import blend_members
from training.learn.heads import FittedHeads
from training.measure.curve import policy_walk
from training.measure.intervals import Estimator, Interval, bootstrap, flat_intervals
from training.measure.metrics import curve_metrics

Floats = NDArray[np.float64]
RESAMPLES = 400
_ALL = "all"


@dataclass(frozen=True, slots=True)
class Worth:
    """What one member adds.

    Attributes:
        name: of the member.
        nats: by how much the mean cross-entropy of an outcome falls, in thousandths.
        apgr: by how much the area under the recovered share of the gap rises, over cost; None where
            no request was answered by every tier, or the tiers hardly differ (in too many resamples
            the top one is not better, and there is no gap to recover).
    """

    name: str
    nats: Interval
    apgr: Interval | None

    def describe(self) -> str:
        """In words."""
        told = f"{self.name} adds {_words(self.nats, 1)} thousandths of a nat of log-likelihood"
        return told if self.apgr is None else f"{told}, and {_words(self.apgr, 4)} of APGR"


def worth(
    heads: FittedHeads,
    score: Floats,
    weight: Floats,
    firm: NDArray[np.bool_],
    usd: Floats,
    sessions: NDArray[np.int64],
) -> tuple[Worth, ...]:
    """Weigh every member against the others.

    Args:
        heads: fitted on n rows.
        score, weight: float64[n, k] of these rows; NaN where a tier was not observed.
        firm: bool[n, k], scores that are trusted.
        usd: float64[m, k], expected costs of the rows `heads.whole`.
        sessions: int64[n], resampled whole.
    """
    learned = [k for k, head in enumerate(heads.heads) if isinstance(head, Head)]
    taught = score[:, learned], weight[:, learned], firm[:, learned]
    rows = np.flatnonzero(heads.whole)
    score, weight, sessions = score[rows], weight[rows], sessions[rows]
    seen = ~np.isnan(score[:, learned])
    paired = np.flatnonzero(~np.isnan(score).any(axis=1))
    if len(np.unique(sessions)) < 2:
        return ()
    losses: dict[str, Estimator] = {}
    curves: dict[str, Estimator] = {}
    names = MEMBERS[: len(heads.margins)]
    for left_out in (_ALL, *names):
        kept = [m for m, name in enumerate(names) if name != left_out]
        _, combined, _ = blend_members(heads.margins[kept], *taught, kept)
        p = expit(combined[rows])
        losses[left_out] = _loss(p, score[:, learned], weight[:, learned] * seen)
        whole = np.empty_like(score)
        for k, head in enumerate(heads.heads):
            whole[:, k] = head.probability if isinstance(head, Constant) else 0.0
        whole[:, learned] = p
        if len(paired) > 1:
            walk = policy_walk(whole[paired], usd[paired])
            curves[left_out] = curve_metrics(walk, score[paired], usd[paired])
    lost = bootstrap(losses, len(rows), groups=sessions, resamples=RESAMPLES)
    together = len(np.unique(sessions[paired])) > 1
    curve = (
        bootstrap(curves, len(paired), groups=sessions[paired], resamples=RESAMPLES)
        if curves and together
        else None
    )
    found = []
    for name in names:
        gain = None if curve is None else curve.difference("apgr_cost", _ALL, name)
        known = gain is not None and np.isfinite([gain.value, gain.low, gain.high]).all()
        found.append(Worth(name, lost.difference("loss", name, _ALL), gain if known else None))
    return tuple(found)


def microseconds(predictor: Predictor, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Median microseconds that each member takes on a prompt, without the features all share."""
    vectorizer, panel = predictor.vectorizer, predictor.panel
    if panel is None:
        return {}
    taken: dict[str, list[float]] = {name: [] for name in MEMBERS[: len(predictor.blend.level)]}
    for prompt in prompts:
        vector = vectorizer.vector(prompt)
        calls = {
            "linear": lambda v=vector: panel.linear_margins(v),
            "forest": lambda v=vector: panel.forest_margins(v.dense),
            "neighbours": lambda v=vector: predictor.neighbours.margins(v.dense),
            "encoder": lambda p=prompt: vectorizer.read(p),
        }
        for name, times in taken.items():
            started = perf_counter()
            calls[name]()
            times.append(perf_counter() - started)
    return {name: 1e6 * float(np.median(times)) for name, times in taken.items()}


def as_metrics(members: Sequence[Worth]) -> dict[str, float]:
    """For a tracker."""
    groups = {
        f"members.{one.name}": {"nats": one.nats} | ({} if one.apgr is None else {"apgr": one.apgr})
        for one in members
    }
    return flat_intervals(groups)


def _loss(p: Floats, score: Floats, weight: Floats) -> Estimator:
    """Mean cross-entropy of an observed outcome, in thousandths of a nat."""
    known = np.nan_to_num(score)
    safe = np.clip(p, 1e-9, 1 - 1e-9)
    each = -(known * np.log(safe) + (1 - known) * np.log1p(-safe)) * weight

    def estimate(rounds: Floats) -> dict[str, Floats]:
        return {"loss": 1000 * (rounds @ each.sum(axis=1)) / (rounds @ weight.sum(axis=1))}

    return estimate


def _words(interval: Interval, digits: int) -> str:
    return f"{interval.value:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
