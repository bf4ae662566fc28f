"""`suffice label`: a traffic table → the same rows with the labels that several sources give.

The table is read in batches: once for what grades, signals and combination need (some 250 bytes a
row are kept, never a text), once more for the texts of possible near-duplicates, where there are
any, and once to write. Rows and columns stay as they are, but for `score`, `score_source` and
`label_weight`.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from router.tier import Tier
from training.errors import BadInput
from training.files import check_file
from training.label.combine import Labels, combine
from training.label.command_grader import Command
from training.label.graders import NO_REFERENCE, Grade, Grader
from training.label.ladder import build_ladder
from training.label.plan import LabelPlan
from training.label.report import LabelReport, build_report
from training.label.signals import find_signals
from training.label.store import last_turns, read_batches, traffic_files, write_labelled
from training.label.trust import trust
from training.label.turns import TurnReader
from training.log.traffic import check_rows, read_traffic

Floats = NDArray[np.float64]
UNNAMED = "score"  # the source of a score that came without one


def label(
    traffic: Path,
    out: Path,
    plan: LabelPlan,
    sufficed_at: float = 0.5,
    tiers: Sequence[Tier] = (),
    verdicts: Sequence[Path] = (),
) -> LabelReport:
    """Label a traffic table.

    Args:
        traffic: Parquet file or folder of them.
        out: Parquet file to write.
        plan: weights, window and graders.
        sufficed_at: from this score on an answer sufficed.
        tiers: cheapest first; without them the order is taken from prices and names.
        verdicts: more tables with scores of the same answers (a judge's, say).

    Raises:
        BadInput: a table that cannot be read or is labelled already, a grader without a single
            reference, or a model that stands for two tiers; nothing was written.
    """
    check_file(out, traffic, *verdicts)
    files = traffic_files(traffic)
    sheet = _Sheet(plan, verdicts)
    reader = TurnReader()
    for batch in read_batches(files):
        sheet.add(batch, reader.add(batch))
    check_rows(traffic, sheet.rows)
    sheet.check()
    turns = reader.turns()
    ladder = build_ladder(reader.answerers, sheet.prices(len(reader.answerers)), tiers)
    signals = find_signals(turns, ladder.above, plan.minutes, lambda rows: last_turns(files, rows))
    scores = _merged(sheet.scores(), signals)
    trusts = trust(scores, turns.who, plan, sufficed_at)
    labels = Labels.none(sheet.rows)
    if scores:
        labels = combine(scores, trusts, turns.who, plan, sufficed_at)
    write_labelled(files, out, labels)
    notes = [f"order of tiers: {ladder.how}", *sheet.notes()]
    ungraded = {name: dict(reasons) for name, reasons in sheet.ungraded.items()}
    return build_report(out, turns.ok, scores, trusts, labels, plan, sufficed_at, ungraded, notes)


def _merged(given: Mapping[str, Floats], signals: Mapping[str, Floats]) -> dict[str, Floats]:
    """All sources that say something; where the log names a signal itself, its score stays."""
    scores = dict(signals)
    for name, found in given.items():
        signal = signals.get(name)
        scores[name] = found if signal is None else np.where(np.isnan(found), signal, found)
    return {name: found for name, found in scores.items() if not np.isnan(found).all()}


class _Sheet:
    """What is kept of the rows beside their turns: scores that are there, grades, prices."""

    def __init__(self, plan: LabelPlan, verdicts: Sequence[Path]) -> None:
        self.rows = 0
        self.ungraded: dict[str, Counter[str]] = {grader.name: Counter() for grader in plan.graders}
        self.graded: Counter[str] = Counter()
        self._graders = plan.graders
        self._verdicts, self.verdict_rows = _read_verdicts(verdicts)
        self.matched = 0
        self._parts: dict[str, list[tuple[NDArray[np.int64], Floats]]] = {}
        self._usd: Counter[int] = Counter()
        self._tokens: Counter[int] = Counter()

    def add(self, batch: pa.RecordBatch, who: NDArray[np.int32]) -> None:
        """Take a batch of SCHEMA."""
        columns = {name: batch.column(name).to_pylist() for name in _KEPT}
        if batch.column("label_weight").null_count < len(batch):
            raise BadInput(
                "column label_weight: the table is labelled already; give the one that ingest wrote"
            )
        found: dict[str, dict[int, float]] = {}
        for row, status in enumerate(columns["status"]):
            if status == "error":
                continue
            score = columns["score"][row]
            if score is not None:
                found.setdefault(columns["score_source"][row] or UNNAMED, {})[row] = score
            key = (columns["request_id"][row], columns["tier"][row] or columns["model"][row])
            for source, verdict in self._verdicts.get(key, ()):
                self.matched += 1
                found.setdefault(source, {}).setdefault(row, verdict)
        graded = found.setdefault("grader", {})
        for row, grade in self._grade(columns, graded):
            graded[row] = grade
        for source, scored in found.items():
            rows = np.fromiter(scored, np.int64, len(scored)) + self.rows
            values = np.fromiter(scored.values(), np.float64, len(scored))
            self._parts.setdefault(source, []).append((rows, values))
        self._bill(columns, who)
        self.rows += len(batch)

    def check(self) -> None:
        """Refuse a grader that found nothing to compare with on any row that it is for."""
        for name, reasons in self.ungraded.items():
            if reasons[NO_REFERENCE] and not self.graded[name] and set(reasons) == {NO_REFERENCE}:
                raise BadInput(
                    f"grader {name!r} compares with column reference, and none of the "
                    f"{reasons[NO_REFERENCE]} answers that it is for has one"
                )

    def scores(self) -> dict[str, Floats]:
        """The scores of each source, float64[rows]."""
        found = {}
        for source, parts in self._parts.items():
            found[source] = np.full(self.rows, np.nan)
            for rows, values in parts:
                found[source][rows] = values
        return found

    def notes(self) -> list[str]:
        """What became of verdicts and graders, in words."""
        told = []
        if self.verdict_rows:
            told.append(
                f"verdicts: {self.matched} of {self.verdict_rows} are of answers in this table"
            )
        for name, reasons in self.ungraded.items():
            for why, count in reasons.items():
                told.append(f"grader {name}: {count} answers not graded: {why}")
            if not reasons and not self.graded[name]:
                told.append(f"grader {name}: it is for no answer in this table")
        return told

    def prices(self, answerers: int) -> list[float]:
        """Mean USD per token of each answerer, 0 where the log does not tell."""
        return [
            self._usd[k] / self._tokens[k] if self._tokens[k] else 0.0 for k in range(answerers)
        ]

    def _grade(
        self, columns: Mapping[str, list[Any]], graded: Mapping[int, float]
    ) -> Iterator[tuple[int, float]]:
        """Row and score of each answer that a grader is for and that has no grade yet."""
        tasks: list[tuple[int, Grader]] = []
        for row, response in enumerate(columns["response"] if self._graders else ()):
            if response is None or columns["status"][row] == "error" or row in graded:
                continue
            facts = {name: columns[name][row] for name in ("source", "tags", "tier", "model")}
            grader = next((grader for grader in self._graders if grader.takes(facts)), None)
            if grader is not None:
                tasks.append((row, grader))

        def run(task: tuple[int, Grader]) -> Grade:
            row, grader = task
            return grader.grade(columns["response"][row], columns["reference"][row])

        if any(isinstance(grader.criterion, Command) for _, grader in tasks):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                grades = list(pool.map(run, tasks))
        else:
            grades = [run(task) for task in tasks]
        for (row, grader), grade in zip(tasks, grades, strict=True):
            if grade.score is None:
                self.ungraded[grader.name][grade.why] += 1
            else:
                self.graded[grader.name] += 1
                yield row, grade.score

    def _bill(self, columns: Mapping[str, list[Any]], who: NDArray[np.int32]) -> None:
        bills = zip(
            who.tolist(),
            *(columns[name] for name in ("cost_usd", "input_tokens", "output_tokens")),
            strict=True,
        )
        for answerer, usd, paid, made in bills:
            if usd and (paid or made):
                self._usd[answerer] += usd
                self._tokens[answerer] += (paid or 0) + (made or 0)


_KEPT = (
    *("request_id", "tier", "model", "status", "score", "score_source", "response", "reference"),
    *("source", "tags", "cost_usd", "input_tokens", "output_tokens"),
)


def _read_verdicts(
    paths: Sequence[Path],
) -> tuple[dict[tuple[str, str], list[tuple[str, float]]], int]:
    """Scores by request and answerer, from other traffic tables."""
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    rows = 0
    for path in paths:
        frame = read_traffic(path).frame
        frame = frame[frame["score"].notna() & (frame["status"] != "error")]
        if frame.empty:
            raise BadInput(f"{path}: column score: no row carries a score")
        rows += len(frame)
        names = ("request_id", "tier", "model", "score_source", "score")
        for request, tier, model, source, score in zip(*(frame[n] for n in names), strict=True):
            found.setdefault((request, tier or model), []).append((source or UNNAMED, score))
    return found, rows
