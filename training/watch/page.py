"""The findings of `suffice drift` as one HTML page without network, the answer first."""

from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from router.artifact import Artifact, load_artifact
from training.files import write_text
from training.show.card import describe_window
from training.show.page.charts import place
from training.show.page.html import fill
from training.show.words import NONE, count, percent
from training.watch.drift import Drift
from training.watch.two_sample import RISK, Finding

REACH = 4.0  # the scale ends at so many times the least change that matters
_SPAN = (-REACH, REACH)


def write_page(found: Drift, artifact: Path, traffic: Path, out: Path) -> None:
    """Write the page to `out`.

    Args:
        found: what `drift` found.
        artifact: its reference.
        traffic: its recent log.
        out: HTML file.
    """
    write_text(out, render(found, load_artifact(artifact), traffic.name))


def render(found: Drift, artifact: Artifact, traffic: str) -> str:
    """The page as text; `traffic` is the log's name."""
    training = artifact.manifest["training"]
    facts = {
        "artifact": artifact.version,
        "made": artifact.manifest["created_at"][:10],
        "list": [
            ("Recent", f"{count(found.recent, 'request')} of {traffic}, one of each session"),
            (
                "Reference",
                f"{count(found.reference, 'request')} of the artifact's training, likewise; "
                + describe_window(training["since"], training["until"]),
            ),
            (
                "Tests",
                "embeddings: Hotelling\u2019s T² and a classifier; probabilities: "
                "Kolmogorov\u2013Smirnov, their size as population stability index; scores and "
                "calibration: Student or Welch; mix: χ²; cost per call: Mann\u2013Whitney",
            ),
        ],
    }
    order = {True: 0, False: 1}
    rows = sorted(found.findings, key=lambda one: (order[one.due], one.p_value >= RISK))
    return fill(
        "drift.html.j2",
        artifact,
        found.notes,
        headline=_headline(found),
        facts=facts,
        rows=[_row(one) for one in rows],
    )


def _headline(found: Drift) -> dict[str, str]:
    due = list(dict.fromkeys(one.kind for one in found.findings if one.due))
    *first, last = due or [""]
    named = f"{', '.join(first)} and {last}" if first else last
    answer = f"Retraining is due: {named} changed." if due else "Nothing is due."
    tests = sum(not _is_fact(one) for one in found.findings)
    return {
        "answer": answer,
        "word": "Retrain" if due else "No reason to retrain",
        "class": "no" if due else "yes",
        "sure": f"{count(found.recent, 'recent request')} against {found.reference:,} of training "
        f"· {count(tests, 'test')}",
        "how": "p-values are corrected for the number of tests (Holm): if nothing drifted, any of "
        f"them falls below {RISK:g} at most once in {1 / RISK:.0f} looks. A change is a reason to "
        "retrain if it is shown and large enough to matter.",
    }


def _row(one: Finding) -> dict[str, Any]:
    shown = one.p_value < RISK
    verdict = "retrain" if one.due else "shown, too small to matter" if shown else "not shown"
    return {
        "kind": one.kind,
        "name": one.name,
        "due": one.due,
        "class": "no" if one.due else "open" if shown else "yes",
        "verdict": verdict,
        "size": _figure(one, one.size, signed=True),
        "limits": "" if isnan(one.low) else _limits(one),
        "least": NONE if one.least < 1e-6 else _figure(one, one.least),
        "p": "a fact" if _is_fact(one) else f"{one.p_value:.3g}",
        "zero": place(0.0, _SPAN),
        "limits_at": [place(side, _SPAN) for side in (-1.0, 1.0)] if one.least >= 1e-6 else [],
        "at": _at(one, one.size),
        "low": "" if isnan(one.low) else _at(one, one.low),
        "high": "" if isnan(one.high) else _at(one, one.high),
    }


def _is_fact(one: Finding) -> bool:
    """Whether it is read off the log (prices, models) rather than tested."""
    return one.kind in ("prices", "models")


def _limits(one: Finding) -> str:
    return f"{_figure(one, one.low, signed=True)} to {_figure(one, one.high, signed=True)}"


def _figure(one: Finding, value: float, signed: bool = False) -> str:
    """A size in its unit: shares as percentages, distances plain and without a sign."""
    if one.unit.startswith("of "):
        sign = ("+" if value > 0 else "") if signed else ""
        return f"{sign}{percent(value)} {one.unit}".replace("-", "−")
    return f"{value:.3f} {one.unit}".replace("-", "−")


def _at(one: Finding, value: float) -> str:
    """Where a value lies on the scale, in units of what matters."""
    if one.least < 1e-6:  # any of it matters
        return place(REACH if value > 0 else 0.0, _SPAN)
    return place(float(np.clip(value / one.least, *_SPAN)), _SPAN)
