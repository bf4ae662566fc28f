"""What LiteLLM, its proxy, OpenAI's SDK, MLflow, Langfuse and OpenTelemetry write: the calls made.

tests/logs holds what the pinned versions wrote. The slow tests write the same anew with what is
installed, against a server on loopback, so that a release that changes a field is noticed. To renew
the files: SUFFICE_RENEW_LOGS=1 python -m pytest -m slow tests/test_fresh_logs.py
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.fake_upstream import CALL, SNAPSHOT, answer_to, upstream
from tests.write_logs import IMAGE, MODES, SESSION, USER
from training.errors import BadInput
from training.log.ingest import IngestReport, ingest
from training.log.traffic import read_traffic

KEPT = Path(__file__).parent / "logs"
ROOT = Path(__file__).parents[1]
OTEL = ("otel_legacy", "otel_latest")


def _fresh(mode: str, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    writer, environment = MODES[mode]
    with upstream() as url:
        subprocess.run(
            [sys.executable, "-m", "tests.write_logs", writer, url, str(out)],
            check=True,
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
        )
    return out


def _read(folder: Path, out: Path) -> tuple[IngestReport, pd.DataFrame]:
    report = ingest([folder], out / "t.parquet", keep_ids=True)
    return report, read_traffic(out / "t.parquet").frame


def _check(mode: str, report: IngestReport, frame: pd.DataFrame) -> None:
    lost = mode == "otel_latest"  # it drops messages that are lists of parts
    total = report.total
    assert {file.format for file in report.files} == {mode.split("_")[0]}
    assert (total["ingested"], total["failed"], total["quarantined"]) == (6 - lost, 1, 0)
    skipped = {"openai": 0, "otel_legacy": 8, "otel_latest": 9, "langfuse": 7}
    assert total["skipped"] == skipped.get(mode, 1)
    rows = {_prompt(row): row for _, row in frame.iterrows()}
    assert len(rows) == 7 - lost
    for prompt, row in rows.items():
        _check_row(mode, prompt, row)
    turns = json.loads(rows["second, 請"]["messages"])
    assert [(m["role"], m["content"]) for m in turns] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "said"),
        ("user", "second, 請"),
    ]
    assert not frame["messages"].str.contains(IMAGE.split(",")[1]).any()


def _check_row(mode: str, prompt: str, row: pd.Series) -> None:
    asked = "gpt-4o" if prompt == "second, 請" else "gpt-4o-mini"
    served = mode == "langfuse" and prompt != "please fail"  # the snapshot is what Langfuse has
    assert row["model"] == (SNAPSHOT[asked] if served else asked)
    assert row["session_id"] == SESSION
    if not mode.startswith("litellm") or prompt == "plain question":
        assert row["user_id"] == USER
    if prompt == "please fail":
        assert row["status"] == "error"
        assert ("429" if mode == "langfuse" else "RateLimitError") in row["error"]
        return
    assert row["status"] == "ok"
    assert row["error"] is None
    counted = prompt != "streamed, not counted" or mode == "litellm_spend"  # the proxy has it so
    tokens = row[["input_tokens", "output_tokens"]]
    if mode == "litellm" and not counted and tokens.notna().all():  # LiteLLM 1.110 counts itself
        assert tokens.tolist() == [12, 7]
    else:
        assert tokens.tolist() == [12, 5] if counted else tokens.isna().all()
    if prompt == "use a tool":
        [call] = json.loads(row["response"])
        assert call["function"]["name"] == CALL["function"]["name"]  # type: ignore[index]
        assert json.loads(call["function"]["arguments"]) == {"city": "Accra"}
    else:
        assert row["response"] == answer_to(prompt)


def _prompt(row: pd.Series) -> str:
    content: Any = json.loads(row["messages"])[-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


@pytest.mark.parametrize("mode", MODES)
def test_kept_logs(tmp_path: Path, mode: str) -> None:
    report, frame = _read(KEPT / mode, tmp_path)
    _check(mode, report, frame)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_fresh_logs(tmp_path: Path, mode: str) -> None:
    if mode == "litellm_spend" and "SUFFICE_GATEWAY_PYTHON" not in os.environ:
        pytest.skip("SUFFICE_GATEWAY_PYTHON names no Python with suffice[litellm]")
    folder = _fresh(mode, tmp_path / "log")
    if mode == "mlflow":
        _check_store(folder, tmp_path)
        frame = folder / "mlflow_frame.jsonl"
        report, rows = _read(frame, tmp_path / "frame")
        _check(mode, report, rows)
        frame.unlink()
    report, rows = _read(folder, tmp_path / "out")
    _check(mode, report, rows)
    if "SUFFICE_RENEW_LOGS" in os.environ:
        shutil.rmtree(KEPT / mode, ignore_errors=True)
        (KEPT / mode).mkdir(parents=True)
        for path in folder.glob("*.jsonl"):
            shutil.copy(path, KEPT / mode)


def _check_store(folder: Path, tmp_path: Path) -> None:
    """The traces read from the tracking store are those of the files."""
    source = f"mlflow+sqlite:///{folder}/mlflow.db#support"
    report = ingest([source], tmp_path / "store.parquet", keep_ids=True)
    assert report.files[0].path == source
    _check("mlflow", report, read_traffic(tmp_path / "store.parquet").frame)
    again = ingest([folder / "mlflow.jsonl"], tmp_path / "store.parquet", keep_ids=True)
    assert again.total["ingested"] == 0
    assert again.rows == 7
    with pytest.raises(BadInput, match="absent"):
        ingest([source.replace("#support", "#absent")], tmp_path / "other.parquet")


@pytest.mark.parametrize("mode", ["mlflow", "langfuse"])
def test_feedback_of_the_user(tmp_path: Path, mode: str) -> None:
    _, frame = _read(KEPT / mode, tmp_path)
    scored = frame[frame["score"].notna()]
    assert [_prompt(row) for _, row in scored.iterrows()] == ["plain question"]
    assert scored[["score", "score_source"]].values.tolist() == [[1.0, "feedback"]]
