"""Using an artifact on a traffic table: scores for every request, a report on labelled ones."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from router.artifact import Artifact, load_artifact, read_artifact
from router.predictor import Estimates, Predictor
from router.vectorizer import SURFACE
from training.console import step
from training.export import id_hashes
from training.files import check_file, check_folder, whole
from training.label.rule import LabelRule, firm_requests, labelled_requests
from training.learn.costs import account, length_notes
from training.learn.members import Matrix
from training.learn.seen import recognise
from training.learn.splits import several_units
from training.learn.stages import Pace, read_tokens, stages_in_words
from training.learn.vectorize import estimate, estimates_of, vectorize
from training.log.requests import Requests, fingerprint, prompts_of
from training.log.traffic import TrafficTable, read_traffic
from training.measure import baselines
from training.measure.pictures import save_plots
from training.measure.propensities import estimate_propensities
from training.measure.report import Report, Rows, build_report, save_json
from training.measure.ruled import Ruled, ruled
from training.measure.valuation import Valuation, value_policies
from training.measure.world import World, logged, pick_world, unseen
from training.tracking import ARTIFACT_TAG, NOTHING, log_run

FOLDS = 5
MIN_ROWS = 20


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


@dataclass(frozen=True, slots=True)
class Valued:
    """An artifact valued on one-sided traffic: the valuation, and what it was made from.

    Attributes:
        report: what policies are worth.
        x: vectors of the subject's used requests.
        estimates: of these.
    """

    report: Valuation
    x: Matrix
    estimates: Estimates


@dataclass(frozen=True, slots=True)
class Subject:
    """An artifact, and what of a traffic table it can be judged by.

    Attributes:
        artifact: whose decisions they are.
        table: the whole traffic table.
        requests: its labelled requests.
        rule: what sufficing means.
        world: which of them are used, and how.
        notes: what was left out or assumed.
        left_out: requests that the artifact was fitted on.
    """

    artifact: Artifact
    table: TrafficTable
    requests: Requests
    rule: LabelRule
    world: World
    notes: tuple[str, ...]
    left_out: int

    @property
    def used(self) -> Requests:
        """The requests that the report is about."""
        return self.requests.take(self.world.rows)


def evaluate(
    artifact_path: Path,
    traffic: Path,
    report_json: Path | None,
    plots: Path | None,
    estimate: bool = False,
    told: Callable[[Report | Valuation, int], None] = lambda *_: None,
) -> tuple[Report | Valuation, int]:
    """Measure an artifact, write what is asked for, and log the run.

    A report where every tier's score is known, else what policies are worth, estimated from
    one-sided requests (`training.measure.world`). There are no plots of a one-sided world.

    Args:
        artifact_path: whose decisions are measured.
        traffic: the table; requests that the artifact was fitted on are left out.
        report_json: file to write.
        plots: folder for the figures.
        estimate: estimate propensities that the log does not hold; every output then says so.
        told: called with what is returned, before MLflow is asked to take the run.

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
        version = subject.artifact.version
        save_json(report, report_json, artifact=version, left_out=subject.left_out)
    told(report, subject.left_out)
    with step("MLflow run"):
        _track(subject, report, report_json, plots)
    return report, subject.left_out


def prepare(artifact_path: Path, traffic: Path, estimate: bool) -> Subject:
    """Read both and pick the world; arguments and errors as `evaluate`."""
    return prepare_table(artifact_path, read_traffic(traffic), str(traffic), estimate)


def prepare_table(artifact_path: Path, table: TrafficTable, name: str, estimate: bool) -> Subject:
    """The same of a table that was read already; `name` is what messages call it."""
    artifact, arrays = read_artifact(artifact_path)
    predictor, rule = artifact.predictor, LabelRule(**artifact.manifest["label"])
    requests, notes = labelled_requests(table, predictor.tiers, rule)
    requests, weak = firm_requests(requests)
    notes += weak
    known = np.isin(id_hashes(requests.ids), arrays["fitted"])
    if estimate:
        requests, told = estimate_propensities(requests, predictor.vectorizer.embedder)
        notes += told
    world = unseen(requests, known, partial(pick_world, least=MIN_ROWS), name)
    again = recognise(artifact, arrays, requests.take(world.rows))
    told = (again.note,) if again else ()
    notes = (*told, world.note, *notes, *rule.warnings())
    return Subject(artifact, table, requests, rule, world, notes, int(known.sum()))


def measure_paired(subject: Subject) -> Measured:
    """Measure on requests whose every tier's score is known.

    Baselines that learn are cross-fitted on the rows given: they see this very traffic.
    """
    artifact, requests = subject.artifact, subject.used
    predictor = artifact.predictor
    x = vectorize(predictor.vectorizer, list(requests.prompts))
    paid = account(x, requests, predictor.tokens, predictor.tiers)
    unit = several_units(requests)
    others = _cross_fitted(x.dense[:, SURFACE:], requests.score, unit)
    surface, estimates = x.dense[:, :SURFACE], _estimate(predictor, x, requests)
    rows = Rows.of(predictor.tiers, estimates, paid, requests, unit, subject.rule, others, surface)
    names = tuple(tier.name for tier in predictor.tiers)
    lengths = length_notes(x, requests, predictor.tokens, names)
    stages = _stage_notes(artifact, estimates, x, requests)
    held = _held(artifact, estimates, requests)
    rules = (held.describe(), held.compare(paid, requests.score)) if held else ()
    report = build_report(rows, artifact.policy, (*subject.notes, *lengths, *stages, *rules))
    usable = subject.world.rows
    return Measured(
        artifact, subject.table, subject.requests, usable, x, rows, report, subject.left_out
    )


def value_one_sided(subject: Subject) -> Valued:
    """Estimate what policies are worth; BadInput where the chosen one's tier was never tried."""
    artifact, requests = subject.artifact, subject.used
    predictor = artifact.predictor
    x = vectorize(predictor.vectorizer, list(requests.prompts))
    paid = account(x, requests, predictor.tokens, predictor.tiers)
    names = tuple(tier.name for tier in predictor.tiers)
    estimates = _estimate(predictor, x, requests)
    held = _held(artifact, estimates, requests)
    rules = (held.describe(),) if held else ()
    notes = (*subject.notes, *_stage_notes(artifact, estimates, x, requests), *rules)
    known = logged(requests, several_units(requests))
    found = value_policies(known, estimates, paid, artifact.policy, names, notes)
    return Valued(found, x, estimates)


def _track(
    subject: Subject, report: Report | Valuation, report_json: Path | None, plots: Path | None
) -> None:
    """Draw the figures, copied into `plots` where asked for, and log the evaluation as a run."""
    artifact = subject.artifact
    training = artifact.manifest["training"]
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "report"
        kept.mkdir()
        save_json(report, kept / "report.json")
        drawn = Path(scratch) / "plots"
        drawn.mkdir()
        for picture in save_plots(report, drawn):
            if plots is not None:  # what else is in that folder is nobody's business
                plots.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(picture, plots / picture.name)
        written = ", ".join(str(place) for place in (report_json, plots) if place is not None)
        folders = {"artifact": artifact.path, "report": kept, "plots": drawn}
        log_run(
            f"evaluate {artifact.version}",
            {
                "artifact": artifact.version,
                "world": subject.world.name,
                "rows": report.rows,
                "embedder": training["embedder"],
            },
            report.flat(),
            {
                ARTIFACT_TAG: artifact.version,
                "suffice.fingerprint": fingerprint(subject.used),
                "suffice.trained_on": training["fingerprint"],
            },
            folders,
            f"written: {written}" if written else NOTHING,
        )


def _estimate(predictor: Predictor, x: Matrix, requests: Requests) -> Estimates:
    """By the vectors x of the requests; where there is a second stage, as it is asked."""
    if predictor.second is None:
        return estimates_of(predictor, x)
    return estimate(predictor, list(requests.prompts))


def _held(artifact: Artifact, estimates: Estimates, requests: Requests) -> Ruled | None:
    """The policy's choices held to the artifact's rules, where these change any."""
    return ruled(artifact, requests, artifact.policy.choose(estimates.p, estimates.usd), estimates)


def _stage_notes(
    artifact: Artifact, estimates: Estimates, x: Matrix, requests: Requests
) -> tuple[str, ...]:
    """How many of the requests a second stage reads, and what that costs in time."""
    second, known = artifact.predictor.second, artifact.manifest.get("stages")
    if second is None or known is None or estimates.stage is None:
        return ()
    tokens = read_tokens(list(requests.prompts), x.tokens, second.gate.limit)
    pace = Pace(known["first_us"], known["second_us_per_token"])
    facts = pace.facts(estimates.stage == 2, tokens)
    return (stages_in_words(facts, "these requests"),)


def _cross_fitted(
    embedding: NDArray[np.float32], score: NDArray[np.float64], unit: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Baselines' estimates for rows that their fitting left out, {name: float64[n, k]}.

    unit: int64[n]; none is divided, or a baseline would know the answers to a prompt's twins.
    """
    found: dict[str, NDArray[np.float64]] = {}
    folds = GroupKFold(min(FOLDS, len(np.unique(unit))), shuffle=True, random_state=0)
    for fit, asked in folds.split(embedding, groups=unit):
        fold = baselines.estimates(embedding[fit], score[fit], embedding[asked])
        for name, estimates in fold.items():
            found.setdefault(name, np.empty_like(score))[asked] = estimates
    return found
