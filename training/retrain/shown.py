"""What a retraining job leaves in MLflow for a reviewer to decide by."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from training.console import say
from training.errors import BadInput
from training.files import write_json
from training.finish import Finished
from training.ground import Ground
from training.log.fingerprint import fingerprint
from training.log.requests import Requests
from training.log.traffic import TrafficTable
from training.measure.report import Report
from training.measure.subject import prepare_table
from training.measure.valuation import Valuation
from training.retrain.challengers import Challenger
from training.retrain.settings import Settings
from training.retrain.verdict import Verdict, as_table
from training.show.answer import answer_lines
from training.show.page.html import page_of
from training.show.pictures import save_plots
from training.tracking import plain_name

# The curve's figures that a decision turns on; report.json has all of them.
_CURVE = ("gain.apgr", "dollar.apgr_cost", "dollar.aiq", "dollar.saving_99", "dollar.saving_95")


def describe_run(mlflow: Any, settings: Settings, table: TrafficTable, ground: Ground) -> None:
    """Log the job's parameters, tags and the lineage of its data."""
    words = {name: value for name, value in settings.words.items() if name != "label"}
    told = _flat_values(words) | {
        f"label.{key}": value for key, value in settings.config.label.as_dict().items()
    }
    told["tiers"] = ", ".join(f"{tier.name}={tier.model}" for tier in ground.tiers)
    told["world"] = ground.world.name
    told |= {f"rows.{part}": rows for part, rows in ground.splits.sizes.items()}
    mlflow.log_params({plain_name(name): value for name, value in told.items()})
    mlflow.set_tags(_window_tags(ground.requests))
    frame = table.frame[["request_id", "tier", "model", "score"]]
    source = str(settings.traffic.resolve())
    data = mlflow.data.from_pandas(frame, source=source, name=settings.traffic.name)
    mlflow.log_input(data, context="training")


def describe_challenger(mlflow: Any, challenger: Challenger) -> None:
    """Log what a challenger is made of, and how it fared, to the active run."""
    told = {
        name: f"{value:.4g}" if isinstance(value, float) else value
        for name, value in challenger.parameters.items()
    }
    mlflow.log_params(told)
    mlflow.log_metrics({"merit": challenger.merit} | challenger.merits)


@contextmanager
def ending(mlflow: Any, started: str) -> Iterator[None]:
    """Let the active run's name and description say if the job does not come to its end."""
    try:
        yield
    except mlflow.exceptions.MlflowException:
        raise  # there may be nobody to tell
    except BaseException as error:
        became = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        why = f"# {became.capitalize()}\n\n{str(error) or 'By hand.'}"
        with suppress(mlflow.exceptions.MlflowException):  # the error that counts is the first
            mlflow.set_tags({"mlflow.runName": f"{became}, {started}", "mlflow.note.content": why})
        raise


def show(
    mlflow: Any,
    made: Finished,
    verdict: Verdict,
    headline: str,
    notes: tuple[str, ...],
    table: TrafficTable,
    scratch: Path,
) -> None:
    """Log what a reviewer decides by: the gate, the report, figures, the page and the model card.

    headline: first line of the run's description.
    notes: of the contest.
    """
    folder, report = made.artifact.path, made.report
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    told = f"# {headline}\n\n{verdict_table(verdict, notes)}\n{card}"
    mlflow.set_tag("mlflow.note.content", told)
    mlflow.log_metrics({"gate.passed": float(verdict.passed)})
    mlflow.log_dict({"passed": verdict.passed, "checks": as_table(verdict.checks)}, "gate.json")
    shown = scratch / "report"
    shown.mkdir()
    (shown / "CARD.md").write_text(card, encoding="utf-8")
    if report is not None:
        mlflow.log_metrics(_figures(report))
        write_json(shown / "report.json", report.as_json())
        save_plots(report, shown)
        try:
            page = page_of(prepare_table(folder, table, "the window", False), "the window")[1]
        except BadInput as error:
            say(f"no page: {error}")
        else:
            (shown / "report.html").write_text(page, encoding="utf-8")
    mlflow.log_artifacts(str(shown), "report")


def describe_worth(made: Finished) -> str:
    """What a challenger is worth on the test rows, in one line."""
    if made.report is None:
        return "No report says what it is worth."
    return " ".join(answer_lines(made.report)[:-1])


def verdict_table(verdict: Verdict, notes: tuple[str, ...] = ()) -> str:
    """The gate's rows as Markdown."""
    rows = [
        f"| {'✓' if check.passed else '✗'} | {check.name} | {check.value:.4g} | {check.limit:g} | "
        f"{check.sure} |"
        for check in verdict.checks
    ]
    head = ["## Gate: " + ("passed" if verdict.passed else "refused"), ""]
    head += ["| | check | value | limit | how sure |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, "", *(f"- {note}" for note in notes)]) + "\n"


def version_tags(verdict: Verdict, best: Challenger, requests: Requests) -> dict[str, str]:
    """Tags of a registered version: what the gate said, its recipe and its data."""
    reasons = {f"refused.{number}": why for number, why in enumerate(verdict.reasons, 1)}
    told = {"gate": "passed" if verdict.passed else "refused", "recipe": best.name, **reasons}
    return told | _window_tags(requests)


def _window_tags(requests: Requests) -> dict[str, str]:
    """Which requests: the first and the last one's time (UTC), as far as known, and their hash."""
    tags, times = {"suffice.fingerprint": fingerprint(requests)}, requests.at
    times = times[~np.isnat(times)]
    if len(times):
        ends = (str(end.astype("datetime64[s]")) for end in (times.min(), times.max()))
        tags |= dict(zip(("suffice.since", "suffice.until"), ends, strict=True))
    return tags


def _flat_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as MLflow's parameters: names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat_values(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _figures(report: Report | Valuation) -> dict[str, float]:
    """The report's figures with their limits, as many as a page of MLflow can show."""
    found = report.flat()
    if isinstance(report, Report):
        ends = tuple(f"{name}{end}" for name in _CURVE for end in ("", ".low", ".high"))
        found = {
            name: value
            for name, value in found.items()
            if name.startswith(("policy.", "tier_")) or name in ends
        }
        for k, constant in enumerate(report.reliability):  # in the order of the tiers
            for end in ("", ".low", ".high"):
                if (share := found.pop(f"policy.share_{k}{end}", None)) is not None:
                    found[f"policy.share_{constant}{end}"] = share
    return {plain_name(name): value for name, value in found.items()}
