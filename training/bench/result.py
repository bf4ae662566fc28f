"""What a comparison found: for a machine, and for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from rich.table import Table

from training.console import render
from training.measure.compare import ALONG_CURVE, NO, YES, Comparison
from training.measure.curve import Curve, Point
from training.measure.intervals import Interval, plain_intervals

RANDOM, ORACLE = "matched random", "oracle"  # what bounds every method
SHOWN: Final = {
    "APGR": ("apgr", ".3f"),
    "APGR by cost": ("apgr_cost", ".3f"),  # where there are more than two tiers
    "CPT 50 %": ("cpt_50", ".1%"),
    "CPT 80 %": ("cpt_80", ".1%"),
    "saving 100 %": ("saving_100", ".2f"),
    "99 %": ("saving_99", ".2f"),
    "95 %": ("saving_95", ".2f"),
    "AIQ": ("aiq", ".4f"),
}
_WORDS: Final = {YES: "better", NO: "worse"}


@dataclass(frozen=True, slots=True)
class Bench:
    """A comparison, finished.

    Attributes:
        requests, trained, tested: how many; the last two in the first seed.
        tiers: their names, cheapest first.
        seeds: which were played.
        headline: the metric by which the best peer is named: ``apgr`` of two tiers, the dearer of
            which is the better one, else ``aiq``.
        sources: {method: what it is}, Suffice first, then peers, then what bounds them.
        figures: {method: {metric: Interval}}, means over seeds.
        by_seed: {method: its metrics in each seed}.
        microseconds: {method: of one decision}.
        settings: {peer: what tuning chose in each seed}.
        against: {Suffice's name: {method: {metric: Interval}}}, Suffice minus the method.
        chosen: {Suffice's name: {metric: Interval}}, its operating point, chosen beforehand.
        best_peer: by the headline metric on these test rows, which favours peers.
        curves: {method: Curve}, the first seed's.
        constants: always-one-tier points of the first seed.
        missing: {metric: why it does not exist on these rows}.
        notes: what a reader must know, in words.
    """

    requests: int
    trained: int
    tested: int
    tiers: tuple[str, ...]
    seeds: tuple[int, ...]
    headline: str
    sources: dict[str, str]
    figures: dict[str, dict[str, Interval]]
    by_seed: dict[str, list[dict[str, float]]]
    microseconds: dict[str, float]
    settings: dict[str, list[dict[str, Any]]]
    against: dict[str, dict[str, dict[str, Interval]]]
    chosen: dict[str, dict[str, Interval]]
    best_peer: str
    curves: dict[str, Curve]
    constants: tuple[Point, ...]
    missing: dict[str, str]
    notes: tuple[str, ...]

    @property
    def verdicts(self) -> dict[str, Comparison]:
        """{Suffice's name: against the best peer, by the headline metric}."""
        measure = ALONG_CURVE[self.headline]
        return {
            name: Comparison(self.best_peer, measure, found[self.best_peer][self.headline])
            for name, found in self.against.items()
        }

    def as_json(self) -> dict[str, Any]:
        """For a machine; what does not exist is null."""
        methods = {}
        plain = plain_intervals(self.figures)
        for name, source in self.sources.items():
            methods[name] = {
                "what": source,
                "metrics": plain[name],
                "seeds": [_plain(found) for found in self.by_seed[name]],
                "settings": self.settings.get(name),
                "microseconds": self.microseconds.get(name),
            }
        return {
            "requests": self.requests,
            "trained": self.trained,
            "tested": self.tested,
            "tiers": list(self.tiers),
            "seeds": list(self.seeds),
            "headline": self.headline,
            "best_peer": self.best_peer,
            "better_than_best_peer": {name: one.answer for name, one in self.verdicts.items()},
            "methods": methods,
            "suffice_minus": {name: plain_intervals(found) for name, found in self.against.items()},
            "chosen": plain_intervals(self.chosen),
            "undefined": self.missing,
            "notes": list(self.notes),
        }

    def as_text(self) -> list[str]:
        """For a terminal."""
        table = Table(title=self._title)
        header, rows = self._cells()
        for name in header:
            table.add_column(name, justify="right" if name != header[0] else "left")
        for row in rows:
            table.add_row(*row)
        return [render(table), *self.lines]

    def as_markdown(self) -> str:
        """The table and what it shows, for a README."""
        header, rows = self._cells()
        table = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
        lines = ["| " + " | ".join(row) + " |" for row in table]
        return (
            "\n".join([self._title + ".", "", *lines, "", *(f"- {one}" for one in self.lines)])
            + "\n"
        )

    @property
    def lines(self) -> list[str]:
        """The findings and notes in sentences."""
        told = []
        for name, verdict in self.verdicts.items():
            value, limits = verdict.shown
            word = _WORDS.get(verdict.answer, verdict.answer)
            told.append(
                f"{name} against the best peer, {verdict.rival}: {verdict.measure.words} {value} "
                f"(95 % {limits}): {word}"
            )
        for name, metrics in self.chosen.items():
            kept = _number(metrics["quality_of_top"].value, ".1%")
            saving = _number(metrics["saving"].value, ".2f")
            told.append(
                f"{name}, at the point that it chose beforehand: {kept} of the top tier’s "
                f"quality, {saving} times cheaper (savings in the table are read off)"
            )
        told += [f"{metric} does not exist here: {why}" for metric, why in self.missing.items()]
        return [*told, *self.notes]

    @property
    def _title(self) -> str:
        return (
            f"{' / '.join(self.tiers)}: {self.trained:,} requests to learn from, {self.tested:,} "
            f"to test on, mean of {len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}"
        )

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        other = "APGR by cost" if len(self.tiers) == 2 else "APGR"
        shown = {
            name: what
            for name, what in SHOWN.items()
            if name != other
            and any(isfinite(found[what[0]].value) for found in self.figures.values())
        }
        ours, measure = next(iter(self.against)), ALONG_CURVE[self.headline]
        header = ["method", *shown, "µs", f"{ours} − it, {self.headline.upper()} (95 %)"]
        rows = []
        for name, found in self.figures.items():
            row = [name, *(_number(found[metric].value, form) for metric, form in shown.values())]
            row.append(_number(self.microseconds.get(name, float("nan")), ",.0f"))
            gap = self.against[ours].get(name, {}).get(self.headline)
            told = "" if gap is None else "{} ({})".format(*Comparison(name, measure, gap).shown)
            rows.append([*row, told])
        return header, rows


def _number(value: float, form: str) -> str:
    return f"{value:{form}}" if isfinite(value) else "–"


def _plain(found: Mapping[str, float]) -> dict[str, float | None]:
    return {metric: value if isfinite(value) else None for metric, value in found.items()}
