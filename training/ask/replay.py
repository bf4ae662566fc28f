"""Replay: ask the tiers that did not answer a logged request, and write what they say as rows.

The journal beside the output (`OUT.journal.jsonl`) is the record of what was paid for; the output
is made from it and from the log, and may be made again at any time. Give the same command again to
go on after a kill, a spent budget or an outage.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from router.tier import Tier
from training.ask.calls import Call, estimate
from training.ask.client import Client, open_client
from training.ask.journal import Journal
from training.ask.plan import Plan, make_plan
from training.ask.together import read_together
from training.errors import BadInput, Refused, SufficeError
from training.files import check_file, whole
from training.log.layout import to_arrow
from training.log.normalise import normalise, refusal
from training.log.requests import of_tiers
from training.log.store import LABEL, read_label

TAG = "replay"
UNLIKE = (
    "a {strategy} sample is not like the traffic: all of it is learned from, but figures and "
    "promises will rest on about {share:.0%} of it, which together are (column sample_probability)"
)
COPIED = ("at", "session_id", "user_id", "messages", "reference", "source")


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where and how to ask: see `ask.client.open_client`; `timeout`: seconds per attempt."""

    base_url: str | None = None
    key_variable: str | None = None
    timeout: float = 120.0
    concurrency: int = 8


DEFAULT = Upstream()


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finished run: the plan, what `ask_all` tells (None for a dry run), and the rows in `out`.

    `refusal` is why the run did not get to its end, to be raised once its result has been shown.
    """

    plan: Plan
    tally: dict[str, Any] | None
    out: Path
    rows: int
    refusal: SufficeError | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For machines: {"plan": {…}, "run": {…} or null, "out", "rows", "notes"}."""
        return {
            "plan": self.plan.as_json(),
            "run": self.tally,
            "out": str(self.out),
            "rows": self.rows,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """For people."""
        plan = self.plan.as_json()
        told = [
            f"{plan['calls']} calls for {plan['requests']} of {plan['candidates']} requests that "
            f"some tier has not answered: about ${self.plan.usd:.4f}"
        ]
        told += [
            f"  {name}: {each['calls']} calls, about ${each['estimated_usd']:.4f}"
            for name, each in plan["tiers"].items()
        ]
        told += [f"  left out: {count} {why}" for why, count in self.plan.skipped.items()]
        if self.tally is not None:
            told.append(tally_line(self.tally))
        if self.rows:
            told.append(f"{self.out}: {self.rows} rows")
        return [*told, *self.notes]


def tally_line(tally: dict[str, Any]) -> str:
    """What a run did, in a sentence."""
    line = (
        f"{tally['answered']} answered, {tally['failed']} failed, {tally['known']} known from "
        f"before, {tally['left']} not asked; {tally['again']} repeated attempts; "
        f"${tally['usd']:.4f} spent in all"
    )
    if tally["in_flight"]:
        line += f"; {tally['in_flight']} were in flight when a run was killed, and were asked again"
    return line


def replay(
    traffic: Sequence[Path],
    tiers: Sequence[Tier],
    out: Path,
    budget: float | None,
    *,
    sample: int | None = None,
    strategy: str = "random",
    artifact: Path | None = None,
    upstream: Upstream = DEFAULT,
    max_output_tokens: int = 4096,
    seed: int = 0,
    dry_run: bool = False,
) -> Replayed:
    """Ask each sampled request's missing tiers and write canonical rows to `out`.

    `budget` is in USD, over all runs with this `out`. A replayed row has the request's id, time and
    session and the tag `replay`. Its propensity is null, as no policy chose it; what stands there
    is `sample_probability`, with which the sample took the request.

    Raises:
        BadInput: the traffic or the arguments.
        EnvironmentProblem: the extra `replay` or a key is missing.
    """
    check_file(out, *traffic, artifact)
    table = read_together(traffic)
    frame, left_out = of_tiers(table.frame, tiers)
    notes = (*table.notes, *left_out)
    plan = make_plan(
        frame,
        tiers,
        sample=sample,
        strategy=strategy,
        artifact=artifact,
        max_output_tokens=max_output_tokens,
        seed=seed,
    )
    if plan.like_traffic < 1:
        notes += (UNLIKE.format(strategy=strategy, share=plan.like_traffic),)
    if dry_run:
        return Replayed(plan, None, out, 0, None, notes)
    if budget is None:
        raise BadInput("--budget USD is needed to ask anything; --dry-run tells the price")
    client = open_client(upstream.base_url, upstream.timeout, upstream.key_variable)
    for model in {call.tier.model for call in plan.calls}:
        client.check(model)
    with Journal(journal_path(out)) as journal:
        tally, refusal = run_calls(plan.calls, client, journal, budget, upstream.concurrency)
        reached = 1.0 - tally["left"] / max(len(plan.calls), 1)
        rows = _rows(frame, plan.calls, journal, reached)
    if len(rows):
        write_rows(out, rows, read_label(traffic[0]))
    return Replayed(plan, tally, out, len(rows), refusal, notes)


def journal_path(out: Path) -> Path:
    """Where the journal of an output file is."""
    return out.with_name(f"{out.name}.journal.jsonl")


def run_calls(
    calls: Sequence[Call],
    client: Client,
    journal: Journal,
    budget: float,
    concurrency: int,
    follow: Callable[[Call, str], Call | None] = lambda call, text: None,
) -> tuple[dict[str, Any], SufficeError | None]:
    """Check the budget, ask, and say what was done and why it did not get to its end, if so."""
    from training.ask.asking import Tally, ask_all, unasked  # it needs the extra

    left = [call for first in calls if (call := unasked(first, journal, follow))]
    price = estimate(left)
    if price > budget - journal.spent:
        spent = f", ${journal.spent:.4f} of it spent by earlier runs" if journal.spent else ""
        told = (
            f"{len(left)} calls cost about ${price:.4f}, the budget is ${budget:g}{spent}; nothing "
            "was asked. Raise --budget, or ask less"
        )
        known = len(calls) - len(left)
        return Tally(known=known, left=len(left), usd=journal.spent).as_json(), Refused(told)
    tally, fatal = asyncio.run(ask_all(calls, client, journal, budget, concurrency, follow))
    if fatal is None and tally.stopped:
        fatal = Refused(
            f"{tally.stopped}: {tally.left} calls were not made; the answers so far are kept. "
            "Give the same command again to go on"
        )
    return tally.as_json(), fatal


def write_rows(out: Path, rows: Sequence[dict[str, Any]], label: str | None) -> None:
    """Write rows of the traffic table beside `out`, then replace it.

    `label` says how ids were replaced in the table that they come from (training.log.store).
    """
    names = {name for row in rows for name in row}
    columns = {name: [row.get(name) for row in rows] for name in names}
    frame, problems = normalise(columns, len(rows))
    if problems:
        raise BadInput(refusal(out, frame, problems))
    table = pa.Table.from_batches([to_arrow(frame)])
    kept = table.replace_schema_metadata({LABEL: label} if label else None)
    with whole(out) as beside:
        pq.write_table(kept, beside, compression="zstd")


def _rows(
    frame: pd.DataFrame, calls: Sequence[Call], journal: Journal, reached: float
) -> list[dict[str, Any]]:
    """The rows of every call that the journal knows to have ended, also those of earlier runs.

    `reached` is the share of the planned calls that were made: as they stand in random order, it
    multiplies the probability of each.
    """
    planned = {call.key for call in calls}
    base = frame.sort_values("status", kind="stable", ascending=False)  # ok before error
    base = base.drop_duplicates("request_id").set_index("request_id")
    known = base[[*COPIED, "tags"]].to_dict("index")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    ended = journal.failed | journal.answered
    for key, record in ended.items():
        asked = journal.asked[key]
        request, tier = asked["request_id"], asked["tier"]
        if request not in known:
            continue
        chance = asked["propensity"] * (reached if key in planned else 1.0)
        rows[request, tier] = {
            **{name: known[request][name] for name in COPIED},
            "request_id": request,
            "tags": [*known[request]["tags"], TAG],
            "tier": tier,
            "model": asked["model"],
            "sample_probability": chance,
            **{name: record[name] for name in ("input_tokens", "output_tokens", "latency_ms")},
            "cost_usd": record["usd"],
            "response": record["text"],
            "finish_reason": record["finish_reason"],
            "error": record["error"],
            "status": "error" if record["error"] else "ok",
        }
    return list(rows.values())
