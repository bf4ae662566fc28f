"""Judge: let a model say how good logged answers are, and say how far it can be trusted.

By a rubric each answer gets a grade from 1 to 5, kept as 0 … 1. In pairs a cheaper tier's answer
stands beside the top tier's, in both orders, as judges prefer what they read first or last (Zheng
et al., arXiv:2306.05685): a row's score is the share of its comparisons that it did not lose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router.tier import Tier
from training.ask import questions
from training.ask.calls import Call, estimate
from training.ask.client import DEFAULT, Upstream, open_client
from training.ask.concordance import FEW, Concordance
from training.ask.gold import read_gold
from training.ask.journal import Journal
from training.ask.outcome import Outcome, agreement, in_pairs, single
from training.ask.providers import list_price
from training.ask.questions import Question
from training.ask.run import journal_path, run_calls, tally_line, write_rows
from training.ask.together import read_together
from training.ask.verdict import CHOICE_FORMS, GRADE_FORMS, read_choice, read_grade
from training.errors import BadInput, Refused, SufficeError
from training.files import check_file
from training.log.layout import SCHEMA
from training.log.requests import CHARS_PER_TOKEN, of_tiers
from training.log.store import read_label
from training.rate import Rate

SOURCE = "judge"
EXPECTED_OUTPUT = 150.0  # tokens of a judge's reply
UNLISTED = (10.0, 30.0)  # USD per million tokens, counted where nobody knows the price


@dataclass(frozen=True, slots=True)
class _Mode:
    """A way of judging.

    Attributes:
        read: what a reply says, None where it holds no verdict.
        forms: that a verdict may have, for the reminder.
        outcome: what the verdicts on all questions come to.
    """

    read: Callable[[str], Any]
    forms: str
    outcome: Callable[[Sequence[Question], Sequence[Any]], Outcome]

    def again(self, call: Call, reply: str) -> Call | None:
        """After a reply without a verdict, once: the same talk, with a reminder."""
        if len(call.messages) > 1 or self.read(reply) is not None:
            return None
        said = {"role": "assistant", "content": reply}
        reminder = {"role": "user", "content": questions.reminder(self.forms)}
        return replace(call, messages=[*call.messages, said, reminder], usd=2 * call.usd)

    def verdict(self, call: Call, journal: Journal) -> Any:
        """The verdict at the end of a chain of calls, None where there is none."""
        verdict: Any = None
        link: Call | None = call
        while verdict is None and link is not None and (reply := journal.answered.get(link.key)):
            verdict, link = self.read(reply["text"]), self.again(link, reply["text"])
        return verdict


POINTWISE = _Mode(read_grade, GRADE_FORMS, single)
PAIRWISE = _Mode(read_choice, CHOICE_FORMS, in_pairs)


@dataclass(frozen=True, slots=True)
class Judged:
    """A finished run.

    Attributes:
        questions: asked, or to be asked.
        unread: of those answered, without a readable verdict also after the reminder.
        estimated_usd: of all questions.
        tally: what `ask_all` counted; None for a dry run.
        rows: written to `out`.
        refusal: why the run did not get to its end, to be raised once its result was shown.
        first_wins: of the verdicts that name a winner, those for the answer shown first.
        consistent: of the pairs judged in both orders, those with the same outcome.
        agreement: with the gold sample, if there is one.
    """

    questions: int
    unread: int
    estimated_usd: float
    tally: dict[str, Any] | None
    out: Path
    rows: int
    refusal: SufficeError | None
    first_wins: Rate | None = None
    consistent: Rate | None = None
    agreement: Concordance | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "questions": self.questions,
            "unread": self.unread,
            "estimated_usd": self.estimated_usd,
            "run": self.tally,
            "out": str(self.out),
            "rows": self.rows,
            "first_wins": self.first_wins and self.first_wins.as_json(),
            "consistent": self.consistent and self.consistent.as_json(),
            "agreement": self.agreement and self.agreement.as_json(),
            "notes": list(self.notes),
        }

    def as_text(self) -> list[str]:
        """For people."""
        told = [f"{self.questions} questions: about ${self.estimated_usd:.4f}"]
        if self.tally is not None:
            told.append(tally_line(self.tally))
            told.append(f"{self.unread} replies held no verdict, also when asked again")
        if self.first_wins is not None:
            told.append(f"the answer shown first wins {_of_n(self.first_wins)} decided comparisons")
        if self.consistent is not None:
            told.append(f"both orders agree: {_of_n(self.consistent)} pairs")
        if self.agreement is not None:
            ours = self.agreement
            told.append(f"equal to gold: {_of_n(ours.accuracy)} labels")
            told.append(f"Cohen's kappa {ours.kappa:.2f} [{ours.low:.2f}, {ours.high:.2f}]")
            if ours.accuracy.n < FEW:
                told.append(f"that is few: label {FEW} or more before you trust it")
        if self.rows:
            told.append(f"{self.out}: {self.rows} rows")
        return [*told, *self.notes]


def judge(
    traffic: Sequence[Path],
    out: Path,
    model: str,
    *,
    tiers: Sequence[Tier] | None = None,
    rubric: Path | None = None,
    pairwise: bool = False,
    gold: str | None = None,
    budget: float | None = None,
    price: tuple[float, float] | None = None,
    upstream: Upstream = DEFAULT,
    max_output_tokens: int = 1024,
    dry_run: bool = False,
) -> Judged:
    """Judge the unlabelled answers of the traffic, and compare the judge with gold scores.

    Answers with a gold score are judged, too, for the comparison. `out` gets only the rows that had
    no score before, with score_source `judge`.

    Args:
        traffic: traffic tables, read as one.
        out: Parquet file to write; its journal is beside it.
        model: the judge.
        tiers: cheapest first; needed with `pairwise`.
        rubric: text file to grade by, in place of the built-in one.
        pairwise: compare each answer with the top tier's, in both orders.
        gold: column of the traffic, or a file, with people's scores.
        budget: USD over all runs with this `out`; None: no limit.
        price: of the judge, USD per million input and output tokens; by default that of its tier,
            else LiteLLM's.
        upstream: where and how to ask.
        max_output_tokens: longest reply.
        dry_run: ask nothing, only estimate the price.

    Raises:
        BadInput: the traffic or the arguments, or nothing to judge.
        EnvironmentProblem: the extra `replay` or a key is missing.
    """
    if pairwise and (tiers is None or rubric is not None):
        raise BadInput("--pairwise needs --tiers (the last tier is the yardstick) and no --rubric")
    check_file(out, *traffic, rubric)
    table = read_together(traffic)
    frame, left_out = of_tiers(table.frame, tiers) if tiers else (table.frame, ())
    known = read_gold(gold, traffic, frame).to_numpy() if gold else np.full(len(frame), np.nan)
    wanted = (frame["score"].isna() | ~np.isnan(known)).to_numpy()
    asked = _questions(frame, wanted, tiers if pairwise else None, rubric)
    who, notes = _price(model, price, tiers or ())
    notes = (*table.notes, *left_out, *notes)
    users = frame["user_id"].to_numpy()
    calls = [_call(one, users[one.rows[0]], who, max_output_tokens) for one in asked]
    usd = estimate(calls)
    if dry_run:
        return Judged(len(asked), 0, usd, None, out, 0, None, notes=notes)
    client = open_client(upstream)
    client.check(model)
    limit = float("inf") if budget is None else budget
    mode = PAIRWISE if pairwise else POINTWISE
    with Journal(journal_path(out)) as journal:
        tally, refusal = run_calls(calls, client, journal, limit, upstream.concurrency, mode.again)
        verdicts = [mode.verdict(call, journal) for call in calls]
        replied = sum(call.key in journal.answered for call in calls)
    outcome = mode.outcome(asked, verdicts)
    if refusal is None and not outcome.scores:
        refusal = Refused(
            f"not one verdict: none of the judge's {replied} replies ended with the line asked for"
        )
    rows = _rows(frame, outcome.scores)
    if rows:
        write_rows(out, rows, read_label(traffic[0]))
    return Judged(
        questions=len(asked),
        unread=replied - sum(verdict is not None for verdict in verdicts),
        estimated_usd=usd,
        tally=tally,
        out=out,
        rows=len(rows),
        refusal=refusal,
        first_wins=outcome.first_wins,
        consistent=outcome.consistent,
        agreement=agreement(outcome, known) if gold else None,
        notes=notes,
    )


def _questions(
    frame: pd.DataFrame,
    wanted: NDArray[np.bool_],
    paired: Sequence[Tier] | None,
    rubric: Path | None,
) -> list[Question]:
    """What to ask about the rows wanted: in pairs of these tiers' answers, or one by one."""
    if paired is not None:
        asked = questions.paired(frame, wanted, paired)
        missing = "with an answer of the top tier and of another"
    else:
        words = questions.read_rubric(rubric) if rubric else None
        asked, missing = questions.graded(frame, wanted, words), "with an answer"
    if not asked:
        raise BadInput(f"nothing to judge: no unlabelled row {missing}; see `suffice replay`")
    return asked


def _price(
    model: str, given: tuple[float, float] | None, tiers: Sequence[Tier]
) -> tuple[Tier, tuple[str, ...]]:
    """The judge as a tier of its own, with its price, and a note where that is a guess."""
    of_tier = [(t.input_usd_per_mtok, t.output_usd_per_mtok) for t in tiers if t.model == model]
    price = given or next(iter(of_tier), None) or list_price(model)
    if price is not None:
        return Tier(SOURCE, model, *price), ()
    note = f"nobody lists the price of {model}: counted at ${UNLISTED[0]:g}/{UNLISTED[1]:g} per "
    return Tier(SOURCE, model, *UNLISTED), (f"{note}million tokens; --price says better",)


def _call(question: Question, user: str | None, who: Tier, max_tokens: int) -> Call:
    sent = len(question.prompt) / CHARS_PER_TOKEN * who.input_usd_per_mtok
    usd = (sent + min(EXPECTED_OUTPUT, max_tokens) * who.output_usd_per_mtok) / 1e6
    messages = [{"role": "user", "content": question.prompt}]
    return Call(question.request_id, who, messages, usd, max_tokens, {"user_id": user})


def _rows(frame: pd.DataFrame, scores: dict[int, float]) -> list[dict[str, Any]]:
    """The judged rows that had no score of their own."""
    free = [row for row in sorted(scores) if np.isnan(frame["score"][row])]
    judged = frame.iloc[free].assign(score=[scores[row] for row in free], score_source=SOURCE)
    names = list(SCHEMA.names)
    return [dict(zip(names, row, strict=True)) for row in judged[names].itertuples(index=False)]


def _of_n(rate: Rate) -> str:
    return f"{rate} of {rate.n}"
