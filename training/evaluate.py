"""Using an artifact on a traffic table: scores for every request, a report on labelled ones."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from router.artifact import load_artifact
from training.console import step
from training.files import check_file, check_folder, whole, write_json
from training.learn.vectorize import estimate
from training.log.fingerprint import fingerprint
from training.log.requests import prompts_of
from training.log.traffic import read_traffic
from training.measure.report import Report
from training.measure.subject import Subject, measure_paired, prepare, value_one_sided
from training.measure.valuation import Valuation
from training.show.pictures import save_plots
from training.tracking import ARTIFACT_TAG, NOTHING, log_run


def score(artifact_path: Path, traffic: Path, out: Path) -> int:
    """Write one row per request: p_suffices__<tier>, expected_cost_usd__<tier>, tier.

    Returns:
        The number of requests.

    Raises:
        BadInput: the traffic cannot be read, or `out` cannot be written.
        ArtifactError: the artifact is refused.
    """
    check_file(out, artifact_path, traffic)
    artifact = load_artifact(artifact_path)
    requests = read_traffic(traffic, answered=False).frame.drop_duplicates("request_id")
    estimates = estimate(artifact.predictor, prompts_of(requests))
    names = [tier.name for tier in artifact.predictor.tiers]
    columns = {"request_id": requests["request_id"].to_numpy()}
    columns |= {f"p_suffices__{name}": estimates.p[:, k] for k, name in enumerate(names)}
    columns |= {f"expected_cost_usd__{name}": estimates.usd[:, k] for k, name in enumerate(names)}
    chosen = artifact.policy.choose(estimates.p, estimates.usd)
    columns["tier"] = np.array(names, dtype=object)[chosen]
    with whole(out) as beside:
        pd.DataFrame(columns).to_parquet(beside, index=False)
    return len(requests)


def evaluate(
    artifact_path: Path,
    traffic: Path,
    report_json: Path | None,
    plots: Path | None,
    estimate: bool = False,
    tell: Callable[[Report | Valuation, int], None] = lambda *_: None,
) -> tuple[Report | Valuation, int]:
    """Measure an artifact, write what is asked for, and log the run.

    What is measured depends on the world (`training.measure.world`): a report where every tier's
    score is known, else a valuation estimated from one-sided requests.

    Args:
        artifact_path: whose decisions are measured.
        traffic: the table; requests that the artifact was fitted on are left out.
        report_json: file to write.
        plots: folder for the figures.
        estimate: estimate propensities that the log does not hold; every output then says so.
        tell: called with what is returned, before the run is logged.

    Returns:
        The report or valuation, and how many requests were left out as the artifact knows them.

    Raises:
        BadInput: too few requests of either world, or a policy that goes where its tier was never
            tried; the message names the exploration needed.
        ArtifactError: the artifact is refused.
        EnvironmentProblem: MLflow refused the run (the files asked for are in place).
    """
    if report_json is not None:
        check_file(report_json, artifact_path, traffic)
    if plots is not None:
        check_folder(plots)
    with step("evaluate"):
        subject = prepare(artifact_path, traffic, estimate)
        measured = measure_paired(subject) if subject.world.paired else value_one_sided(subject)
    report = measured.report
    if report_json is not None:
        about = {"artifact": subject.artifact.version, "left_out": subject.left_out}
        write_json(report_json, about | report.as_json())
    tell(report, subject.left_out)
    with step("MLflow run"):
        _track(subject, report, report_json, plots)
    return report, subject.left_out


def _track(
    subject: Subject, report: Report | Valuation, report_json: Path | None, plots: Path | None
) -> None:
    """Draw the figures, copied into `plots` where asked for, and log the evaluation as a run."""
    artifact = subject.artifact
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "report"
        kept.mkdir()
        write_json(kept / "report.json", report.as_json())
        drawn = Path(scratch) / "plots"
        drawn.mkdir()
        for picture in save_plots(report, drawn):
            if plots is not None:  # one file at a time: the folder may hold others
                plots.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(picture, plots / picture.name)
        written = ", ".join(str(place) for place in (report_json, plots) if place is not None)
        folders = {"artifact": artifact.path, "report": kept, "plots": drawn}
        safe = f"written: {written}" if written else NOTHING
        log_measured("evaluate", subject, report, folders, safe)


def log_measured(
    kind: str,
    subject: Subject,
    report: Report | Valuation,
    folders: Mapping[str, Path],
    safe: str,
) -> str:
    """Log an artifact's measurement as a run; returns the run's id.

    Args:
        kind: first word of the run's name.
        subject: what was measured.
        report: what came of it.
        folders: files to keep, see `training.tracking.log_run`.
        safe: what is told to be in place if MLflow refuses the run.

    Raises:
        EnvironmentProblem: MLflow refused the run.
    """
    version, trained = subject.artifact.version, subject.artifact.manifest["training"]
    parameters = {
        "artifact": version,
        "world": subject.world.name,
        "rows": report.rows,
        "embedder": trained["embedder"],
    }
    tags = {
        ARTIFACT_TAG: version,
        "suffice.fingerprint": fingerprint(subject.used),
        "suffice.trained_on": trained["fingerprint"],
    }
    return log_run(f"{kind} {version}", parameters, report.flat(), tags, folders, safe)[0]
