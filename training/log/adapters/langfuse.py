"""Langfuse: exported observations, with the scores of their traces, and whose these are.

Observations are updated in place, so of rows with one id the highest `updatedAt` counts. Field by
field in data/README.md.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from training.log.adapters.chat import (
    answer,
    bare_model,
    cost,
    feedback,
    milliseconds,
    thumb,
    tokens,
)
from training.log.adapters.records import (
    UNREADABLE,
    Numbered,
    bad,
    decoded,
    decoded_object,
    records,
)
from training.log.adapters.rows import Again, Bad, Record, Row, Skip
from training.log.adapters.shelf import Shelf
from training.log.messages import bare_prompt, is_chat

OBSERVATIONS, SCORES, TRACES = "observations", "scores", "traces"
_OF_TRACE = ("sessionId", "userId", "tags")  # on its observations, too, in newer exports
_SNAKE = re.compile(r"_([a-z])")


def saw(record: dict[str, Any]) -> str | None:
    """Whether a record is an observation, a score or a trace."""
    record = _named(record)
    if "traceId" in record and "type" in record and "startTime" in record:
        return OBSERVATIONS
    hangs = "subject" in record or "traceId" in record or "sessionId" in record
    if hangs and "name" in record and "value" in record and "id" in record:
        return SCORES
    whose = all(name in record for name in ("id", "timestamp", "public", *_OF_TRACE))
    return TRACES if whose else None


def join(parts: Sequence[tuple[Path, str]]) -> Iterator[tuple[int, Record]]:
    """The generations of files (path, what was seen), each with the number of the file."""
    with Shelf() as verdicts, Shelf() as states:
        numeric: dict[str, bool] = {}
        keep = {
            OBSERVATIONS: partial(_keep_state, states),
            SCORES: partial(_keep_score, verdicts, numeric),
            TRACES: partial(_keep_trace, states),
        }
        for number, (path, seen) in enumerate(parts):
            problems = _kept(path, keep[seen])
            # What is wrong with an observation is told below, in its place.
            yield from ((number, wrong) for wrong in problems if seen != OBSERVATIONS)
        thumbs = {name for name, small in numeric.items() if small}
        for number, (path, seen) in enumerate(parts):
            for record in records(path) if seen == OBSERVATIONS else ():
                if isinstance(record, Bad):
                    yield number, record
                else:
                    yield number, _observation(record, verdicts, states, thumbs)


def _kept(path: Path, keep: Callable[[dict[str, Any]], None]) -> Iterator[Bad]:
    """Keep every record of a file; those that cannot be read come out."""
    for record in records(path):
        if isinstance(record, Bad):
            yield record
            continue
        try:
            keep(_named(record[1]))
        except UNREADABLE as error:
            yield bad(*record, error)


def _named(record: dict[str, Any]) -> dict[str, Any]:
    """A record under the API's names: exports to blob storage have others, and maps in Parquet."""
    if "project_id" in record:
        found = ((_SNAKE.sub(lambda part: part[1].upper(), k), v) for k, v in record.items())
        record = {k: dict(v) if _is_map(v) else v for k, v in found}
    if "providedModelName" in record:
        return {**record, "model": record["providedModelName"]}
    return record


def _is_map(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], tuple)


def _keep_score(verdicts: Shelf, numeric: dict[str, bool], score: dict[str, Any]) -> None:
    """A score under what it hangs on; scores of sessions say nothing of one call.

    A judge's verdict is not the user's.
    """
    if score.get("source") == "EVAL":
        return
    subject = score.get("subject") or {}
    kind = subject.get("kind")
    trace = subject.get("id") if kind == "trace" else score.get("traceId")
    call = subject.get("id") if kind == "observation" else score.get("observationId")
    # Where a category has a name of its own, the value is its number: 0, whatever it means.
    value = score.get("stringValue") or _number(score.get("value"))
    name = str(score.get("name"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        small = score.get("dataType") == "BOOLEAN" or value in (-1, 0, 1)
        numeric[name] = numeric.get(name, True) and small
    if call or trace:
        told = {"name": name, "value": value, "at": _latest(score)}
        verdicts.put(f"call {call}" if call else f"trace {trace}", told)


def _number(value: Any) -> Any:
    """A number that may be there as its text, in CSV; other text as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _keep_state(states: Shelf, row: dict[str, Any]) -> None:
    if isinstance(row.get("id"), str):
        states.put(f"call {row['id']}", _latest(row))
        if row.get("type") == "GENERATION":
            states.put(f"trace {row.get('traceId')}", [str(row.get("startTime")), row["id"]])


def _keep_trace(states: Shelf, trace: dict[str, Any]) -> None:
    known = {name: trace[name] for name in _OF_TRACE if trace.get(name)}
    states.put(f"whose {trace.get('id')}", [_latest(trace), known])


def _latest(row: dict[str, Any]) -> str:
    return str(row.get("updatedAt") or row.get("timestamp") or row.get("createdAt") or "")


def _observation(record: Numbered, verdicts: Shelf, states: Shelf, thumbs: set[str]) -> Record:
    line, row = record[0], _named(record[1])
    try:
        if _latest(row) < max(states.find(f"call {row['id']}"), default=""):
            return Again(line)
        if row["type"] != "GENERATION":
            return Skip(line, f"not a chat call ({str(row['type']).lower()})")
        messages = _messages(row.get("input"))
        if not messages:
            return Skip(line, "no prompt in the log")
        trace = f"trace {row['traceId']}"
        given = verdicts.find(f"call {row['id']}")
        if max(states.find(trace))[1] == row["id"]:  # what hangs on the trace is of its last call
            given += verdicts.find(trace)
        told = sorted(states.find(f"whose {row['traceId']}"), key=lambda told: told[0])
        whose = {name: value for _, known in told for name, value in known.items()}
        row |= {name: value for name, value in whose.items() if not row.get(name)}
        return Row(line, {**_values(row, messages), **feedback(_verdict(given, thumbs))})
    except UNREADABLE as error:
        return bad(line, row, error)


def _values(row: dict[str, Any], messages: Any) -> dict[str, Any]:
    metadata = decoded_object(row.get("metadata"))
    failed = row.get("level") == "ERROR"
    return {
        "request_id": row["id"],
        "at": row.get("startTime"),
        "session_id": row.get("sessionId") or metadata.get("langfuse_session_id"),
        "user_id": row.get("userId") or metadata.get("langfuse_user_id"),
        "tags": row.get("tags") or metadata.get("langfuse_tags"),
        "messages": messages,
        "model": bare_model(row.get("model")),
        "cost_usd": cost(row.get("totalCost") or row.get("calculatedTotalCost")),
        "latency_ms": milliseconds(row.get("startTime"), row.get("endTime")),
        "response": _answer(row.get("output")),
        "error": (row.get("statusMessage") or "ERROR") if failed else None,
        "status": "error" if failed else "ok",
        **_tokens(row),
    }


def _tokens(row: dict[str, Any]) -> dict[str, Any]:
    details = decoded_object(row.get("usageDetails"))
    given, made = _sum(details, "input"), _sum(details, "output")
    if given is not None or made is not None:
        return tokens(given, made)
    used = decoded(row.get("usage")) or {}
    given = used.get("input", row.get("promptTokens"))
    return tokens(given, used.get("output", row.get("completionTokens")))


def _sum(details: dict[str, Any], side: str) -> int | None:
    """All tokens of a side: each kind (cached, audio, reasoning, …) is under a name of its own."""
    counts = [int(n) for name, n in details.items() if side in name and n is not None]
    return sum(counts) if counts else None


def _messages(given: Any) -> Any:
    """Input is text, mostly JSON text; with tools it is an object that holds the messages."""
    given = decoded(given)
    if isinstance(given, dict):
        given = given.get("messages")
    if isinstance(given, str):
        return bare_prompt(given)
    return [message for message in given if not _is_offered(message)] if is_chat(given) else None


def _is_offered(message: dict[str, Any]) -> bool:
    """Whether a message is the definition of a tool: LangChain's callback adds them at the end."""
    return message["role"] == "tool" and isinstance(message.get("content"), dict)


def _answer(given: Any) -> str | None:
    """Output is a message, a list of them (n answers: the first), or the bare text of a stream."""
    found = decoded(given)
    if is_chat(found):
        found = found[0]
    if isinstance(found, dict) and isinstance(found.get("role"), str):
        return answer(found)
    return given if isinstance(given, str) else None


def _verdict(given: list[dict[str, Any]], thumbs: set[str]) -> float | None:
    """The last thumb: a boolean, a word, or a number of a score that is always -1, 0 or 1."""
    found = None
    for told in sorted(given, key=lambda told: str(told["at"])):
        value = told["value"]
        score = thumb(value)
        if score is None and isinstance(value, int | float) and told["name"] in thumbs:
            score = float(value > 0)
        found = found if score is None else score
    return found
