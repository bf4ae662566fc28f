"""What `suffice label` found: coverage, conflicts, and how far the sources agree."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from training.console import render
from training.label.agreement import Pair, compare
from training.label.combine import Labels
from training.label.plan import WEIGHTS, LabelPlan
from training.label.trust import Trust

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What one source said: rows, their share of the answered calls, the mean of its scores.

    `weight` is the mean weight that its words had, as `stated`, or as measured on the `overlap`
    with graded answers.
    """

    name: str
    stated: float
    overlap: int
    weight: float
    rows: int
    share: float
    mean: float


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Coverage, conflicts and agreement of the labels written to `out`.

    Attributes:
        rows, failed, labelled: calls, those that failed (never labelled), those with a label.
        conflicts: rows on which sources contradict each other.
        sources, pairs: strongest first.
        ungraded: grader → reason → answers that it was for and could not grade.
    """

    out: Path
    rows: int
    failed: int
    labelled: int
    conflicts: int
    sources: tuple[SourceReport, ...]
    pairs: tuple[Pair, ...]
    ungraded: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For machines; what is not known is null."""
        values = asdict(self) | {"out": str(self.out)}
        return _without_nan(values)

    def as_text(self) -> Iterator[str]:
        """Tables and notes for a terminal."""
        if self.sources:
            yield render(self._coverage())
        if self.pairs:
            yield render(self._agreement())
        yield from self.notes
        share = self.labelled / self.rows
        yield (
            f"{self.out}: {self.labelled} of {self.rows} rows labelled ({share:.1%}), "
            f"{self.conflicts} conflicts, {self.failed} failed calls"
        )

    def _coverage(self) -> Table:
        table = Table(title="Sources of labels")
        columns = ("source", "rows", "share", "mean score", "stated", "measured on", "weight")
        for name in columns:
            table.add_column(name, justify="left" if name == "source" else "right")
        for s in self.sources:
            said = (s.name, f"{s.rows}", f"{s.share:.1%}", f"{s.mean:.3f}")
            table.add_row(*said, f"{s.stated:.2f}", f"{s.overlap or '–'}", f"{s.weight:.2f}")
        return table

    def _agreement(self) -> Table:
        table = Table(
            title="Where two sources speak of the same answers (95 % intervals)",
            caption="yes and no: of all that the stronger judged so; silence is no error",
        )
        columns = ("stronger", "weaker", "rows", "agree", "says yes to a no")
        for name in (*columns, "says no to a yes"):
            table.add_column(name, justify="left" if name.endswith("er") else "right")
        for pair in self.pairs:
            table.add_row(
                pair.stronger,
                pair.weaker,
                f"{pair.agree.n}",
                *(
                    f"{rate}" if rate.n else "–"
                    for rate in (pair.agree, pair.false_positive, pair.false_negative)
                ),
            )
        return table


def build_report(
    out: Path,
    ok: NDArray[np.bool_],
    scores: Mapping[str, Floats],
    trusts: Mapping[str, Trust],
    labels: Labels,
    plan: LabelPlan,
    sufficed_at: float,
    ungraded: Mapping[str, Mapping[str, int]],
    notes: Sequence[str],
) -> LabelReport:
    """Count and compare.

    Args:
        out: the table that was written.
        ok: bool[n], calls that did not fail.
        scores: float64[n] by source.
        trusts: how far each source is trusted.
        labels: of the n rows.
        plan: the sources' weights.
        sufficed_at: from this score on an answer sufficed.
        ungraded, notes: passed on.
    """
    answered = int(ok.sum())
    sources = []
    for name, weight in zip(labels.sources, labels.trusted, strict=True):
        said = scores[name][~np.isnan(scores[name])]
        share, mean = len(said) / max(answered, 1), float(said.mean())
        stated, overlap = plan.weight(name), trusts[name].overlap
        sources.append(SourceReport(name, stated, overlap, weight, len(said), share, mean))
    unknown = [name for name in labels.sources if name not in WEIGHTS and not plan.states(name)]
    if unknown:
        notes = [*notes, f"no weight is set for {', '.join(unknown)}: counted as feedback"]
    return LabelReport(
        out=out,
        rows=len(ok),
        failed=len(ok) - answered,
        labelled=int((~np.isnan(labels.score)).sum()),
        conflicts=labels.conflicts,
        sources=tuple(sources),
        pairs=tuple(compare(scores, labels.sources, sufficed_at)),
        ungraded=ungraded,
        notes=tuple(notes),
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value
