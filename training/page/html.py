"""Writing the page: one file, no network, and no text of a user that becomes markup or code.

Jinja2 escapes every value; prompts travel as JSON whose <, > and & are escaped, and become text by
`textContent`. Should an escape ever fail, the page's content security policy lets no script run but
its own, which is named by its hash, and nothing is ever fetched.
"""

import base64
import hashlib
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from router.artifact import read_artifact
from training.card import describe_rule
from training.evaluate import Measured, measure
from training.labels import LabelRule
from training.page import charts, views
from training.page.examples import examples
from training.page.importance import importance
from training.page.volume import Volume
from training.report import save_json
from training.requests import fingerprint
from training.tracking import log_run


def report(artifact: Path, traffic: Path, out: Path) -> tuple[Measured, str]:
    """Measure an artifact on traffic that it was not fitted on, and write the page to `out`.

    Returns:
        What was measured, and the MLflow run that keeps the page and its figures.

    Raises:
        BadInput, ArtifactError: see `training.evaluate.measure`; nothing was written.
        EnvironmentProblem: MLflow refused the run (the page is in place).
    """
    measured = measure(artifact, traffic)
    text = render(measured, read_artifact(artifact)[1], traffic.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(out)
    return measured, _track(measured, text)


def render(measured: Measured, arrays: Mapping[str, NDArray[Any]], traffic: str) -> str:
    """The whole page as text.

    arrays: of the artifact's heads.npz. traffic: the log's name.
    """
    found, artifact, rows = measured.report, measured.artifact, measured.rows
    policy, names = artifact.policy, rows.names
    volume = Volume.of(measured.table.frame)
    dial = views.dial(found, volume, names)
    curve = charts.curve_chart(found, names)
    moves = {name: dial[name] for name in ("rows", "start")}
    tier = policy.choose(rows.p, rows.usd)
    style, script = _part("page.css"), _part("page.js")
    promised = policy.promise if policy.promise and policy.promise.rule == "min_quality" else None
    page = Environment(
        loader=PackageLoader("training", "page"), autoescape=True, undefined=StrictUndefined
    ).get_template("report.html.j2")
    warnings = LabelRule(**artifact.manifest["label"]).warnings()
    return page.render(
        style=Markup(style),  # ours, from the package
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        headline=views.headline(found, policy, names),
        promise=views.promise(found, policy),
        warnings=warnings,
        facts=_facts(measured, traffic),
        curve=curve,
        dial=dial,
        volume=volume.basis,
        calibration=views.calibration(found),
        slices=views.slices(found, promised.target if promised else None),
        answers=views.answers(found),
        curves=views.curves(found),
        undefined=found.missing,
        features=importance(artifact.predictor, arrays, measured.x.dense),
        notes=[note for note in found.notes if note not in warnings],
        data={
            "dial": moves | {"positions": curve["positions"], "bottom": curve["frame"].bottom},
            "prompts": examples(measured, tier),
        },
    )


def _facts(measured: Measured, traffic: str) -> dict[str, Any]:
    manifest = measured.artifact.manifest
    training, rows = manifest["training"], manifest["training"]["rows"]
    whole = len(np.unique(measured.rows.session)) == measured.report.rows
    tiers = "; ".join(
        f"{tier.name}: {tier.model}, ${tier.input_usd_per_mtok:g} / ${tier.output_usd_per_mtok:g} "
        "per million input / output tokens"
        for tier in measured.artifact.predictor.tiers
    )
    return {
        "artifact": measured.artifact.version,
        "made": manifest["created_at"][:10],
        "units": "requests" if whole else "sessions",
        "list": [
            (
                "This page",
                f"{measured.report.rows:,} requests of {traffic} whose score is known on every "
                f"tier; {measured.left_out:,} were left out, the artifact was fitted on them",
            ),
            (
                "The artifact",
                f"fitted on {rows['fit']:,} requests, its operating point chosen on "
                f"{rows['choose']:,}; {_window(training['since'], training['until'])}",
            ),
            ("Operating point", measured.artifact.policy.why),
            ("Sufficed means", describe_rule(LabelRule(**manifest["label"]))),
            ("Tiers", tiers),
            (
                "Costs",
                "as billed where the log says so, else prices × logged tokens, else a model of "
                "each tier's answer length",
            ),
        ],
    }


def _window(since: str | None, until: str | None) -> str:
    return f"window {since[:16]} to {until[:16]} UTC" if since and until else "no times in the log"


def _track(measured: Measured, text: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "report.html").write_text(text, encoding="utf-8")
        version = measured.artifact.version
        save_json(measured.report, folder / "report.json", artifact=version)
        run, _ = log_run(
            f"report {version}",
            {"artifact": version, "rows": measured.report.rows},
            measured.report.flat(),
            {
                "suffice.artifact": version,
                "suffice.fingerprint": fingerprint(measured.requests.take(measured.usable)),
                "suffice.trained_on": measured.artifact.manifest["training"]["fingerprint"],
            },
            {"report": folder},
        )
    return run


def _part(name: str) -> str:
    return (files("training") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
