"""The page: one file, no network, and no text of a user that becomes markup or code.

Jinja2 escapes every value; prompts travel as JSON whose <, > and & are escaped, and become text by
`textContent`. Should an escape ever fail, the page's content security policy lets no script run but
its own, which is named by its hash, and nothing is ever fetched.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from router.artifact import Artifact, read_artifact
from training.label.rule import LabelRule
from training.measure.report import Report
from training.measure.subject import (
    Measured,
    Subject,
    Valued,
    measure_paired,
    value_one_sided,
)
from training.measure.valuation import Valuation
from training.show import verdict, verdict_one_sided
from training.show.card import describe_rule, describe_window
from training.show.page import charts, one_sided, views
from training.show.page.examples import one_sided_examples, paired_examples
from training.show.page.importance import importance
from training.show.page.volume import Volume


def page_of(subject: Subject, traffic: str) -> tuple[Report | Valuation, str]:
    """The report of either world, and its page.

    Raises:
        BadInput: see `training.measure.subject`.
    """
    arrays = read_artifact(subject.artifact.path)[1]
    if subject.world.paired:
        measured = measure_paired(subject)
        return measured.report, render(measured, arrays, traffic)
    valued = value_one_sided(subject)
    return valued.report, render_one_sided(valued, arrays, traffic)


def render(measured: Measured, arrays: Mapping[str, NDArray[Any]], traffic: str) -> str:
    """The whole page of a paired log as text.

    arrays: of the artifact's heads.npz. traffic: the log's name.
    """
    found, subject, rows = measured.report, measured.subject, measured.rows
    artifact, names = subject.artifact, rows.names
    volume = Volume.of(subject.table.frame)
    dial = views.dial(found, volume, names)
    curve = charts.curve_chart(found, names)
    moves = {name: dial[name] for name in ("rows", "start")}
    return fill(
        "report.html.j2",
        artifact,
        found.notes,
        script=_part("page.js"),
        headline=verdict.headline(found),
        promise=verdict.promise(found)["text"],
        badges=verdict.badges(found),
        facts=_facts(subject, traffic, rows.session, "every tier"),
        curve=curve,
        dial=dial,
        volume=volume.basis,
        calibration=views.calibration(found),
        slices=views.slices(found),
        answers=views.answered(found.comparisons),
        curves=views.curves(found),
        undefined=found.missing,
        features=importance(artifact.predictor, arrays, measured.x.dense),
        data={
            "dial": moves | {"positions": curve["positions"], "bottom": curve["frame"].bottom},
            "prompts": paired_examples(measured),
        },
    )


def render_one_sided(valued: Valued, arrays: Mapping[str, NDArray[Any]], traffic: str) -> str:
    """The page of a one-sided log: what policies are worth, and what such a log cannot show.

    Arguments as `render`.
    """
    found, subject = valued.report, valued.subject
    artifact, volume = subject.artifact, Volume.of(subject.table.frame)
    return fill(
        "one_sided.html.j2",
        artifact,
        found.notes,
        script=_part("page.js"),
        headline=verdict_one_sided.headline(found),
        promise=verdict_one_sided.promise(found)["text"],
        badges=verdict_one_sided.badges(found),
        facts=_facts(subject, traffic, subject.used.sessions, "one tier"),
        policies=one_sided.policies(found, volume),
        answers=one_sided.answers(found),
        overlap=one_sided.overlap(found),
        volume=volume.basis,
        monthly=f"dollars {volume.words}",
        features=importance(artifact.predictor, arrays, valued.x.dense),
        data={"prompts": one_sided_examples(valued)},
    )


def fill(
    template: str, artifact: Artifact, notes: Sequence[str], script: str = "", **more: Any
) -> str:
    """Render a template of this folder with what every page has.

    script: of the page, JavaScript of ours. more: at least `headline` and `facts`.
    """
    warnings = LabelRule(**artifact.manifest["label"]).warnings()
    style = _part("page.css")
    pages = Environment(
        loader=PackageLoader("training.show", "page"), autoescape=True, undefined=StrictUndefined
    )
    return pages.get_template(template).render(
        style=Markup(style),  # ours, from the package
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        warnings=warnings,
        notes=[note for note in notes if note not in warnings],
        **more,
    )


def _facts(
    subject: Subject, traffic: str, session: NDArray[np.int64], known: str
) -> dict[str, Any]:
    """What the page rests on; session: int64[n], of its requests, their scores known on `known`."""
    artifact, count = subject.artifact, len(session)
    manifest = artifact.manifest
    training, rows = manifest["training"], manifest["training"]["rows"]
    whole = len(np.unique(session)) == count
    tiers = "; ".join(
        f"{tier.name}: {tier.model}, ${tier.input_usd_per_mtok:g} / ${tier.output_usd_per_mtok:g} "
        "per million input / output tokens"
        for tier in artifact.predictor.tiers
    )
    return {
        "artifact": artifact.version,
        "made": manifest["created_at"][:10],
        "units": "requests" if whole else "independent units",
        "list": [
            (
                "This page",
                f"{count:,} requests of {traffic} whose score is known on {known}; "
                f"{subject.left_out:,} were left out, as the artifact was fitted or chosen on them",
            ),
            (
                "The artifact",
                f"fitted on {rows['fit']:,} requests, its operating point chosen on "
                f"{rows['choose']:,}; {describe_window(training['since'], training['until'])}",
            ),
            ("Operating point", artifact.policy.why),
            ("Sufficed means", describe_rule(LabelRule(**manifest["label"]))),
            ("Tiers", tiers),
            (
                "Costs",
                "as billed where the log says so, else prices × logged tokens, else a model of "
                "each tier's answer length",
            ),
        ],
    }


def _part(name: str) -> str:
    return (files("training.show") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
