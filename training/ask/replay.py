"""Replay: ask the tiers that did not answer a logged request, and write what they say as rows.

The journal beside the output (`OUT.journal.jsonl`) is the record of what was paid for; the output
is made from it and from the log, and may be made again at any time. Give the same command again to
go on after a kill, a spent budget or an outage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from router.tier import Tier
from training.ask.calls import Call
from training.ask.client import DEFAULT, Upstream, open_client
from training.ask.journal import Journal
from training.ask.plan import Plan, make_plan
from training.ask.run import journal_path, run_calls, tally_line, write_rows
from training.ask.sampling import Sampling
from training.ask.together import read_together
from training.errors import BadInput, SufficeError
from training.files import check_file
from training.log.requests import of_tiers
from training.log.store import read_label

TAG = "replay"
UNLIKE = (
    "a {strategy} sample is not like the traffic: all of it is learned from, but figures and "
    "promises will rest on about {share:.0%} of it, which together are (column sample_probability)"
)
ALL = Sampling()
COPIED = ("at", "session_id", "user_id", "messages", "reference", "source")


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

    def as_text(self) -> list[str]:
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


def replay(
    traffic: Sequence[Path],
    tiers: Sequence[Tier],
    out: Path,
    budget: float | None,
    *,
    sampling: Sampling = ALL,
    upstream: Upstream = DEFAULT,
    max_output_tokens: int = 4096,
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
    check_file(out, *traffic, sampling.artifact)
    table = read_together(traffic)
    frame, left_out = of_tiers(table.frame, tiers)
    notes = (*table.notes, *left_out)
    plan = make_plan(frame, tiers, sampling, max_output_tokens)
    if plan.like_traffic < 1:
        notes += (UNLIKE.format(strategy=sampling.strategy, share=plan.like_traffic),)
    if dry_run:
        return Replayed(plan, None, out, 0, None, notes)
    if budget is None:
        raise BadInput("--budget USD is needed to ask anything; --dry-run tells the price")
    client = open_client(upstream)
    for model in {call.tier.model for call in plan.calls}:
        client.check(model)
    with Journal(journal_path(out)) as journal:
        tally, refusal = run_calls(plan.calls, client, journal, budget, upstream.concurrency)
        reached = 1.0 - tally["left"] / max(len(plan.calls), 1)
        rows = _rows(frame, plan.calls, journal, reached)
    if len(rows):
        write_rows(out, rows, read_label(traffic[0]))
    return Replayed(plan, tally, out, len(rows), refusal, notes)


def _rows(
    frame: pd.DataFrame, calls: Sequence[Call], journal: Journal, reached: float
) -> list[dict[str, Any]]:
    """The rows of every call that the journal knows to have ended, also those of earlier runs.

    `reached` is the share of the planned calls that were made: as they stand in random order, it
    multiplies the probability of each.
    """
    planned = {call.key: call.facts["propensity"] for call in calls}
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
        # A later plan may draw the same request with another probability: then that one holds.
        chance = planned[key] * reached if key in planned else asked["propensity"]
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
