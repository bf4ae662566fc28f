"""The report as tables for a terminal."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Literal

from rich.table import Table

from training.console import render
from training.measure.compare import Comparison
from training.measure.intervals import Interval
from training.measure.overlap import Overlap
from training.measure.report import Report
from training.measure.slice_report import BELOW, FAILS, OWN, TOO_FEW, worst
from training.measure.valuation import CHOSEN, Valuation

WORST_SLICES = 8


def report_tables(report: Report | Valuation) -> list[str]:
    """The tables of a report, of either world, as plain text, ready to print."""
    if isinstance(report, Valuation):
        found = (_values(report), _worth(report), _tried(report.overlap, report.names))
        return [render(table) for table in found]
    tables = [_curves(report), _policies(report), _answers(report.comparisons)]
    tables.append(_calibration(report))
    if any(part.metrics is not None for part in report.slices):
        tables.append(_slices(report))
    return [render(table) for table in tables]


def _curves(report: Report) -> Table:
    shown = {
        "APGR": ("apgr", ".3f"),
        "APGR by cost": ("apgr_cost", ".3f"),
        "CPT 50 %": ("cpt_50", ".1%"),
        "saving 100 %": ("saving_100", ".2f"),
        "99 %": ("saving_99", ".2f"),
        "95 %": ("saving_95", ".2f"),
    }
    table = Table(title=f"Ordering prompts, {report.rows:,} unseen requests (savings are read off)")
    if len(report.names) > 2:
        shown.pop("CPT 50 %")  # of more tiers, the share sent to the top says little
    table.add_column("method")
    for name in shown:
        table.add_column(name, justify="right")
    for method in report.orders:
        table.add_row(method, *(_cell(report.figures[method], *what) for what in shown.values()))
    return table


def _policies(report: Report) -> Table:
    shown = {
        "quality": ("quality", ".4f"),
        "of top": ("quality_of_top", ".1%"),
        "USD per 1,000": ("cost_usd", ".4f"),
        "saving": ("saving", ".2f"),
        "above random": ("above_random", "+.4f"),
        "bad downgrades": ("bad_downgrade", ".2%"),
    }
    methods = ("policy", "best constant", "always cheapest", "always top")
    columns = [dict(report.figures[method]) for method in methods]
    for metrics in columns:
        metrics["cost_usd"] = metrics["cost_usd"].times(1000.0)
    table = Table(title="Fixed choices, with 95 % intervals")
    for name in ("", "Suffice, chosen point", *methods[1:]):
        table.add_column(name, justify="right" if name else "left")
    for name, what in shown.items():
        table.add_row(name, *(_cell(metrics, *what, interval=True) for metrics in columns))
    return table


def _calibration(report: Report) -> Table:
    table = Table(
        title="Does the tier suffice? Probabilities against outcomes",
        caption="ECE: mean distance over 15 bins, their noise included; debiased: root mean square "
        "without that noise, as the gate asks",
    )
    for name in ("tier", "AUC", "Brier", "ECE", "ECE, debiased"):
        table.add_column(name, justify="left" if name == "tier" else "right")
    for tier, metrics in report.calibration.items():
        shown = (("auc", ".3f"), ("brier", ".4f"), ("ece", ".4f"), ("ece_debiased", ".4f"))
        table.add_row(tier, *(_cell(metrics, *what, interval=True) for what in shown))
    return table


def _answers(comparisons: Sequence[Comparison]) -> Table:
    table = Table(title="Is Suffice better than …? Differences, with paired 95 % intervals")
    for name in ("than", "in", "difference", "95 % interval", "better?"):
        justify: Literal["left", "right"] = "right" if "di" in name or "95" in name else "left"
        table.add_column(name, justify=justify)
    before = ""
    for asked in comparisons:
        than = "" if asked.rival == before else asked.rival
        table.add_row(than, asked.measure.words, *asked.shown, asked.answer)
        before = asked.rival
    return table


def _slices(report: Report) -> Table:
    found = worst(report.slices)
    told = [
        f"{sum(part.verdict == verdict for part in report.slices)} {words}"
        for verdict, words in (
            (FAILS, "where the promise is shown to fail"),
            (OWN, "below it by the slice's own interval, not after correction"),
            (BELOW, "below it in the estimate only"),
            (TOO_FEW, "with too few rows to tell"),
        )
    ]
    table = Table(
        title=f"The worst of {len(report.slices)} slices",
        caption=f"{', '.join(told)} (shown: corrected for the number of slices)",
    )
    shown = {
        "quality": ("quality", ".3f"),
        "of top": ("quality_of_top", ".1%"),
        "saving": ("saving", ".2f"),
        "bad downgrades": ("bad_downgrade", ".1%"),
        "Brier": ("brier", ".3f"),
        "ECE": ("ece", ".3f"),
    }
    for name in ("slice", "rows", *shown, "the promise"):
        table.add_column(name, justify="left" if name in ("slice", "the promise") else "right")
    for part in found[:WORST_SLICES]:
        assert part.metrics is not None
        cells = [
            _cell(part.metrics, *what, interval=name in ("of top", "bad downgrades"))
            for name, what in shown.items()
        ]
        label = f"{part.kind}: {part.name}"
        table.add_row(label, f"{part.rows:,}", *cells, part.verdict)
    return table


def _values(valuation: Valuation) -> Table:
    shown = {
        "doubly robust": ("quality", ".4f"),
        "SNIPS": ("snips", ".4f"),
        "IPS": ("ips", ".4f"),
        "USD per 1,000": ("cost_usd", ".4f"),
    }
    table = Table(
        title=f"What policies are worth, estimated from {valuation.rows:,} one-sided requests, "
        "with 95 % intervals",
        caption="mean score; of the logging policy what was observed; effective rows: what the "
        "weighted answers are worth",
    )
    for name in ("policy", *shown, "effective rows"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for name, metrics in valuation.figures.items():
        per_1k = {**metrics, "cost_usd": metrics["cost_usd"].times(1000.0)}
        cells = [_cell(per_1k, *what, interval=True) for what in shown.values()]
        rows = valuation.effective.get(name)
        table.add_row(_called(name), *cells, "–" if rows is None else f"{rows:,.0f}")
    return table


def _worth(valuation: Valuation) -> Table:
    table = Table(title="Suffice minus …, with paired 95 % intervals (quality: doubly robust)")
    for name in ("minus", "quality", "USD per 1,000"):
        table.add_column(name, justify="left" if name == "minus" else "right")
    for name, metrics in valuation.against.items():
        cost = {"cost_usd": metrics["cost_usd"].times(1000.0)}
        quality = _cell(metrics, "quality", "+.4f", interval=True)
        table.add_row(_called(name), quality, _cell(cost, "cost_usd", "+.4f", interval=True))
    return table


def _tried(overlap: Overlap, names: Sequence[str]) -> Table:
    table = Table(
        title="Who was tried where: answers by predicted gain of the top over the cheapest tier",
        caption="share of the requests that each tier answered, and their effective rows",
    )
    table.add_column("predicted gain", justify="right", min_width=len("predicted"))
    for name in ("requests", *names):
        table.add_column(name, justify="right")
    table.add_column("smallest propensity", justify="right", min_width=len("propensity"))
    for d, rows in enumerate(overlap.rows):
        tried = zip(overlap.share[d], overlap.effective[d], strict=True)
        least = overlap.smallest[d]
        table.add_row(
            f"{overlap.gain[d]:+.3f} to {overlap.gain[d + 1]:+.3f}",
            f"{rows:,}",
            *(f"{share:.1%} ({effective:,.0f})" for share, effective in tried),
            f"{least:.3g}" if isfinite(least) else "–",
        )
    return table


def _called(policy: str) -> str:
    return "Suffice, chosen point" if policy == CHOSEN else policy


def _cell(metrics: Mapping[str, Interval], name: str, form: str, interval: bool = False) -> str:
    found = metrics.get(name)
    if found is None or not isfinite(found.value):
        return "–"
    if not interval or not (isfinite(found.low) and isfinite(found.high)):
        return f"{found.value:{form}}"
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"
