"""Evidence: what choose rows know, enough to choose an operating point again; no text, no ids.

It is kept in the MLflow run of a job as ``evidence/evidence.npz`` (never in the artifact), together
with what the fit rows say of the order in which to try operating points.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy
from router.predictor import Predictor
from router.tier import Tier
from training.errors import BadInput
from training.files import write_arrays
from training.label.rule import LabelRule
from training.learn.costs import account, expected_tokens, priced, used_tokens
from training.learn.members import Matrix
from training.learn.stages import Pace, Stages
from training.log.requests import Requests
from training.measure.overlap import certifiable
from training.measure.world import logged

Floats = NDArray[np.float64]
FILE = "evidence.npz"


@dataclass(frozen=True, slots=True)
class Evidence:
    """n choose rows and k tiers.

    Attributes:
        p: float64[n, k], P(tier suffices); with `stages` by the first.
        usd: float64[n, k], expected cost.
        paid: float64[n, k], cost in the account.
        score: float64[n, k]; of one-sided rows doubly robust pseudo-outcomes
            (`measure.offpolicy`).
        session: int64[n].
        units: int64[partitions, n], independent units (see `training.learn.splits.independent`);
            None: sessions.
        sufficed: bool[n, k] by the label rule; None on one-sided rows, where no two tiers are
            seen together.
        low, high: range of a score: 0 and 1 unless it is a pseudo-outcome.
        expected: float64[n, k, 2], input and output tokens expected before the call, or None.
        used: float64[n, k, 2], tokens of the account, or None.
        stages: what a second stage says; None where there is one only.
    """

    p: Floats
    usd: Floats
    paid: Floats
    score: Floats
    session: NDArray[np.int64]
    sufficed: NDArray[np.bool_] | None = None
    low: float = 0.0
    high: float = 1.0
    expected: Floats | None = None
    used: Floats | None = None
    stages: Stages | None = None
    units: NDArray[np.int64] | None = None

    @property
    def partitions(self) -> NDArray[np.int64]:
        """int64[partitions, n], what is independent of everything else."""
        return self.session[None] if self.units is None else self.units

    @property
    def views(self) -> "tuple[Evidence, ...]":
        """This evidence once for each partition, with that one alone."""
        return tuple(replace(self, units=unit[None]) for unit in self.partitions)

    def tiers(self, policy: Policy) -> NDArray[np.int64]:
        """The tier that a policy sends each row to, int64[n]; by both stages if there are two."""
        return policy.choose(self.served(policy), self.usd)

    def served(self, policy: Policy) -> Floats:
        """P(tier suffices) as it is served under a policy, float64[n, k]."""
        return served(self.p, self.usd, self.stages, policy)

    def stage_facts(self, policy: Policy, pace: Pace) -> dict[str, float] | None:
        """What the gate does on these rows under a policy; None without rows or a second stage."""
        if self.stages is None or not len(self.p):
            return None
        asked = np.zeros(len(self.p), dtype=np.bool_)
        if policy.constant is None:
            asked = self.stages.asked(self.p, self.usd, policy.mu)
        return pace.facts(asked, self.stages.tokens)

    def gap_range(self, share: Floats) -> tuple[Floats, Floats]:
        """Least and largest score[i, a] − share · score[i, b] of any tiers a and b, share ≤ 2.

        Only the pseudo-outcome of the tier that answered lies outside [0, 1]
        (`measure.offpolicy.largest_weight`), so the range is half of what two that vary
        independently would need.
        """
        low = np.minimum(self.low - share, -share * self.high)
        high = np.maximum(self.high, 1.0 - share * self.low)
        return low, high

    def repriced(self, old: Sequence[Tier], new: Sequence[Tier]) -> "Evidence":
        """The same rows at other prices; a bill changes as its tokens' price does."""
        assert self.expected is not None and self.used is not None
        before, after = priced(self.used, old), priced(self.used, new)
        with np.errstate(divide="ignore", invalid="ignore"):
            paid = np.where(before > 0, self.paid * (after / before), after)
        return replace(self, usd=priced(self.expected, new), paid=paid)


@dataclass(frozen=True, slots=True)
class Basis:
    """What m fit rows say of the tiers before any outcome of a choose row is seen.

    Attributes:
        p: float64[m, k], cross-fitted probabilities.
        tokens: float64[m, k, 2], expected input and output tokens.
        stages: what a second stage says, cross-fitted; None where there is one only.
    """

    p: Floats
    tokens: Floats
    stages: Stages | None = None


def served(p: Floats, usd: Floats, stages: Stages | None, policy: Policy) -> Floats:
    """P(tier suffices) under a policy, float64[n, k]; of two stages by the second where asked."""
    if stages is None or policy.constant is not None:
        return p
    return stages.mixed(p, usd, policy.mu)


def gather_evidence(
    p: Floats,
    x: Matrix,
    requests: Requests,
    units: NDArray[np.int64],
    predictor: Predictor,
    rule: LabelRule,
    paired: bool,
    stages: Stages | None,
) -> tuple[Evidence, tuple[str, ...]]:
    """What n choose rows tell, and what a one-sided log never tried, in words.

    Args:
        p: float64[n, k], P(tier suffices).
        x: vectors of the rows.
        requests: the rows.
        units: int64[partitions, n], see `training.learn.splits.independent`.
        predictor: its tiers and their token models.
        rule: what counts as sufficing.
        paired: every tier's score is known on the rows; else they count by doubly robust scores.
        stages: what a second stage says of the rows; None where there is one only.

    Raises:
        BadInput: see `training.measure.overlap.certifiable`.
    """
    models, tiers = predictor.tokens, predictor.tiers
    tokens = expected_tokens(x, models)
    evidence = Evidence(
        p=p,
        usd=priced(tokens, tiers),
        paid=account(x, requests, models, tiers),
        score=requests.score,
        session=requests.sessions,
        expected=tokens,
        used=used_tokens(x, requests, models),
        stages=stages,
        units=units,
    )
    if paired:
        return replace(evidence, sufficed=rule.sufficed(requests.score)), ()
    found = certifiable(logged(requests), p, tuple(tier.name for tier in tiers))
    evidence = replace(evidence, score=found.score, low=found.low, high=found.high)
    return evidence, found.notes


def save_evidence(path: Path, evidence: Evidence, basis: Basis) -> str:
    """Write both without pickle; returns the file's sha256, by which the run is found again."""
    arrays = {
        name: np.asarray(value)
        for name in Evidence.__dataclass_fields__
        if (value := getattr(evidence, name)) is not None and name != "stages"
    }
    arrays |= {"fit.p": basis.p, "fit.tokens": basis.tokens}
    for prefix, stages in (("stages.", evidence.stages), ("fit.stages.", basis.stages)):
        if stages is not None:
            arrays |= {f"{prefix}{n}": getattr(stages, n) for n in Stages.__dataclass_fields__}
    buffer = io.BytesIO()
    write_arrays(buffer, arrays, packed=True)
    path.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def load_evidence(path: Path, sha256: str) -> tuple[Evidence, Basis]:
    """Read what `save_evidence` wrote.

    Raises:
        BadInput: it is another file than the one with this sha256.
    """
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise BadInput(f"{path}: not the evidence of this artifact (its sha256 differs)")
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in Evidence.__dataclass_fields__ if name in arrays}
        basis = Basis(arrays["fit.p"], arrays["fit.tokens"], _stages(arrays, "fit.stages."))
        found["stages"] = _stages(arrays, "stages.")
    found |= {name: float(found[name]) for name in ("low", "high")}
    return Evidence(**found), basis


def _stages(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Stages | None:
    if f"{prefix}p" not in arrays:
        return None
    return Stages(**{name: arrays[prefix + name] for name in Stages.__dataclass_fields__})
