"""What is written down of a job: the manifest's facts, and the MLflow run."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from router.artifact import Artifact
from training.decide.evidence import FILE
from training.decide.goals import goal_as_dict
from training.decide.settled import Settled
from training.files import write_json
from training.label.rule import LabelRule
from training.learn.splits import Splits
from training.log.fingerprint import fingerprint
from training.log.requests import Requests
from training.measure.report import Report
from training.measure.valuation import Valuation
from training.show.card import describe_policy
from training.show.pictures import save_plots
from training.tracking import ARTIFACT_TAG, EVIDENCE_TAG, log_run

LIBRARIES = ("numpy", "tokenizers", "lightgbm", "scikit-learn", "pandas", "mlflow")


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a job was called: the embedder's name as given, the seed, and when it started."""

    embedder: str
    seed: int
    started: datetime


def describe_job(
    requests: Requests,
    splits: Splits,
    rule: LabelRule,
    provenance: Provenance,
    notes: Sequence[str] = (),
    details: Sequence[str] = (),
    report: Report | Valuation | None = None,
) -> dict[str, Any]:
    """The manifest's part that tells where the artifact comes from.

    Args:
        requests: of the whole log.
        splits: of these.
        rule: what sufficing means.
        provenance: how the job was called.
        notes: what a reader must know.
        details: what only who tunes the heads wants to know; not on the card.
        report: on the test rows, if there is one.
    """
    return {
        **describe_making(provenance.started),
        "label": rule.as_dict(),
        "training": {
            **window_of(requests),
            "rows": splits.sizes,
            "fingerprint": fingerprint(requests),
            "embedder": _named(provenance.embedder),
            "seed": provenance.seed,
            "notes": list(notes),
            "details": list(details),
        },
        "metrics": report.flat() if report else {},
    }


def window_of(requests: Requests) -> dict[str, str | None]:
    """When the first and the last request with a time were made, ISO 8601, UTC."""
    times = requests.at[~np.isnat(requests.at)]
    ends = [str(edge) + "Z" for edge in (times.min(), times.max())] if len(times) else [None, None]
    return dict(zip(("since", "until"), ends, strict=True))


def _named(embedder: str) -> str:
    """The embedder's name, of two stages both names; a folder is only called "custom"."""
    parts = embedder.split("+")
    known = all(part in ("static", "minilm") for part in parts)
    return embedder if known else "custom"


def describe_making(started: datetime | None = None) -> dict[str, Any]:
    """When an artifact is made, and by which versions."""
    at = started or datetime.now(UTC)
    return {
        "suffice_version": version("suffice"),
        "created_at": at.isoformat(timespec="seconds"),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def describe_choice(
    settled: Settled, sha256: str | None, rules: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The manifest's part by which the operating point can be chosen again.

    Args:
        settled: its goal and course are None in artifacts of before 0.2.
        sha256: of evidence.npz, by which its run is found; None where there is none.
        rules: what comes before the model, as the configuration states it.
    """
    return {
        **({} if rules is None else {"rules": rules}),
        "goal": None if settled.goal is None else goal_as_dict(settled.goal),
        "course": None if settled.course is None else settled.course.to_dict(),
        "evidence": sha256,
    }


def track(
    artifact: Artifact,
    evidence: Path | None,
    safe: str,
    report: Report | Valuation | None = None,
    parameters: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> tuple[str, str]:
    """Log an exported artifact as a run; returns the run's id and the store.

    Args:
        artifact: as it was exported.
        evidence: folder that holds evidence.npz.
        safe: what is told to be in place if MLflow refuses the run.
        report: of a training job, for its plots.
        parameters, metrics: further ones.

    Raises:
        EnvironmentProblem: MLflow refused the run.
    """
    facts, policy, tiers = artifact.manifest, artifact.policy, artifact.predictor.tiers
    told = {
        **(parameters or {}),
        **(facts["goal"] or {}),
        "embedder": facts["training"]["embedder"],
        "tiers": ", ".join(f"{tier.name}={tier.model}" for tier in tiers),
        **{f"label.{key}": value for key, value in facts["label"].items()},
        **{f"rows.{key}": value for key, value in facts["training"]["rows"].items()},
    }
    measured = dict(facts["metrics"]) | dict(metrics or {})
    if policy.constant is None:
        measured["policy.mu"] = policy.mu
    measured |= {f"stages.{key}": value for key, value in (facts.get("stages") or {}).items()}
    if policy.promise is not None:
        measured |= {
            "promise.estimate": policy.promise.estimate,
            "promise.bound": policy.promise.bound,
            "promise.certified": float(policy.promise.certified),
        }
    tags = {
        "suffice.version": facts["suffice_version"],
        ARTIFACT_TAG: artifact.version,
        "suffice.fingerprint": facts["training"]["fingerprint"],
        "suffice.policy": describe_policy(policy, tiers),
        "mlflow.note.content": (artifact.path / "CARD.md").read_text(encoding="utf-8"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"artifact": artifact.path}
        if evidence is not None and (evidence / FILE).is_file():
            folders["evidence"] = evidence
            tags[EVIDENCE_TAG] = facts["evidence"]
        if report is not None:
            folders["report"] = Path(scratch) / "report"
            folders["plots"] = Path(scratch) / "plots"
            folders["plots"].mkdir()
            save_plots(report, folders["plots"])
            write_json(folders["report"] / "report.json", report.as_json())
        return log_run(f"suffice {artifact.version}", told, measured, tags, folders, safe)
