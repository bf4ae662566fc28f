"""Spans of the Vercel AI SDK, as its versions wrote them: a row for each call of the provider.

tests/logs/vercel/README.md says how they were made, and how the slow tests make them anew.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from router.prompt import Prompt
from tests.fake_upstream import OBJECT, answer_to, upstream
from tests.test_adapters import read
from training.log.ingest import IngestReport

KEPT = Path(__file__).parent / "logs" / "vercel"
ROOT = Path(__file__).parents[1]
VERSIONS = ("4", "5", "6", "7", "7-legacy")
PNG = "iVBORw0KGgo"
FAILED = ("please fail", "fail to stream", "break the stream")
OBJECTS = ("which city?", "stream a city")
TOOLS = ("use a tool", "stream a tool", "show the radar")


def _write(version: str, out: Path) -> Path:
    folder, _, legacy = version.partition("-")
    file = out / f"{version}.jsonl"
    where = Path(os.environ["SUFFICE_AI_SDK"]) / folder
    with upstream() as url:
        words = ["node", "tests/write_vercel.mjs", str(where), url, str(file), legacy]
        subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
    return file


def _check(version: str, report: IngestReport, frame: pd.DataFrame) -> None:
    assert {file.format for file in report.files} == {"otel"}
    total = report.total
    assert (total["ingested"], total["failed"], total["quarantined"]) == (14, 3, 0)
    assert total["read"] == 17 + total["skipped"]
    _check_skips(version, " ".join(report.notes))
    rows = {(_asked(row), _steps(row)): row for _, row in frame.iterrows()}
    assert len(rows) == 17
    for (prompt, step), row in rows.items():
        _check_row(version, prompt, step, row)
    turns = json.loads(rows["second, 請", 0]["messages"])
    assert turns == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "said"},
        {"role": "user", "content": "second, 請"},
    ]
    for prompt in TOOLS:
        _check_tool(rows[prompt, 0], rows[prompt, 1])
    assert Prompt.of(json.loads(rows["look at", 0]["messages"])).images == 1
    assert not frame[["messages", "response"]].map(lambda text: PNG in str(text)).any(axis=None)


def _check_skips(version: str, notes: str) -> None:
    """The outer span of each call, tools and embeddings, and the one call without a prompt."""
    assert "1 rows skipped: no prompt in the log (content was not captured)" in notes
    if version == "7":
        told = {"invoke_agent": 15, "embeddings": 2, "execute_tool": 3}
    else:
        around = ", around the calls"
        told = {f"ai.generateText{around}": 9, f"ai.streamText{around}": 4, "ai.toolCall": 3}
        told |= {f"ai.{kind}Object{around}": 1 for kind in ("generate", "stream")}
    for what, number in told.items():
        assert f"{number} rows skipped: not a chat call ({what})" in notes


def _check_row(version: str, prompt: str, step: int, row: pd.Series) -> None:
    assert row["model"] == ("gpt-4o" if prompt == "second, 請" else "gpt-4o-mini")
    assert row["source"] == "support"
    people = row["session_id"], row["user_id"], list(row["tags"])
    if prompt == "below a span":
        assert people == ("session-2", "user-2", [])
    elif version.startswith("7") and prompt in OBJECTS:  # which have no runtime context there
        assert people == (None, None, [])
    else:
        task = ["answer"] if prompt == "plain question" else []
        assert people == ("session-1", "user-1", ["team:a", *task])
    assert 0 < row["latency_ms"] < 60_000
    tokens = row[["input_tokens", "output_tokens"]]
    if prompt in FAILED:
        broken = prompt == "break the stream"
        assert (row["status"], row["finish_reason"]) == ("error", "error" if broken else None)
        assert row["error"] == ("ERROR" if broken else "AI_APICallError")
        assert tokens.isna().all()
        return
    assert (row["status"], row["error"]) == ("ok", None)
    assert str(row.name).startswith("chatcmpl-")
    if version == "4" and "stream" in prompt:
        assert tokens.isna().all()
    else:
        assert tokens.tolist() == [12, 5]
    called = prompt in TOOLS and step == 0
    by_tool = version == "4" and prompt in OBJECTS  # how it had objects made
    assert row["finish_reason"] == ("tool-calls" if called or by_tool else "stop")
    if prompt in OBJECTS:
        assert json.loads(row["response"]) == json.loads(OBJECT)
    elif not called:
        assert row["response"] == (None if prompt == "unseen answer" else answer_to(prompt))


def _check_tool(first: pd.Series, second: pd.Series) -> None:
    """The answer of the first step is the call that the second has among its messages."""
    [call] = json.loads(first["response"])
    _, said, told = json.loads(second["messages"])
    assert (call["id"], call["function"]["name"]) == ("call_1", "weather")
    [again] = said["tool_calls"]
    for one in (call, again):
        assert json.loads(one["function"]["arguments"]) == {"city": "Accra"}
    assert (told["role"], told["tool_call_id"]) == ("tool", "call_1")
    if _asked(first) == "show the radar":
        assert told["content"][0] == {"type": "text", "text": "a radar picture"}
        assert Prompt.of([told]).images == 1
    else:
        assert told["content"] == '{"city": "Accra", "sky": "sunny 晴"}'


def _asked(row: pd.Series) -> str:
    content: Any = [m["content"] for m in json.loads(row["messages"]) if m["role"] == "user"][-1]
    return content if isinstance(content, str) else content[0]["text"]


def _steps(row: pd.Series) -> int:
    return sum(message["role"] == "tool" for message in json.loads(row["messages"]))


@pytest.mark.parametrize("version", VERSIONS)
def test_kept_spans(tmp_path: Path, version: str) -> None:
    _check(version, *read(tmp_path, KEPT / f"{version}.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_fresh_spans(tmp_path: Path, version: str) -> None:
    if "SUFFICE_AI_SDK" not in os.environ:
        pytest.skip("SUFFICE_AI_SDK names no folder with the versions of the SDK")
    file = _write(version, tmp_path)
    _check(version, *read(tmp_path, file))
    if "SUFFICE_RENEW_LOGS" in os.environ:
        shutil.copy(file, KEPT)
