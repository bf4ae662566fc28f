"""`suffice drift`: does recent traffic still look, and fare, like what the router learned from?

Samples are tested (`watch.two_sample`); prices and models are read off the log. What is significant
but too small to matter is told, and is no reason to retrain.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from router.artifact import read_artifact
from router.tier import Tier
from training.console import render
from training.errors import BadInput
from training.label.rule import LabelRule
from training.learn.seen import known_ids
from training.learn.vectorize import estimates_of, vectorize
from training.log.models import plain_model
from training.log.requests import by_time, gather, of_tiers, tier_index
from training.log.traffic import TrafficTable, read_traffic
from training.measure.world import like_traffic
from training.watch.baseline import Sample, fetch_baseline, sample
from training.watch.two_sample import LEAST, RISK, Finding, compare

PRICED = 0.02  # relative gap between bills and the artifact's prices that means another price


@dataclass(frozen=True, slots=True)
class Drift:
    """What drifted: tests of `recent` requests against `reference` ones, then facts of the log."""

    reference: int
    recent: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def due(self) -> bool:
        """Whether retraining is due."""
        return any(found.due for found in self.findings)

    def as_json(self) -> dict[str, Any]:
        """For a machine; what does not exist is null."""

        def known(value: Any) -> Any:
            return None if isinstance(value, float) and isnan(value) else value

        rows = [
            {name: known(value) for name, value in asdict(found).items()} | {"due": found.due}
            for found in self.findings
        ]
        told = {"retrain": self.due, "reference_rows": self.reference, "recent_rows": self.recent}
        return told | {"findings": rows, "notes": list(self.notes)}

    def as_text(self) -> list[str]:
        """For a terminal."""
        title = f"{self.recent} recent requests against {self.reference} of training"
        table = Table(title=f"{title}, one of each session")
        for column in ("what", "change", "95 %", "p, corrected", ""):
            table.add_column(column, justify="left" if column in ("what", "") else "right")
        for found in self.findings:
            limits = "" if isnan(found.low) else f"{found.low:+.3f} to {found.high:+.3f}"
            said = "retrain" if found.due else "shown, small" if found.p_value < RISK else ""
            size = f"{found.size:+.3f} {found.unit}"
            table.add_row(f"{found.kind}: {found.name}", size, limits, f"{found.p_value:.3g}", said)
        return [render(table), *self.notes, "retraining is due" if self.due else "nothing is due"]


def drift(artifact_path: Path, traffic: Path) -> Drift:
    """Compare recent traffic with what an artifact was trained on.

    Requests that it was fitted or chosen on are left out: of these its heads are surer than of any
    others, which would look like drift.

    Raises:
        BadInput: too little traffic, or the baseline is lost.
        ArtifactError: the artifact is refused.
        EnvironmentProblem: MLflow cannot be reached.
    """
    artifact, arrays = read_artifact(artifact_path)
    predictor, rule = artifact.predictor, LabelRule(**artifact.manifest["label"])
    reference = fetch_baseline(artifact)
    table = read_traffic(traffic)
    frame, left_out = of_tiers(table.frame, predictor.tiers)
    table = replace(table, frame=frame)
    requests = rule.apply(gather(by_time(table.frame), predictor.tiers))
    standing = like_traffic(requests, np.ones(len(requests), bool))
    known = standing & known_ids(arrays, requests)
    requests = requests.take(np.flatnonzero(standing & ~known))
    told = f"{known.sum()} requests left out: the artifact was fitted or chosen on them"
    if (independent := len(np.unique(requests.sessions))) < LEAST:
        more = f" ({told})" if known.any() else ""
        raise BadInput(
            f"{traffic}: {independent} requests, one of each session; at least {LEAST} are "
            f"needed{more}"
        )
    prompts = list(requests.prompts)
    x = vectorize(predictor.vectorizer, prompts)
    estimates = estimates_of(predictor, x, prompts)
    tier = artifact.policy.choose(estimates.p, estimates.usd)
    recent = sample(requests, x, estimates.p, tier, predictor)
    findings = compare(reference, recent, [one.name for one in predictor.tiers])
    facts = (*_prices(table, predictor.tiers), *_models(table, predictor.tiers))
    unlabelled = int(np.isnan(recent.score).all(axis=1).sum())
    notes = (told,) * bool(known.any())
    notes += (f"{unlabelled} recent requests carry no score",) * bool(unlabelled)
    notes += _not_compared(reference)
    return Drift(len(reference), len(recent), (*findings, *facts), (*left_out, *notes))


def _not_compared(reference: Sample) -> tuple[str, ...]:
    """What the training holds too few requests for, one of each session."""
    parts = (
        ("prompts are", reference.unfitted, "were not fitted on"),
        ("probabilities, mix and cost are", reference.decided, "carry the router's choice"),
    )
    return tuple(
        f"{what} not compared: {rows.sum()} requests of training, one of each session, {why}, "
        f"{LEAST} are needed"
        for what, rows, why in parts
        if rows.sum() < LEAST
    )


def _prices(table: TrafficTable, tiers: Sequence[Tier]) -> list[Finding]:
    """Bills against the artifact's prices × logged tokens, by tier: a fact, not a sample."""
    frame = table.frame[table.frame["status"] != "error"]
    known = frame[["cost_usd", "input_tokens", "output_tokens"]].notna().all(axis=1)
    frame = frame[known].reset_index(drop=True)
    if frame.empty:
        return []
    at = tier_index(frame, tiers)
    found = []
    for k, tier in enumerate(tiers):
        rows = frame[at == k]
        priced = (
            rows["input_tokens"] * tier.input_usd_per_mtok
            + rows["output_tokens"] * tier.output_usd_per_mtok
        ) / 1e6
        rows, priced = rows[priced > 0], priced[priced > 0]
        if len(rows) < LEAST:
            continue
        ratio = (rows["cost_usd"] / priced).to_numpy(dtype=np.float64)
        size = float(np.median(ratio)) - 1
        shown = 0.0 if abs(size) >= PRICED else 1.0
        what = f"bills of {tier.name} over list price"
        found.append(Finding("prices", what, size, "of the price", nan, nan, PRICED, shown))
    return found


def _models(table: TrafficTable, tiers: Sequence[Tier]) -> list[Finding]:
    """Models that answer for a tier but are not the one it was trained as."""
    frame = table.frame[table.frame["model"].notna()].reset_index(drop=True)
    if frame.empty:
        return []
    at, found = tier_index(frame, tiers), []
    for k, tier in enumerate(tiers):
        seen = frame["model"][at == k]
        if seen.empty:
            continue
        other = seen[seen.map(plain_model) != plain_model(tier.model)]
        share, named = len(other) / len(seen), ", ".join(sorted(set(other))[:3])
        what = f"{tier.name} answered by {named}" if named else f"{tier.name} is {tier.model}"
        shown = 0.0 if share > 0 else 1.0
        found.append(Finding("models", what, share, "of its calls", nan, nan, 1e-9, shown))
    return found
