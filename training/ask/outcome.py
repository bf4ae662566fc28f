"""What a judge's verdicts come to: scores of rows, and how far the judge can be trusted."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.ask.concordance import Concordance, concordance
from training.ask.questions import Question
from training.rate import Rate


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the verdicts say of the rows.

    Attributes:
        scores: {row: score in [0, 1]}.
        pairs: {(row, row of the top tier): "won", "tied" or "lost"}, of both orders together;
            different results are a tie.
        first_wins: of the verdicts that name a winner, those for the answer shown first.
        consistent: of the pairs judged in both orders, those with the same result.
    """

    scores: dict[int, float]
    pairs: dict[tuple[int, int], str] = field(default_factory=dict)
    first_wins: Rate | None = None
    consistent: Rate | None = None


def single(questions: Sequence[Question], verdicts: Sequence[float | None]) -> Outcome:
    """Scores from grades."""
    graded = zip(questions, verdicts, strict=True)
    return Outcome({q.rows[0]: grade for q, grade in graded if grade is not None})


def in_pairs(questions: Sequence[Question], verdicts: Sequence[str | None]) -> Outcome:
    """Scores from comparisons; a pair counts only with a verdict in both orders."""
    scores: dict[int, list[float]] = defaultdict(list)
    pairs: dict[tuple[int, int], str] = {}
    same = 0
    decided = [verdict for verdict in verdicts if verdict in ("A", "B")]
    for i in range(0, len(questions), 2):
        small, top = questions[i].rows
        one, two = verdicts[i], verdicts[i + 1]
        if one is None or two is None:
            continue
        results = (
            {"A": "won", "B": "lost", "tie": "tied"}[one],
            {"A": "lost", "B": "won", "tie": "tied"}[two],
        )
        pairs[small, top] = results[0] if results[0] == results[1] else "tied"
        same += results[0] == results[1]
        scores[small] += [float(result != "lost") for result in results]
        scores[top] += [float(result != "won") for result in results]
    return Outcome(
        {row: float(np.mean(values)) for row, values in scores.items()},
        pairs,
        Rate.of(decided.count("A"), len(decided)),
        Rate.of(same, len(pairs)),
    )


def agreement(outcome: Outcome, gold: NDArray[np.float64]) -> Concordance | None:
    """Judge against gold: who won, where there are pairs; else whether an answer suffices (0.5).

    gold: float64[n], people's scores of the rows; NaN where there is none.
    """
    if outcome.first_wins is not None:
        known = [pair for pair in outcome.pairs if not np.isnan(gold[list(pair)]).any()]
        sign = {1: "won", 0: "tied", -1: "lost"}
        theirs = [sign[int(np.sign(gold[small] - gold[top]))] for small, top in known]
        ours = [outcome.pairs[pair] for pair in known]
        labels: tuple[str, ...] = ("won", "tied", "lost")
    else:
        rows = [row for row in outcome.scores if not np.isnan(gold[row])]
        words = {True: "sufficed", False: "failed"}
        theirs = [words[bool(gold[row] >= 0.5)] for row in rows]
        ours = [words[outcome.scores[row] >= 0.5] for row in rows]
        labels = ("sufficed", "failed")
    return concordance(theirs, ours, labels) if ours else None
