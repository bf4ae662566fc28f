"""The log formats one by one: what joins, what is skipped, what is a thumb; formats of others."""

import json
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from router.prompt import Prompt
from training.errors import BadInput, EnvironmentProblem
from training.log import adapters
from training.log.adapters import Adapter
from training.log.adapters.chat import answer, bare_model, cost, joined_chunks, thumb, tokens
from training.log.adapters.shelf import Shelf
from training.log.ingest import IngestReport, ingest
from training.log.traffic import read_traffic

USER = [{"role": "user", "content": "hello"}]
OF_PARTS = [{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]


def lines(path: Path, *rows: Any) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(out: Path, *sources: Path, **how: Any) -> tuple[IngestReport, pd.DataFrame]:
    """Ingest with ids as they are, and the table by request_id."""
    report = ingest(sources, out / "t.parquet", keep_ids=True, max_bad=1, **how)
    return report, read_traffic(out / "t.parquet").frame.set_index("request_id")


def counts(report: IngestReport) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in report.total.items() if count}


def payload(number: int, **more: Any) -> dict[str, Any]:
    """A standard logging payload, with the fields that are read."""
    message = {"role": "assistant", "content": "answer"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return {
        "id": f"p{number}",
        "trace_id": "s1",
        "session_id": "",
        "call_type": "acompletion",
        "status": "success",
        "startTime": 1_790_000_000.0 + number,
        "endTime": 1_790_000_000.5 + number,
        "model": "openai/gpt-4o",
        "custom_llm_provider": "openai",
        "response_cost": 0.001,
        "request_tags": ["a", "User-Agent: x"],
        "messages": USER,
        "response": {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage},
        "model_parameters": {"user": "u1"},
        **usage,
        **more,
    }


def spend(number: int, **more: Any) -> dict[str, Any]:
    """A row of the proxy's spend log."""
    request = json.dumps({"messages": USER})
    return {
        "request_id": f"s{number}",
        "call_type": "acompletion",
        "spend": 0.001,
        "startTime": "2026-11-02T10:00:00+00:00",
        "endTime": "2026-11-02T10:00:01+00:00",
        "model": "openai/gpt-4o",
        "metadata": "{}",
        "proxy_server_request": request,
        "messages": "{}",
        "response": json.dumps({"choices": [{"message": {"content": "answer"}}]}),
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "status": "success",
        **more,
    }


def test_litellm_skips_what_was_cut_or_withheld(tmp_path: Path) -> None:
    cut = "some… (litellm_truncated skipped 28000 chars. …) end"
    hidden = [{"role": "user", "content": "redacted-by-litellm"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": cut}]}]
    rows = [
        spend(1),
        spend(2, proxy_server_request=json.dumps({"messages": [{"role": "user", "content": cut}]})),
        spend(3, proxy_server_request="{}"),
        spend(4, response=json.dumps({"choices": [{"message": {"content": cut}}]})),
        spend(5, proxy_server_request=json.dumps({"messages": parts})),
        payload(6, messages=hidden),
        payload(7, messages="redacted-by-litellm"),
        payload(8, call_type="aembedding"),
        payload(9, messages=[{"role": "user", "content": "what is litellm_truncated?"}]),
    ]
    report, frame = read(tmp_path, lines(tmp_path / "x.jsonl", *rows))
    assert counts(report) == {"read": 9, "ingested": 3, "skipped": 6}
    assert set(frame.index) == {"s1", "s4", "p9"}
    assert frame["response"]["s4"] is None
    assert frame["latency_ms"].tolist() == [1000, 1000, 500]
    told = " ".join(report.notes)
    for why in ("2 rows skipped: the logger cut", "2 rows skipped: the logger withheld"):
        assert why in told
    assert "1 rows skipped: no prompt in the log" in told
    assert "1 rows skipped: not a chat call (aembedding)" in told


def test_litellm_fields(tmp_path: Path) -> None:
    rows = [
        payload(1, prompt_tokens=0, completion_tokens=0, response_cost=0.0, response={}),
        payload(2, end_user="e1", session_id="own", model="openai/ft:x"),
        payload(3, status="failure", error_information={"error_class": "Timeout"}, response={}),
    ]
    _, frame = read(tmp_path, lines(tmp_path / "x.jsonl", *rows))
    assert frame.loc["p1", ["input_tokens", "output_tokens", "cost_usd", "response"]].isna().all()
    assert frame["session_id"].tolist() == ["s1", "own", "s1"]
    assert frame["user_id"].tolist() == ["u1", "e1", "u1"]
    assert frame["model"].tolist() == ["gpt-4o", "ft:x", "gpt-4o"]
    assert frame["tags"].tolist() == [["a"]] * 3
    assert frame["status"].tolist() == ["ok", "ok", "error"]


def _asked(key: str, **more: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o", "messages": USER}
    return {"custom_id": key, "url": "/v1/chat/completions", "body": body, **more}


def _answered(key: str, text: str) -> dict[str, Any]:
    body = {"created": 1_790_000_000, "choices": [{"message": {"content": text}}]}
    return {"custom_id": key, "response": {"status_code": 200, "body": body}, "error": None}


def test_a_batch_is_joined_and_what_has_no_partner_is_told(tmp_path: Path) -> None:
    asked = [_asked("a"), _asked("b"), _asked("c"), _asked("e", url="/v1/embeddings")]
    lost = {"custom_id": "b", "response": None, "error": {"code": "batch_expired"}}
    given = lines(tmp_path / "in.jsonl", *asked)
    made = lines(tmp_path / "out.jsonl", _answered("x", "?"), _answered("a", "first"), lost)
    report, frame = read(tmp_path, made, given)
    assert counts(report) == {"read": 5, "ingested": 1, "failed": 1, "skipped": 3}
    assert [(file.read, file.skipped) for file in report.files] == [(1, 1), (4, 2)]
    assert frame["response"].tolist() == ["first", None]
    assert frame["error"].tolist() == [None, "batch_expired"]
    assert any("whose request is in none of the files" in note for note in report.notes)
    with pytest.raises(BadInput, match="no answer in the files given"):
        ingest([given], tmp_path / "u.parquet")


def test_stored_completions_take_their_messages_in_order(tmp_path: Path) -> None:
    stored = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-4o-2024-08-06",
        "choices": [{"message": {"content": "answer"}}],
        "metadata": {"session_id": "s", "user_id": "u"},
    }
    said = [
        {"id": f"c1-{n}", "completion_id": "c1", "role": role, "content": f"{n}"}
        for n, role in ((10, "user"), (2, "assistant"), (0, "system"), (2, "assistant"))
    ]
    said[0] |= {"content": None, "content_parts": [{"type": "text", "text": "10"}]}
    messages = lines(tmp_path / "m.jsonl", *said)
    alone = {**stored, "id": "c2"}
    report, frame = read(tmp_path, messages, lines(tmp_path / "c.jsonl", stored, alone, stored))
    assert counts(report) == {"read": 3, "ingested": 1, "duplicate": 1, "skipped": 1}
    found = json.loads(frame["messages"]["c1"])
    assert [m["role"] for m in found] == ["system", "assistant", "user"]
    assert found[2]["content"] == [{"type": "text", "text": "10"}]
    assert frame.loc["c1", ["session_id", "user_id"]].tolist() == ["s", "u"]


def test_pairs_without_an_id_get_one_that_stays(tmp_path: Path) -> None:
    request = {"model": "gpt-4o", "messages": USER}
    pair = {"request": request, "response": None, "error": {"type": "APITimeoutError"}}
    later = {**pair, "ts": "2026-11-02T10:00:00Z"}
    other = {"request": {"model": "m", "input": "x"}, "response": {}}
    source = lines(tmp_path / "p.jsonl", pair, later, other, pair)
    report, _ = read(tmp_path, source)
    assert counts(report) == {"read": 4, "failed": 2, "duplicate": 1, "skipped": 1}
    assert ingest([source], tmp_path / "t.parquet", keep_ids=True).total["duplicate"] == 3


def test_pairs_whose_failure_or_answer_is_written_otherwise(tmp_path: Path) -> None:
    """They were calls that went well, without an answer."""
    request = {"model": "gpt-4o", "messages": USER}
    said = {"id": "a", "choices": [{"message": {"content": "answer"}}]}
    refused = {"error": {"message": "slow down", "type": "rate_limit"}}
    more: list[dict[str, Any]] = [
        {"response": json.dumps(said)},
        {"response": "answer", "http_status": "200"},
        {"response": refused},
        {"response": refused | {"error": None}, "http_status": "503"},
    ]
    source = lines(tmp_path / "p.jsonl", *({"request": request} | pair for pair in more))
    report, frame = read(tmp_path, source)
    assert counts(report) == {"read": 4, "ingested": 2, "failed": 2}
    assert frame["response"].dropna().tolist() == ["answer"] * 2
    assert frame["error"].dropna().tolist() == ["rate_limit", "503"]


def test_ids_that_ollama_draws_are_nobodys(tmp_path: Path) -> None:
    """After some dozen calls two share one of its 999 ids: one of them was lost."""
    drawn = "chatcmpl-842"
    told = {"gen_ai.operation.name": "chat", "gen_ai.response.id": drawn}
    told |= {"gen_ai.request.model": "m", "gen_ai.input.messages": json.dumps(OF_PARTS)}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in told.items()]
    span = {"traceId": "t", "startTimeUnixNano": 1_790_000_000_000_000_000}
    spans = [{**span, "spanId": name, "attributes": attributes} for name in "ab"]
    pair = {"request": {"model": "m", "messages": USER}, "response": {"id": drawn}}
    given = {
        "otel": [{"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}],
        "pairs": [{**pair, "ts": f"2026-11-02T10:00:0{second}Z"} for second in range(2)],
        "payloads": [payload(n, id=drawn, litellm_call_id=f"c{n}") for n in range(2)],
        "spend": [spend(n, request_id=drawn, litellm_call_id=f"d{n}") for n in range(2)],
    }
    sources = [lines(tmp_path / f"{name}.jsonl", *rows) for name, rows in given.items()]
    report, frame = read(tmp_path, *sources)
    assert counts(report) == {"read": 8, "ingested": 8}
    assert {"c0", "c1", "d0", "d1", "span-t:a", "span-t:b"} < set(frame.index)
    without = lines(tmp_path / "old.jsonl", spend(1, request_id=drawn))
    assert list(read(tmp_path / "old", without)[1].index) == [drawn]  # no other id in the log


def test_calls_of_the_messages_api(tmp_path: Path) -> None:
    """They were read without the system prompt, the answer and the tokens."""
    request = {"model": "claude-3-5-haiku", "system": "Be brief.", "messages": USER}
    text = [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "answer"}]
    usage = {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": None}
    said = {"id": "a", "content": text, "stop_reason": "end_turn"}
    said |= {"usage": {**usage, "output_tokens": 2}}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}
    pairs = [
        {"request": request, "response": said},
        {"request": request, "response": {"id": "b", "content": [call], "stop_reason": "tool_use"}},
        {"request": request, "response": [{"type": "message_start", "message": {"id": "c"}}]},
    ]
    told = {"mlflow.spanType": "CHAT_MODEL", "mlflow.spanInputs": request}
    told["mlflow.spanOutputs"] = said
    told["mlflow.chat.tokenUsage"] = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    span = {"span_id": "x", "attributes": {name: json.dumps(value) for name, value in told.items()}}
    trace = {"info": {"trace_id": "d"}, "data": {"spans": [span]}}
    sources = lines(tmp_path / "p.jsonl", *pairs), lines(tmp_path / "t.jsonl", trace)
    report, frame = read(tmp_path, *sources)
    assert counts(report) == {"read": 4, "ingested": 3, "skipped": 1}
    for messages in frame["messages"]:
        assert json.loads(messages) == [{"role": "system", "content": "Be brief."}, *USER]
    assert frame["response"].to_dict() == {"a": "answer", "b": json.dumps([call]), "d": "answer"}
    assert frame["finish_reason"].to_dict() == {"a": "end_turn", "b": "tool_use", "d": "end_turn"}
    for call in "ad":  # MLflow's own count is without the cache
        assert frame.loc[call, ["input_tokens", "output_tokens"]].tolist() == [43, 2]


def _observation(key: str, trace: str, second: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": key,
        "traceId": trace,
        "type": "GENERATION",
        "startTime": f"2026-11-02T10:00:{second:02d}Z",
        "updatedAt": "2026-11-02T11:00:00Z",
        "input": json.dumps(USER),
        "output": json.dumps({"role": "assistant", "content": "answer"}),
        "model": "gpt-4o",
        "usageDetails": {"input": 4, "output": 2, "input_cached_tokens": 6},
        "totalCost": 0.5,
        **more,
    }


def _score(trace: str, value: Any, name: str = "thumb", second: int = 0) -> dict[str, Any]:
    when = f"2026-11-02T12:00:{second:02d}Z"
    subject = {"kind": "trace", "id": trace}
    return {"id": trace, "name": name, "value": value, "subject": subject, "timestamp": when}


def test_langfuse(tmp_path: Path) -> None:
    rows = [
        _observation("a", "t1", 5, updatedAt="2026-11-02T12:00:00Z", output="bare text"),
        _observation("a", "t1", 5),  # an older state: stands later, counts no more
        _observation("b", "t1", 1, input=json.dumps({"tools": [], "messages": USER})),
        _observation("c", "t2", level="ERROR", statusMessage="late", output=None),
        _observation("d", "t3", type="SPAN"),
        _observation("e", "t4", input=None),
        _observation("f", "t5", input="bare", usageDetails={}, totalCost=0),
        _observation("g", "t6", sessionId=None, metadata={"langfuse_session_id": "old"}),
    ]
    scores = [
        _score("t1", "down", second=9),
        _score("t1", True, second=1),
        _score("t2", -1.0),
        _score("t5", 1, name="csat"),
        _score("t6", 4, name="csat"),
    ]
    given = lines(tmp_path / "o.jsonl", *rows), lines(tmp_path / "s.jsonl", *scores)
    report, frame = read(tmp_path, *given)
    assert counts(report) == {"read": 8, "ingested": 4, "failed": 1, "duplicate": 1, "skipped": 2}
    assert frame["response"].to_dict() == {
        **dict.fromkeys("bfg", "answer"),
        "a": "bare text",
        "c": None,
    }
    assert frame["score"].dropna().to_dict() == {"a": 0.0, "c": 0.0}  # a is the last call of t1
    assert frame.loc["b", ["input_tokens", "output_tokens"]].tolist() == [10, 2]
    assert frame.loc["f", ["input_tokens", "cost_usd"]].isna().all()
    assert json.loads(frame["messages"]["f"]) == [{"role": "user", "content": "bare"}]
    assert frame["session_id"]["g"] == "old"


def test_langfuse_has_each_kind_of_tokens_under_its_own_name(tmp_path: Path) -> None:
    """`output` is without the reasoning that was billed; older exports have one count a side."""
    kinds = {"input": 4, "input_cached_tokens": 6, "cache_read_input_tokens": 1, "total": 100}
    kinds |= {"output": 2, "output_reasoning_tokens": 80, "output_audio_tokens": None}
    rows = [
        _observation("a", "t1", usageDetails=kinds),
        _observation("b", "t2", usageDetails={}, usage={"input": 5, "output": 3, "inputCost": 9}),
        _observation("c", "t3", usageDetails=None, promptTokens=7, completionTokens=2),
        _observation("d", "t4", usageDetails={"total": 9}),
        _observation("e", "t5", usageDetails={"total": 9}, promptTokens=7, completionTokens=2),
    ]
    _, frame = read(tmp_path, lines(tmp_path / "o.jsonl", *rows))
    assert frame["input_tokens"].fillna(-1).to_dict() == {"a": 11, "b": 5, "c": 7, "d": -1, "e": 7}
    assert frame["output_tokens"].fillna(-1).to_dict() == {"a": 82, "b": 3, "c": 2, "d": -1, "e": 2}


def test_langfuse_has_the_tools_of_langchain_among_the_messages(tmp_path: Path) -> None:
    """As langfuse 5.0.4 and langchain-core 1.8.3 write them; such a log was refused."""
    call = {"name": "weather", "args": {"city": "Accra"}, "id": "c1", "type": "tool_call"}
    said = [
        *USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "30 degrees", "tool_call_id": "c1"},
    ]
    function = {"name": "weather", "description": "of a city", "parameters": {"type": "object"}}
    offered = {"role": "tool", "content": {"type": "function", "function": function}}
    row = _observation("a", "t1", input=json.dumps([*said, offered]))
    report, frame = read(tmp_path, lines(tmp_path / "o.jsonl", row))
    assert counts(report) == {"read": 1, "ingested": 1}
    assert json.loads(frame["messages"]["a"]) == said


def _stored(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the API as exports to blob storage spell it."""
    names = {"model": "provided_model_name", "subject": "trace_id"}
    snake = {names.get(k, re.sub("([A-Z])", r"_\1", k).lower()): v for k, v in row.items()}
    return {**snake, "project_id": "p", "environment": "default"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_langfuse_exported_to_blob_storage(tmp_path: Path, kind: str) -> None:
    """It was taken for a table without request_id. Its times are UTC without a zone."""
    times = {"startTime": "2026-11-02 10:00:00.250000", "endTime": "2026-11-02 10:00:01.500000"}
    rows = [
        _observation(f"o{n}", f"t{n}", **times, sessionId="s", userId="", tags=["a"], latency=1250)
        for n in range(4)
    ]
    told = {"dataType": "NUMERIC", "stringValue": None}
    scores = [
        {**_score("t0", 0), "subject": "t0", "dataType": "CATEGORICAL", "stringValue": "up"},
        {**_score("t1", -1, "other"), "subject": "t1", **told},
        {**_score("t2", 4, "stars"), "subject": "t2", **told},
        {**_score("t3", 1, "stars"), "subject": "t3", **told},
    ]
    given = []
    for name, listed in {"o": rows, "s": scores}.items():
        path = tmp_path / f"{name}.{kind}"
        stored = [_stored(row) for row in listed]
        if kind == "jsonl":
            lines(path, *stored)
        elif kind == "csv":
            nested = (
                {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
                for row in stored
            )
            pd.DataFrame(nested).to_csv(path, index=False)
        else:
            used = pa.map_(pa.string(), pa.int64())
            columns = {k: [row[k] for row in stored] for k in stored[0]}
            types = {"usage_details": used}
            pq.write_table(
                pa.table({k: pa.array(v, types.get(k)) for k, v in columns.items()}), path
            )
        given.append(path)
    report, frame = read(tmp_path, *given)
    assert counts(report) == {"read": 4, "ingested": 4}
    row = frame.loc["o0"]
    assert (row["model"], row["session_id"], row["user_id"]) == ("gpt-4o", "s", None)
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (10, 2, 0.5)
    assert (row["latency_ms"], row["at"].isoformat()) == (1250, "2026-11-02T10:00:00.250000+00:00")
    assert list(row["tags"]) == ["a"]
    assert frame["score"].dropna().to_dict() == {"o0": 1.0, "o1": 0.0}


def test_langfuse_by_its_newest_and_oldest_api(tmp_path: Path) -> None:
    """The model is `providedModelName`; a category's value is its number, mostly 0."""
    row = _observation("a", "t1")
    named = {**row, "providedModelName": row.pop("model")}
    said = {"id": "s", "traceId": "t1", "name": "thumb", "timestamp": "2026-11-02T12:00:00Z"}
    up = {**said, "dataType": "CATEGORICAL", "value": 0, "stringValue": "up", "source": "API"}
    judged = {**said, "dataType": "BOOLEAN", "value": 0, "stringValue": "False", "source": "EVAL"}
    judged["timestamp"] = "2026-11-02T13:00:00Z"
    sources = lines(tmp_path / "o.jsonl", named), lines(tmp_path / "s.jsonl", up, judged)
    _, frame = read(tmp_path, *sources)
    assert frame["model"].to_dict() == {"a": "gpt-4o"}
    assert frame["score"].to_dict() == {"a": 1.0}  # and not that of the judge, which came later


def test_langfuse_traces_say_whose_their_calls_are(tmp_path: Path) -> None:
    """Observations of the first API have no session: conversations fell apart in the splits."""
    rows = [_observation("a", "t1"), _observation("b", "t1"), _observation("c", "t2")]
    rows[2]["sessionId"] = "own"
    whose = {"timestamp": "2026-11-02T10:00:00Z", "public": False, "name": "chat", "tags": ["vip"]}
    traces = [
        {**whose, "id": "t1", "sessionId": None, "userId": None, "tags": []},
        {**whose, "id": "t1", "sessionId": "s", "userId": "u", "updatedAt": "2026-11-03T10:00:00Z"},
        {**whose, "id": "t2", "sessionId": "not the call's own", "userId": None},
    ]
    api, blob = traces[:1], traces[1:]
    blob = [
        {
            re.sub("([A-Z])", lambda part: "_" + part[1].lower(), key): value
            for key, value in {**trace, "projectId": "p"}.items()
        }
        for trace in blob
    ]
    sources = lines(tmp_path / "t.jsonl", *api), lines(tmp_path / "t2.jsonl", *blob)
    report, frame = read(tmp_path, lines(tmp_path / "o.jsonl", *rows), *sources)
    assert counts(report)["read"] == 3
    assert frame["session_id"].to_dict() == {"a": "s", "b": "s", "c": "own"}
    assert frame["user_id"]["a"] == "u"
    assert list(frame["tags"]["a"]) == ["vip"]


def test_mlflow_with_two_calls_in_a_trace(tmp_path: Path) -> None:
    def span(number: int) -> dict[str, Any]:
        inputs = {"model": "openai/gpt-4o", "messages": USER}
        outputs = {"choices": [{"message": {"content": f"answer {number}"}}]}
        told = {"mlflow.spanType": "CHAT_MODEL"} | {
            "mlflow.spanInputs": inputs,
            "mlflow.spanOutputs": outputs,
        }
        attributes = {name: json.dumps(value) for name, value in told.items()}
        started = 1_790_000_000_000_000_000 + number * 10**9
        times = {"start_time_unix_nano": started, "end_time_unix_nano": started + 10**9}
        return {"span_id": f"x{number}", "attributes": attributes, **times}

    def verdict(value: Any, who: str, kind: str = "HUMAN", valid: bool = True) -> dict[str, Any]:
        source = {"source_type": kind, "source_id": who}
        return {"source": source, "feedback": {"value": value}, "valid": valid}

    given = [
        verdict("up", "u"),
        verdict(False, "u", valid=False),
        verdict(False, "reviewer"),
        verdict(0.0, "judge", "LLM_JUDGE"),
    ]
    info = {
        "trace_id": "tr-1",
        "trace_metadata": {"mlflow.trace.user": "u"},
        "assessments": given,
        "tags": {"team": "a", "mlflow.traceName": "x"},
    }
    trace = {"info": info, "data": {"spans": [span(2), span(1)]}}
    report, frame = read(tmp_path, lines(tmp_path / "x.jsonl", trace))
    assert counts(report) == {"read": 2, "ingested": 2}
    assert frame["response"].to_dict() == {"tr-1/x1": "answer 1", "tr-1/x2": "answer 2"}
    assert frame["score"].dropna().to_dict() == {"tr-1/x2": 1.0}
    assert frame["tags"].tolist() == [["team:a"]] * 2
    assert frame["latency_ms"].tolist() == [1000, 1000]


def test_otel_messages_with_content_and_results_of_any_script(tmp_path: Path) -> None:
    """The answer was an empty one, and what a tool said in Chinese was made of escapes."""
    result = {"type": "tool_call_response", "id": "1", "response": {"sky": "晴"}}
    said = [*USER, {"role": "tool", "parts": [result]}]
    told = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    told["gen_ai.input.messages"] = json.dumps(said)
    told["gen_ai.output.messages"] = json.dumps([{"role": "assistant", "content": "answer"}])
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in told.items()]
    span = {"traceId": "t", "spanId": "s", "startTimeUnixNano": 1_790_000_000_000_000_000}
    batch = {"resourceSpans": [{"scopeSpans": [{"spans": [span | {"attributes": attributes}]}]}]}
    _, frame = read(tmp_path, lines(tmp_path / "x.jsonl", batch))
    assert frame["response"].tolist() == ["answer"]
    messages = json.loads(frame["messages"].iloc[0])
    assert [message["content"] for message in messages] == ["hello", '{"sky": "晴"}']


@pytest.mark.parametrize("said", ['two\nlines, "quoted": \u4e2d', '"quoted"', "", None])
def test_mlflow_answers_that_are_text(tmp_path: Path, said: str | None) -> None:
    """As functions under @mlflow.trace return them: they kept JSON's backslashes."""
    told = {"mlflow.spanType": "LLM", "mlflow.spanInputs": {"model": "m", "messages": USER}}
    told["mlflow.spanOutputs"] = said
    told["mlflow.chat.tokenUsage"] = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    span = {"span_id": "x", "attributes": {name: json.dumps(value) for name, value in told.items()}}
    trace = {"info": {"trace_id": "t"}, "data": {"spans": [span]}}
    _, frame = read(tmp_path, lines(tmp_path / "t.jsonl", trace))
    assert frame["response"]["t"] == said


def test_otel_parts_and_spans_of_other_exporters(tmp_path: Path) -> None:
    def attribute(key: str, value: Any) -> dict[str, Any]:
        kind = {int: "intValue", str: "stringValue"}[type(value)]
        return {"key": key, "value": {kind: value}}

    parts = [
        {"type": "text", "content": "look"},
        {"type": "blob", "modality": "image", "content": "QUJD" * 200},
    ]
    result = {"type": "tool_call_response", "id": "1", "response": {"sky": "clear"}}
    called = {"type": "tool_call", "id": "1", "name": "f", "arguments": {"a": 1}}
    said = [
        {"role": "user", "parts": parts},
        {"role": "assistant", "parts": [called]},
        {"role": "tool", "parts": [result]},
    ]
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
        "gen_ai.input.messages": json.dumps(said),
    }
    span = {"traceId": "t", "spanId": "s", "startTimeUnixNano": 1_790_000_000_000_000_000}
    span["attributes"] = [attribute(*pair) for pair in told.items()]
    silent = {**span, "spanId": "q", "attributes": span["attributes"][:2]}
    line = {"resourceSpans": [{"scopeSpans": [{"spans": [span, silent]}]}]}
    report, frame = read(tmp_path, lines(tmp_path / "x.jsonl", line))
    assert counts(report) == {"read": 2, "ingested": 1, "skipped": 1}
    messages = json.loads(frame["messages"]["span-t:s"])
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "tool"]
    assert messages[1]["content"][0] == {"type": "text", "text": "look"}
    assert messages[1]["content"][1] == {"type": "blob", "modality": "image", "characters": 800}
    assert Prompt.of(messages).images == 1  # it was 0, where the same request has 1 when served
    assert messages[2]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert messages[3]["content"] == '{"sky": "clear"}'


def test_chunks_are_joined() -> None:
    def chunk(delta: dict[str, Any], reason: str | None = None, index: int = 0) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": reason}
        return {"id": "c", "model": "m", "choices": [choice]}

    def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments, **more}}]}

    text = [chunk({"content": "a"}), chunk({"content": "other"}, index=1), chunk({"content": "b"})]
    made = joined_chunks([*text, chunk({}, "stop"), {"choices": [], "usage": {"x": 1}}])
    assert answer(made["choices"][0]["message"]) == "ab"
    assert (made["choices"][0]["finish_reason"], made["usage"]) == ("stop", {"x": 1})
    pieces = [chunk(call(1, "{", name="g")), chunk(call(0, "{}", name="f")), chunk(call(1, "}"))]
    calls = json.loads(answer(joined_chunks(pieces)["choices"][0]["message"]) or "")
    assert [call["function"] for call in calls] == [
        {"name": "f", "arguments": "{}"},
        {"name": "g", "arguments": "{}"},
    ]


def test_small_readings() -> None:
    assert [bare_model(m) for m in ("openai/gpt-4o", "openrouter/openai/x", "org/m", None)] == [
        "gpt-4o",
        "x",
        "org/m",
        None,
    ]
    assert bare_model("own/m", "own") == "m"
    assert [thumb(v) for v in (True, False, "up", " Thumbs_Down ", 1, 0.9, None, "meh")] == [
        1.0,
        0.0,
        1.0,
        0.0,
        None,
        None,
        None,
        None,
    ]
    assert [cost(usd) for usd in (0, 0.0, "0.000", None, 1e-9, "1e-5")] == [None] * 4 + [
        1e-9,
        "1e-5",
    ]
    assert tokens(0, None) == {}
    assert tokens(4, 0) == {"input_tokens": 4, "output_tokens": 0}
    assert answer({"content": "", "refusal": "no"}) == "no"
    assert answer({"content": ""}) == ""
    assert answer({}) is None
    assert (
        answer({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}) == "ab"
    )


def test_a_shelf_finds_and_tells_what_is_left() -> None:
    with Shelf() as shelf:
        for number in range(5):
            shelf.put(f"k{number % 2}", number)
        shelf.put("\ud83d", "lone")
        assert shelf.find("k0") == [0, 2, 4]
        assert shelf.take("k1") == [1, 3]
        assert shelf.take("absent") == []
        assert list(shelf.left()) == [0, 2, 4, "lone"]


def gateway_saw(record: dict[str, Any]) -> str | None:
    return "calls of our gateway" if "gw" in record else None


def gateway_rows(record: dict[str, Any]) -> Iterator[dict[str, Any] | str]:
    if record["gw"] != "chat":
        yield f"not a chat call ({record['gw']})"
    else:
        yield {"request_id": record["id"], "messages": record["said"], "model": record["by"]}


GATEWAY = Adapter(gateway_saw, gateway_rows)


def _register(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    entry = EntryPoint(name, value, adapters.GROUP)
    monkeypatch.setattr(adapters, "entry_points", lambda group: [entry])


def test_formats_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"gw": "chat", "id": "1", "said": USER, "by": "m"},
        {"gw": "image"},
        {"gw": "chat", "id": "2"},
    ]
    source = lines(tmp_path / "x.jsonl", *rows)
    with pytest.raises(BadInput, match="no column request_id"):
        ingest([source], tmp_path / "t.parquet")
    _register(monkeypatch, "gateway", f"{__name__}:GATEWAY")
    report, frame = read(tmp_path, source)
    assert report.files[0].format == "gateway"
    assert counts(report) == {"read": 3, "ingested": 1, "skipped": 1, "quarantined": 1}
    assert list(frame.index) == ["1"]
    assert ingest([source], tmp_path / "u.parquet", format="gateway", max_bad=1).rows == 1


def test_formats_of_others_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = lines(tmp_path / "x.jsonl", payload(1))
    for name, value, told in (
        ("litellm", f"{__name__}:GATEWAY", "rename it"),
        ("own", "absent.module:X", "cannot be loaded from absent.module:X"),
        ("own", f"{__name__}:USER", "is not a training.log.adapters.Adapter"),
    ):
        _register(monkeypatch, name, value)
        with pytest.raises(EnvironmentProblem, match=told):
            ingest([source], tmp_path / "t.parquet")


def test_an_experiment_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(
        BadInput, match=r"no experiment named 'nope' at sqlite:.*there are: Default"
    ):
        ingest([f"mlflow+{store}#nope"], tmp_path / "t.parquet")
    with pytest.raises(BadInput, match="an empty log"):
        ingest([f"mlflow+{store}#0"], tmp_path / "t.parquet")  # by its number
