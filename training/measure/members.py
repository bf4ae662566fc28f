"""What each member of the heads adds to the others, by margins of rows that it did not learn from.

The members are weighed again without the one in question, so what it adds is what would be lost,
not what it can do alone.
"""

from collections.abc import Mapping, Sequence
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
from training.measure.intervals import Bootstrap, Estimator, Interval, bootstrap, flat_intervals
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
        apgr: by how much APGR by cost (`measure.metrics`) rises; None where too few requests were
            answered by every tier, or the tiers hardly differ (in too many resamples the top one
            is not better, and there is no gap to recover).
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
    names = MEMBERS[: len(heads.margins)]
    learned = _learned(heads)
    rows = np.flatnonzero(heads.whole)
    group = sessions[rows]
    if len(np.unique(group)) < 2:
        return ()
    blends = {
        left_out: _probabilities(heads, score, weight, firm, left_out)[rows]
        for left_out in (_ALL, *names)
    }
    seen, counted = score[rows][:, learned], weight[rows][:, learned]
    losses = {name: _loss(p[:, learned], seen, counted) for name, p in blends.items()}
    lost = bootstrap(losses, len(rows), groups=group, resamples=RESAMPLES)
    curve = _curves(blends, score[rows], usd, group)
    found = []
    for name in names:
        gain = None if curve is None else curve.difference("apgr_cost", _ALL, name)
        known = gain is not None and np.isfinite([gain.value, gain.low, gain.high]).all()
        found.append(Worth(name, lost.difference("loss", name, _ALL), gain if known else None))
    return tuple(found)


def _probabilities(
    heads: FittedHeads, score: Floats, weight: Floats, firm: NDArray[np.bool_], left_out: str
) -> Floats:
    """P(tier suffices) of the n rows if the members are weighed without one, float64[n, k]."""
    learned = _learned(heads)
    kept = [m for m in range(len(heads.margins)) if MEMBERS[m] != left_out]
    taught = score[:, learned], weight[:, learned], firm[:, learned]
    _, combined, _ = blend_members(heads.margins[kept], *taught, kept)
    constants = [head.probability if isinstance(head, Constant) else 0.0 for head in heads.heads]
    p = np.tile(constants, (len(combined), 1))
    p[:, learned] = expit(combined)
    return p


def _learned(heads: FittedHeads) -> list[int]:
    """The tiers whose heads have members; those of the others are constants."""
    return [k for k, head in enumerate(heads.heads) if isinstance(head, Head)]


def _curves(
    blends: Mapping[str, Floats], score: Floats, usd: Floats, sessions: NDArray[np.int64]
) -> Bootstrap | None:
    """Metrics of each blend's curve; None where fewer than two independent rows are paired."""
    paired = np.flatnonzero(~np.isnan(score).any(axis=1))
    score, usd, sessions = score[paired], usd[paired], sessions[paired]
    if len(np.unique(sessions)) < 2:
        return None
    curves = {
        name: curve_metrics(policy_walk(p[paired], usd), score, usd) for name, p in blends.items()
    }
    return bootstrap(curves, len(paired), groups=sessions, resamples=RESAMPLES)


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
    """Mean cross-entropy of outcomes in thousandths of a nat; float64[m, tiers] each."""
    known = np.nan_to_num(score)
    weight = np.where(np.isnan(score), 0.0, weight)
    safe = np.clip(p, 1e-9, 1 - 1e-9)
    each = -(known * np.log(safe) + (1 - known) * np.log1p(-safe)) * weight

    def estimate(rounds: Floats) -> dict[str, Floats]:
        return {"loss": 1000 * (rounds @ each.sum(axis=1)) / (rounds @ weight.sum(axis=1))}

    return estimate


def _words(interval: Interval, digits: int) -> str:
    return f"{interval.value:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
