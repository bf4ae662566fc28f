"""Using an artifact on a traffic table: scores for every request, a report on labelled ones."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from router.artifact import Artifact, load_artifact, read_artifact
from router.predictor import Estimates, Predictor
from router.prompt import Prompt
from router.vectorizer import SURFACE
from training import baselines
from training.costs import account
from training.errors import BadInput
from training.export import id_hashes
from training.labels import LabelRule, labelled_requests
from training.members import Matrix
from training.report import Report, Rows, build_report, save_json, save_plots
from training.requests import Requests, fingerprint
from training.tracking import log_run
from training.traffic import TrafficTable, read_traffic
from training.vectorize import vectorize

FOLDS = 5
MIN_ROWS = 20


def score(artifact_path: Path, traffic: Path, out: Path) -> int:
    """Write one row per request: p_suffices__<tier>, expected_cost_usd__<tier>, tier.

    Returns:
        The number of requests.

    Raises:
        BadInput: the traffic cannot be read.
        ArtifactError: the artifact is refused.
    """
    artifact = load_artifact(artifact_path)
    requests = read_traffic(traffic).frame.drop_duplicates("request_id")
    prompts = [Prompt.of(json.loads(text)) for text in requests["messages"]]
    estimates = artifact.predictor.estimate(prompts)
    names = [tier.name for tier in artifact.predictor.tiers]
    columns = {"request_id": requests["request_id"].to_numpy()}
    columns |= {f"p_suffices__{name}": estimates.p[:, k] for k, name in enumerate(names)}
    columns |= {f"expected_cost_usd__{name}": estimates.usd[:, k] for k, name in enumerate(names)}
    chosen = artifact.policy.choose(estimates.p, estimates.usd)
    columns["tier"] = np.array(names, dtype=object)[chosen]
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.part")
    pd.DataFrame(columns).to_parquet(beside, index=False)
    beside.replace(out)
    return len(requests)


@dataclass(frozen=True, slots=True)
class Measured:
    """An artifact measured on traffic: the report, and what it was made from.

    Attributes:
        artifact: whose decisions they are.
        table: the whole traffic table.
        requests: its labelled requests.
        usable: int64[n], those of them that the report is about.
        x: their vectors.
        rows: their outcomes and estimates.
        report: made from the rows.
        left_out: requests that the artifact was fitted on.
    """

    artifact: Artifact
    table: TrafficTable
    requests: Requests
    usable: NDArray[np.int64]
    x: Matrix
    rows: Rows
    report: Report
    left_out: int


def measure(artifact_path: Path, traffic: Path) -> Measured:
    """Measure an artifact on the labelled requests it was neither fitted nor chosen on.

    Baselines that learn are cross-fitted on the rows given: they see this very traffic.

    Raises:
        BadInput: too few requests on which every tier's score is known.
        ArtifactError: the artifact is refused.
    """
    artifact, arrays = read_artifact(artifact_path)
    predictor, rule = artifact.predictor, LabelRule(**artifact.manifest["label"])
    table = read_traffic(traffic)
    labelled, notes = labelled_requests(table, predictor.tiers, rule)
    hashes = id_hashes(labelled.ids)
    known = np.isin(hashes, arrays["fitted"])
    usable = np.flatnonzero(~known & labelled.paired)
    if len(usable) < MIN_ROWS:
        raise BadInput(
            f"{traffic}: {len(usable)} requests with every tier's score that the artifact was not "
            f"fitted on ({int(known.sum())} it was), {MIN_ROWS} are needed: give newer traffic, or "
            "replay some requests on the tiers that did not answer"
        )
    requests = labelled.take(usable)
    x = vectorize(predictor.vectorizer, list(requests.prompts))
    estimates = _estimate(predictor, x)
    paid = account(x, requests, predictor.tokens, predictor.tiers)
    others = _cross_fitted(x.dense[:, SURFACE:], requests.score)
    surface = x.dense[:, :SURFACE]
    rows = Rows.of(predictor.tiers, estimates, paid, requests, rule, others, surface)
    report = build_report(rows, artifact.policy, (*notes, *rule.warnings()))
    return Measured(artifact, table, labelled, usable, x, rows, report, int(known.sum()))


def evaluate(
    artifact_path: Path, traffic: Path, report_json: Path | None, plots: Path | None
) -> tuple[Report, int]:
    """Measure an artifact (`measure`), write what is asked for, and log the run.

    Returns:
        The report, and how many requests were left out as the artifact knows them.

    Raises:
        BadInput, ArtifactError: see `measure`.
        EnvironmentProblem: MLflow refused the run (the report is in place).
    """
    measured = measure(artifact_path, traffic)
    report, left_out = measured.report, measured.left_out
    if report_json is not None:
        save_json(report, report_json, artifact=measured.artifact.version, left_out=left_out)
    requests = measured.requests.take(measured.usable)
    _track(measured.artifact, requests, report, plots)
    return report, left_out


def _track(artifact: Artifact, requests: Requests, report: Report, plots: Path | None) -> None:
    """Draw the figures, into `plots` where asked for, and log the evaluation as a run."""
    training = artifact.manifest["training"]
    with tempfile.TemporaryDirectory() as scratch:
        folder, told = plots or Path(scratch) / "plots", Path(scratch) / "report"
        for one in (folder, told):
            one.mkdir(parents=True, exist_ok=True)
        save_plots(report, folder)
        save_json(report, told / "report.json")
        log_run(
            f"evaluate {artifact.version}",
            {"artifact": artifact.version, "rows": report.rows, "embedder": training["embedder"]},
            report.flat(),
            {
                "suffice.artifact": artifact.version,
                "suffice.fingerprint": fingerprint(requests),
                "suffice.trained_on": training["fingerprint"],
            },
            {"artifact": artifact.path, "plots": folder, "report": told},
        )


def _estimate(predictor: Predictor, x: Matrix) -> Estimates:
    vectors = list(x.vectors())
    return Estimates(
        p=np.array([predictor.probabilities(vector) for vector in vectors]),
        usd=np.array([predictor.costs(vector) for vector in vectors]),
    )


def _cross_fitted(
    embedding: NDArray[np.float32], score: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Baselines' estimates for rows that their fitting left out, {name: float64[n, k]}."""
    found: dict[str, NDArray[np.float64]] = {}
    for fit, asked in KFold(FOLDS, shuffle=True, random_state=0).split(embedding):
        fold = baselines.estimates(embedding[fit], score[fit], embedding[asked])
        for name, estimates in fold.items():
            found.setdefault(name, np.empty_like(score))[asked] = estimates
    return found
