"""A run of calls: where they go, what they may cost, and the rows that come of them."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.ask.calls import Call, estimate
from training.ask.client import Client
from training.ask.journal import Journal
from training.errors import BadInput, Refused, SufficeError
from training.files import whole
from training.log.layout import to_arrow
from training.log.normalise import normalise, refusal
from training.log.store import LABEL


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
