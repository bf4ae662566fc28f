"""What each part of the page says: the report's figures turned into words, ready to be drawn."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np

from training.measure.compare import NO, OPEN, SAME, YES, Comparison
from training.measure.intervals import Interval
from training.measure.report import Report
from training.measure.slice_report import BELOW, FAILS, OWN, SliceReport, worst
from training.show.page import charts
from training.show.page.volume import Volume
from training.show.words import FORMS, count, limits, percent, plain, times

MARKS = {YES: "yes", NO: "no", OPEN: "open", SAME: "open"}
MOST_OF_A_KIND = 25


def dial(report: Report, volume: Volume, names: Sequence[str]) -> dict[str, Any]:
    """The readouts: two fixed columns, and one row of texts for every position of the slider."""
    found = report.dial
    unit = volume.unit
    top = report.figures["always top"]["cost_usd"]

    def column(figures: Mapping[str, Interval]) -> list[list[str]]:
        cost = figures["cost_usd"]
        told = [
            (figures["quality"], "percent"),
            (figures["quality_of_top"], "percent"),
            (cost.times(1000), "dollars"),
            (figures["saving"], "times"),
            (cost.times(unit), "dollars"),
        ]
        shares = [f"{100 * figures[f'share_{k}'].value:.1f}" for k in range(len(names))]
        return [*([FORMS[form](one.value), limits(one, form)] for one, form in told), shares]

    rows = []
    for j in range(len(found.mu)):
        quality, of_top, cost = (
            _at(float(values[j]), [float(end[j]) for end in found.limits[name]])
            for name, values in (
                ("quality", found.quality),
                ("of_top", found.of_top),
                ("cost_usd", found.cost_usd),
            )
        )
        ratio = top.value / cost.value if cost.value > 0 else float("inf")
        figures = {"quality": quality, "quality_of_top": of_top, "cost_usd": cost}
        figures["saving"] = _at(ratio)
        figures |= {f"share_{k}": _at(found.share[j, k]) for k in range(len(names))}
        rows.append(column(figures))
    start = found.chosen if found.chosen is not None else _nearest(report)
    return {
        "labels": [
            "mean quality",
            "of the top tier’s",
            "cost of 1,000",
            "saving against always top",
            *([] if volume.days is None else [f"dollars {volume.words}"]),  # else the third again
        ],
        "names": list(names),
        "top": column(report.figures["always top"]),
        "chosen": column(report.figures["policy"]),
        "rows": rows,
        "start": start,
    }


def slices(report: Report) -> dict[str, Any]:
    """Slices by kind, with whiskers of the share of the top tier's quality on one scale."""
    promised = report.policy.promise
    target = promised.target if promised and promised.rule == "min_quality" else None
    known = [part for part in report.slices if part.metrics is not None]
    ends = [target] if target is not None else []
    for part in known:
        assert part.metrics is not None
        kept = part.metrics["quality_of_top"]
        ends += [x for x in (kept.low, kept.value, kept.high) if isfinite(x)]
    ends += [1.0]
    span = (max(min(ends), 0.5) - 0.005, min(max(ends), 1.25) + 0.005)
    groups = []
    for kind in dict.fromkeys(part.kind for part in report.slices):
        parts = [part for part in known if part.kind == kind]
        if kind in ("source", "tag"):
            parts = worst(parts)
        few = [part for part in report.slices if part.kind == kind and part.metrics is None]
        groups.append(
            {
                "kind": kind,
                "rows": [_slice(part, span) for part in parts[:MOST_OF_A_KIND]],
                "left": len(parts) - MOST_OF_A_KIND,
                "few": [(part.name, _evidence(part)) for part in few[:MOST_OF_A_KIND]],
                "few_left": len(few) - MOST_OF_A_KIND,
                "few_count": len(few),
            }
        )
    verdicts = [part.verdict for part in known]
    return {
        "groups": groups,
        "fails": verdicts.count(FAILS),
        "own": verdicts.count(OWN),
        "below": verdicts.count(BELOW),
        "known": len(known),
        "few": len(report.slices) - len(known),
        "judged": promised is not None,
        "target": None if target is None else charts.place(target, span),
        "one": charts.place(1.0, span),
        "target_words": "" if target is None else percent(target),
    }


def answered(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Comparisons as rows of texts, a rival's name only on its first line."""
    found, before = [], ""
    for asked in comparisons:
        value, span = asked.shown
        found.append(
            {
                "rival": "" if asked.rival == before else asked.rival,
                "measure": asked.measure.words,
                "value": value.replace("-", "−"),
                "limits": span.replace("-", "−"),
                "answer": asked.answer,
                "class": MARKS.get(asked.answer, "open"),
            }
        )
        before = asked.rival
    return found


def curves(report: Report) -> list[list[str]]:
    """How well each method orders prompts: name, APGR, APGR by cost, CPT, savings, AIQ."""
    two = len(report.names) == 2  # of more, the share sent to the top says little
    told = []
    for name in report.orders:
        found = report.figures[name]
        told.append(
            [
                name,
                plain(found["apgr"].value),
                plain(found["apgr_cost"].value),
                percent(found["cpt_50"].value if two else nan),
                *(times(found[f"saving_{r}"].value) for r in (100, 99, 95)),
                plain(found["aiq"].value),
            ]
        )
    return told


def calibration(report: Report) -> list[dict[str, Any]]:
    """Per tier: AUC, Brier and ECE with limits, and the reliability chart."""
    shown = {"AUC": "auc", "Brier": "brier", "ECE": "ece", "debiased": "ece_debiased"}
    return [
        {
            "tier": tier,
            "figures": [
                (name, plain(metrics[key].value), limits(metrics[key], "plain"))
                for name, key in shown.items()
            ],
            "chart": charts.reliability_chart(report.reliability[tier]),
        }
        for tier, metrics in report.calibration.items()
    ]


def _slice(part: SliceReport, span: tuple[float, float]) -> dict[str, Any]:
    assert part.metrics is not None
    kept, bad = part.metrics["quality_of_top"], part.metrics["bad_downgrade"]
    return {
        "name": part.name,
        "rows": f"{part.rows:,}",
        "quality": percent(part.metrics["quality"].value),
        "top": percent(part.metrics["quality_top"].value),
        "kept": percent(kept.value),
        "limits": limits(kept, "percent"),
        "whisker": charts.whisker(kept, span),
        "to_top": percent(part.metrics["to_top"].value, 0),
        "saving": times(part.metrics["saving"].value),
        "bad": percent(bad.value),
        "bad_limits": limits(bad, "percent"),
        "brier": plain(part.metrics["brier"].value),
        "ece": plain(part.metrics["ece"].value),
        "verdict": part.verdict,
        "class": {FAILS: "no", OWN: "doubt", BELOW: "open"}.get(part.verdict, "yes"),
    }


def _evidence(part: SliceReport) -> str:
    """How many requests a slice has, and how many independent ones where that is fewer."""
    rows = count(part.rows, "request")
    return rows if part.units == part.rows else f"{rows}, {part.units:,} independent"


def _nearest(report: Report) -> int:
    return int(np.abs(report.dial.cost_usd - report.chosen.cost_usd).argmin())


def _at(value: float, ends: Sequence[float] = (nan, nan)) -> Interval:
    return Interval(float(value), nan, ends[0], ends[1], 0)
