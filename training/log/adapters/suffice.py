"""Suffice's own decision logs, with the outcomes that a service writes under `decision_id`.

The decision says when, which tier and with which probability; an outcome has any other columns of
the traffic table, and the tier where another one answered. Field by field in data/README.md.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.log.adapters.chat import bare_model, completion
from training.log.adapters.records import Numbered, bad, records
from training.log.adapters.rows import Bad, Record, Row, Skip
from training.log.adapters.shelf import Shelf, shelve

DECISIONS, OUTCOMES = "decisions", "outcomes"
OF_A_DECISION = ("at", "session_id", "messages", "tier", "propensity", "tags")
OF_AN_OUTCOME = (
    *("session_id", "user_id", "messages", "input_tokens", "output_tokens", "cost_usd"),
    *("latency_ms", "response", "reference", "source", "tags", "finish_reason", "error", "score"),
    *("score_source", "label_weight", "status"),
)


def saw(record: dict[str, Any]) -> str | None:
    """Whether a record is a decision or an outcome of one."""
    if "decision_id" not in record:
        return None
    if "router_version" in record and "propensity" in record:
        return DECISIONS
    return None if "request_id" in record else OUTCOMES


def join(parts: Sequence[tuple[Path, str]]) -> Iterator[tuple[int, Record]]:
    """The decisions of files (path, what was seen), each with the number of its file."""
    with Shelf() as outcomes:
        for number, (path, seen) in enumerate(parts):
            if seen == OUTCOMES:
                yield from shelve(outcomes, "decision_id", number, path)
        for number, (path, seen) in enumerate(parts):
            for record in records(path) if seen == DECISIONS else ():
                yield number, record if isinstance(record, Bad) else _decision(record, outcomes)
        for number, line, _ in outcomes.left():
            yield number, Skip(line, "an outcome whose decision is in none of the files")


def _decision(record: Numbered, outcomes: Shelf) -> Record:
    line, decision = record
    name = decision.get("decision_id")
    if not isinstance(name, str) or not name:
        return bad(line, decision, ValueError("no decision_id"))
    values = {"request_id": name, "model": bare_model(decision.get("model"))}
    values |= {key: decision[key] for key in OF_A_DECISION if decision.get(key) is not None}
    for _, _, outcome in outcomes.take(name):
        if isinstance(outcome.get("response"), dict):
            outcome |= completion(outcome["response"])
        answered = outcome.get("tier")
        if isinstance(answered, str) and answered != values.get("tier"):
            values.pop("propensity", None)  # it is of the tier that was chosen
            values |= {"tier": answered, "model": bare_model(outcome.get("model"))}
        values |= {key: outcome[key] for key in OF_AN_OUTCOME if outcome.get(key) is not None}
    if "messages" not in values:
        return Skip(line, "no messages: log them with the decision or with its outcome")
    if values["messages"] in ("[]", []):  # the router decides that, too
        return Skip(line, "an empty list of messages")
    return Row(line, values)
