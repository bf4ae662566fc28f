"""What a retraining job leaves in MLflow for a reviewer to decide by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.console import say
from training.errors import BadInput
from training.log.requests import Requests
from training.log.traffic import TrafficTable
from training.measure.evaluate import prepare_table
from training.measure.report import Report, save_json, save_plots
from training.retrain.challengers import Challenger
from training.retrain.gate import Verdict, as_table
from training.retrain.settings import Settings
from training.show.page.html import page_of
from training.tracking import plain_name


def describe_run(mlflow: Any, settings: Settings, table: TrafficTable, requests: Requests) -> None:
    """Parameters, tags and the lineage of the data."""
    mlflow.log_params(
        flat_values({name: value for name, value in settings.words.items() if name != "label"})
    )
    times = requests.at[~np.isnat(requests.at)]
    if len(times):
        mlflow.set_tags({"suffice.since": str(times.min()), "suffice.until": str(times.max())})
    frame = table.frame[["request_id", "tier", "model", "score"]]
    source = str(settings.traffic)
    data = mlflow.data.from_pandas(frame, source=source, name=settings.traffic.name)
    mlflow.log_input(data, context="training")


def show(
    mlflow: Any,
    folder: Path,
    verdict: Verdict,
    notes: tuple[str, ...],
    table: TrafficTable,
    report: Any,
    scratch: Path,
) -> None:
    """What a reviewer decides by: the gate, the report, figures and the page."""
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    mlflow.set_tag("mlflow.note.content", f"{verdict_table(verdict, notes)}\n{card}")
    mlflow.log_metrics({"gate.passed": float(verdict.passed)})
    mlflow.log_dict({"passed": verdict.passed, "checks": as_table(verdict.checks)}, "gate.json")
    if report is None:
        return
    mlflow.log_metrics({plain_name(key): value for key, value in report.flat().items()})
    shown = scratch / "report"
    shown.mkdir()
    save_json(report, shown / "report.json")
    if isinstance(report, Report):
        save_plots(report, shown)
    try:
        page = page_of(prepare_table(folder, table, "the window", False), "the window")[1]
    except BadInput as error:
        say(f"no page: {error}")
    else:
        (shown / "report.html").write_text(page, encoding="utf-8")
    mlflow.log_artifacts(str(shown), "report")


def verdict_table(verdict: Verdict, notes: tuple[str, ...]) -> str:
    """The gate's rows as Markdown."""
    rows = [
        f"| {'✓' if check.passed else '✗'} | {check.name} | {check.value:.4g} | {check.limit:g} | "
        f"{check.sure} |"
        for check in verdict.checks
    ]
    head = ["# Gate: " + ("passed" if verdict.passed else "refused"), ""]
    head += ["| | check | value | limit | how sure |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, "", *(f"- {note}" for note in notes)]) + "\n"


def version_tags(verdict: Verdict, best: Challenger) -> dict[str, str]:
    """Why a version is what it is, on the version."""
    reasons = {f"refused.{number}": why for number, why in enumerate(verdict.reasons, 1)}
    return {"gate": "passed" if verdict.passed else "refused", "recipe": best.name, **reasons}


def flat_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as MLflow's parameters: names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat_values(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
