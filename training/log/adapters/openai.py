"""OpenAI: Batch files, stored chat completions, and request/response pairs that applications write.

A batch is its input, output and error files; a stored completion and its messages are two files.
They are given together. Field by field in data/README.md.
"""

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from router.request import read_body
from training.log.adapters.chat import bare_model, completion, joined_chunks, people, unique_id
from training.log.adapters.records import UNREADABLE, Numbered, applied, bad, decoded, records
from training.log.adapters.rows import Bad, Record, Row, Skip
from training.log.adapters.shelf import Shelf, shelve

INPUT, ANSWERS = "input of a batch", "answers of a batch"
STORED, MESSAGES = "stored completions", "messages of stored completions"
PAIRS = "request/response pairs"
CHAT_URL = "/chat/completions"
ENVELOPE = {
    "at": ("ts", "timestamp", "time", "created_at", "at"),
    "session_id": ("session_id", "conversation_id", "thread_id"),
    "user_id": ("user_id", "user"),
    "latency_ms": ("latency_ms", "duration_ms"),
    "tags": ("tags",),
    "source": ("source", "app", "service"),
}


def saw(record: dict[str, Any]) -> str | None:
    """Which of OpenAI's files a record is from."""
    if "custom_id" in record:
        return INPUT if "body" in record else ANSWERS if "response" in record else None
    if "completion_id" in record and "role" in record:
        return MESSAGES
    if record.get("object") == "chat.completion" and "choices" in record:
        return STORED
    request = record.get("request")
    if isinstance(request, dict) and "model" in request and "response" in record:
        return PAIRS
    return None


def join(parts: Sequence[tuple[Path, str]]) -> Iterator[tuple[int, Record]]:
    """The calls of files (path, what was seen), each with the number of the file it is from."""
    yield from _batches(parts)
    yield from _stored(parts)
    for number, path in _files(parts, PAIRS):
        yield from ((number, record) for record in applied(_pair, records(path)))


def _files(parts: Sequence[tuple[Path, str]], kind: str) -> list[tuple[int, Path]]:
    return [(number, path) for number, (path, seen) in enumerate(parts) if seen == kind]


def _batches(parts: Sequence[tuple[Path, str]]) -> Iterator[tuple[int, Record]]:
    with Shelf() as answers:
        for number, path in _files(parts, ANSWERS):
            yield from shelve(answers, "custom_id", number, path)
        for number, path in _files(parts, INPUT):
            for record in records(path):
                yield number, record if isinstance(record, Bad) else _request(record, answers)
        for number, line, _ in answers.left():
            yield number, Skip(line, "an answer whose request is in none of the files")


def _request(record: Numbered, answers: Shelf) -> Record:
    line, request = record
    try:
        key, body = request["custom_id"], request["body"]
        found = answers.take(key)
        if not str(request.get("url", CHAT_URL)).endswith(CHAT_URL):
            return Skip(line, f"not a chat call ({request['url']})")
        if not found:
            return Skip(line, "no answer in the files given")
        return Row(line, _batch_values(key, body, found[-1][2]))
    except UNREADABLE as error:
        return bad(line, request, error)


def _batch_values(key: str, body: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    response, error = found.get("response") or {}, found.get("error") or {}
    answered = response.get("body") or {}
    code = response.get("status_code")
    failed = bool(error) or (isinstance(code, int) and code >= 400)
    told = answered.get("error") or error or {}
    reason = told.get("code") or told.get("type") or told.get("message") or str(code)
    made = {
        "request_id": key,
        "at": answered.get("created"),
        **people(body.get("metadata"), body.get("user")),
        "messages": body.get("messages"),
        "model": bare_model(body.get("model") or answered.get("model")),
        "error": reason if failed else None,
        "status": "error" if failed else "ok",
    }
    return made if failed else made | completion(answered)


def _stored(parts: Sequence[tuple[Path, str]]) -> Iterator[tuple[int, Record]]:
    with Shelf() as said:
        for number, path in _files(parts, MESSAGES):
            yield from shelve(said, "completion_id", number, path)

        def rows(stored: dict[str, Any]) -> Iterator[dict[str, Any] | str]:
            found = [message for _, _, message in said.find(stored["id"])]
            if not found:
                yield "its messages are in none of the files"
                return
            yield {
                "request_id": stored["id"],
                "at": stored.get("created"),
                **people(stored.get("metadata"), stored.get("input_user")),
                "messages": _in_order(found),
                "model": bare_model(stored.get("model")),
                **completion(stored),
            }

        for number, path in _files(parts, STORED):
            yield from ((number, record) for record in applied(rows, records(path)))


def _in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages by the number at the end of their id, each once (pages of a list overlap)."""
    by_id = {str(message.get("id")): message for message in found}
    ends = [(key.rpartition("-")[2], message) for key, message in by_id.items()]
    ends.sort(key=lambda end: int(end[0]) if end[0].isdecimal() else 0)
    plain = []
    for _, message in ends:
        kept = {k: v for k, v in message.items() if k not in ("id", "completion_id") and v != []}
        parts = kept.pop("content_parts", None)
        plain.append({**kept, "content": parts if kept.get("content") is None else kept["content"]})
    return plain


def _pair(record: dict[str, Any]) -> Iterator[dict[str, Any] | str]:
    request, response = record["request"], decoded(record.get("response"))
    if "messages" not in request:
        yield "not a chat call (a request without messages)"
        return
    if isinstance(response, list):
        if response and not any("choices" in chunk for chunk in response):
            yield "a stream of other chunks than chat completions'"
            return
        response = joined_chunks(response)
    if isinstance(response, str):
        response = {"choices": [{"message": {"content": response}}]}
    if not isinstance(response, dict):
        response = {}
    failed = _failure(record, response)
    made = {
        "request_id": unique_id(response.get("id")) or _fingerprint(record),
        **people(request.get("metadata"), request.get("user")),
        "messages": read_body(request)[0],
        "model": bare_model(request.get("model") or response.get("model")),
        "error": failed or None,
        "status": "error" if failed else "ok",
        **completion(response),
    }
    for column, names in ENVELOPE.items():
        given = [record[name] for name in names if record.get(name) is not None]
        if given:
            made[column] = given[0]
    yield made


def _failure(record: dict[str, Any], response: dict[str, Any]) -> Any:
    """What failed by the envelope, the provider's own words or the HTTP status, if anything."""
    failed = record.get("error") or response.get("error")
    if isinstance(failed, dict):
        return failed.get("type") or failed.get("code") or failed.get("message") or str(failed)
    code = str(record.get("http_status") or "")
    return failed or (code if code.isdecimal() and int(code) >= 400 else None)


def _fingerprint(record: dict[str, Any]) -> str:
    """An id for a call that got none, the same whenever it is read."""
    text = json.dumps(record, sort_keys=True)
    return f"pair-{blake2b(text.encode(), digest_size=12).hexdigest()}"
