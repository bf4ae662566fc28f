"""The maintainers' log samples, by the real libraries: counts and rows as expected.json says.

Nothing of them is part of this project; a user's checkout skips these tests.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.test_ingest import WAREHOUSE_MAP
from tests.traffic_makers import call
from training.log.ingest import IngestReport, ingest
from training.log.traffic import read_traffic


@pytest.fixture(scope="module")
def logs(shared_data: Path) -> Path:
    """The folder of samples."""
    folder = shared_data.parent / "logs"
    if not folder.is_dir():
        pytest.skip("the log samples are not beside this checkout")
    return folder


@dataclass(frozen=True, slots=True)
class Sample:
    """Files that are read together, and where expected.json counts and describes them.

    unusable: calls whose prompt the logger cut or dropped, so that no row comes of them.
    """

    files: tuple[str, ...]
    format: str
    counts: str
    rows: str
    read: int
    unusable: int = 0

    @property
    def folder(self) -> str:
        return self.files[0].split("/")[0]


def _alone(file: str, format: str, read: int, unusable: int = 0, like: str = "") -> Sample:
    name = like or file.split("/")[1]
    return Sample((file,), format, name, name, read, unusable)


def _otel(era: str, unusable: int) -> Sample:
    spans, events = f"spans_{era}.jsonl", f"logs_{era}.jsonl"
    files = (f"otel/{spans}", f"otel/{events}")
    return Sample(files, "otel", f"{spans} + {events}", era, 265, unusable)


def _joined(format: str, counts: str, read: int, *names: str) -> Sample:
    files = tuple(f"{format}/{name}.jsonl" for name in names)
    return Sample(files, format, counts, counts, read)


SAMPLES = [
    _alone("litellm/standard_logging_payload.jsonl", "litellm", 160),
    _alone("litellm/proxy_standard_logging_payload.jsonl", "litellm", 61),
    _alone("litellm/proxy_spend_logs.jsonl", "litellm", 153, 2),
    _joined(
        "openai",
        "batch (input + output + error joined)",
        151,
        *("batch_input", "batch_output", "batch_error"),
    ),
    _joined(
        "openai",
        "stored_completions.jsonl",
        142,
        *("stored_completions", "stored_completion_messages"),
    ),
    _alone("openai/request_response_pairs.jsonl", "openai", 151),
    _alone("mlflow/traces.jsonl", "mlflow", 153),
    _alone("mlflow/search_traces.parquet", "mlflow", 153, like="traces.jsonl"),
    _otel("legacy", 0),
    _otel("latest", 5),
    _joined("langfuse", "observations.jsonl", 264, "observations", "scores"),
    _alone("warehouse/llm_requests.csv", "table", 151),
    _alone("warehouse/llm_requests.parquet", "table", 151, like="llm_requests.csv"),
]


def _read(
    logs: Path, files: Sequence[str], folder: Path, **how: Any
) -> tuple[IngestReport, pd.DataFrame]:
    report = ingest([logs / name for name in files], folder / "t.parquet", keep_ids=True, **how)
    return report, read_traffic(folder / "t.parquet").frame


@pytest.fixture(scope="module", params=SAMPLES, ids=lambda s: s.files[0].split("/", 1)[1])
def read(
    request: pytest.FixtureRequest, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Sample, dict[str, Any], IngestReport, pd.DataFrame]:
    sample: Sample = request.param
    folder = tmp_path_factory.mktemp("sample")
    how = {}
    if sample.format == "table":
        (folder / "map.toml").write_text(WAREHOUSE_MAP)
        how = {"map_file": folder / "map.toml"}
    expected = json.loads((logs / sample.folder / "expected.json").read_text())
    report, frame = _read(logs, sample.files, folder, **how)
    return sample, expected, report, frame


def test_counts(read: tuple[Sample, dict[str, Any], IngestReport, pd.DataFrame]) -> None:
    sample, expected, report, frame = read
    counts, total = expected["files"][sample.counts], report.total
    assert {file.format for file in report.files} == {sample.format}
    calls = counts["unique_chat_success"] + counts["unique_chat_failure"]
    assert total["failed"] == counts["unique_chat_failure"]
    assert total["ingested"] == counts["unique_chat_success"] - sample.unusable
    assert total["skipped"] == sample.read - calls + sample.unusable
    assert total["read"] == sample.read
    assert total["quarantined"] == total["duplicate"] == 0
    assert len(frame) == calls - sample.unusable
    lost = sample.unusable
    for column, name in (("session_id", "with_session"), ("user_id", "with_user")):
        assert counts[name] - lost <= frame[column].notna().sum() <= counts[name]
        assert lost or frame[column].notna().sum() == counts[name]
    assert (frame["score"] == 1).sum() == counts["feedback_up"]
    assert (frame["score"] == 0).sum() == counts["feedback_down"]
    assert frame["score"].isin([0, 1]).sum() == frame["score"].notna().sum()
    if not lost:
        assert frame["model"].value_counts().to_dict() == counts["models"]
        answered = frame[frame["status"] == "ok"]
        if sample.format != "table":
            assert answered["input_tokens"].isna().sum() == counts["success_without_usage"]


def test_rows(read: tuple[Sample, dict[str, Any], IngestReport, pd.DataFrame]) -> None:
    sample, expected, _, frame = read
    for row in expected["rows"][sample.rows]:
        _check(row, _find(row, frame))


def _find(row: dict[str, Any], frame: pd.DataFrame) -> pd.Series:
    """The row with the id, or (a call that got none) of the session and the failure."""
    if row["request_id"] is not None:
        found = frame[frame["request_id"] == row["request_id"]]
    else:
        found = frame[(frame["session_id"] == row["session_id"]) & (frame["status"] == "error")]
    assert len(found) == 1
    return found.iloc[0]


def _check(row: dict[str, Any], found: pd.Series) -> None:
    assert json.loads(found["messages"]) == [_said(message) for message in row["messages"]]
    assert found["status"] == {"success": "ok", "failure": "error"}[row["status"]]
    assert found["model"] == row["model"]
    for name in ("session_id", "user_id", "error", "finish_reason"):
        assert found[name] == row[name], name
    _check_numbers(row, found)
    if row["tool_calls"]:
        calls = [call["function"] for call in json.loads(found["response"])]
        told = [(c["name"], json.loads(c["arguments"])) for c in calls]
        wanted = [(c["name"], c["arguments"]) for c in row["tool_calls"]]
        wanted = [(n, json.loads(a) if isinstance(a, str) else a) for n, a in wanted]
        assert told == wanted
    else:
        assert found["response"] == row["response_text"]
    if row["feedback"] is None:
        assert pd.isna(found["score"])
    else:
        assert found["score"] == max(row["feedback"], 0)


def _check_numbers(row: dict[str, Any], found: pd.Series) -> None:
    counted = bool(row["prompt_tokens"] or row["completion_tokens"])
    for name, told in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
        assert found[name] == row[told] if counted else pd.isna(found[name])
    if row["cost_usd"]:
        assert found["cost_usd"] == pytest.approx(row["cost_usd"], abs=1e-9)
    else:
        assert pd.isna(found["cost_usd"])
    if row["start_ts"] is not None:
        assert found["at"].timestamp() == pytest.approx(row["start_ts"], abs=0.002)
    if row["latency_ms"] is not None:
        assert found["latency_ms"] == pytest.approx(row["latency_ms"], abs=2)


def _said(message: dict[str, Any]) -> dict[str, Any]:
    """A message of OpenTelemetry's parts in the form of a chat request."""
    if "parts" not in message:
        return message
    return {"role": message["role"], "content": "".join(p["content"] for p in message["parts"])}


@pytest.mark.parametrize("folder", ["litellm", "openai", "mlflow", "otel", "langfuse"])
def test_a_whole_folder(logs: Path, tmp_path: Path, folder: str) -> None:
    """Every file is read or left out with a reason, and the counts add up."""
    report, frame = _read(logs, [folder], tmp_path)
    total = report.total
    assert total["read"] == sum(v for k, v in total.items() if k != "read")
    assert total["quarantined"] == 0
    assert total["ingested"] + total["failed"] == len(frame)
    told = {Path(file.path).name for file in report.files}
    left = {p.name for p in (logs / folder).iterdir()} - told
    assert all(any(name in note for note in report.notes) for name in left)
    again, _ = _read(logs, [folder], tmp_path)
    assert (again.rows, again.total["ingested"]) == (len(frame), 0)


def test_all_folders_at_once(logs: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command finds the formats of all of them, and counts as it does for each alone."""
    names = ("read", "ingested", "failed", "duplicate", "skipped", "quarantined")
    told = {}
    for folder in (logs, *sorted(path for path in logs.iterdir() if path.is_dir())):
        out = f"{folder.name}-new.parquet"
        done = call(capsys, "ingest", folder, "--format", "auto", "--out", out, "--json")
        assert done.code == 0, done.err
        told[folder.name] = json.loads(done.out)
        total = told[folder.name]["total"]
        assert tuple(total) == names
        assert total["read"] == sum(total[name] for name in names[1:])
        files = told[folder.name]["files"]
        assert {name: sum(file[name] for file in files) for name in names} == total
        assert total["ingested"] + total["failed"] == len(read_traffic(Path(out)).frame)
    whole = told.pop(logs.name)
    assert [file for one in told.values() for file in one["files"]] == whole["files"]


def test_postgres_rows_are_those_of_the_json_lines(logs: Path, tmp_path: Path) -> None:
    report, csv = _read(logs, ["litellm/proxy_spend_logs_postgres.csv"], tmp_path)
    assert (report.total["read"], report.files[0].format) == (60, "litellm")
    (tmp_path / "json").mkdir()
    _, lines = _read(logs, ["litellm/proxy_spend_logs.jsonl"], tmp_path / "json")
    both = csv.merge(lines, on="request_id", suffixes=("", "_json"))
    assert len(both) == len(csv)
    for one, other in zip(both["messages"], both["messages_json"], strict=True):
        assert json.loads(one) == json.loads(other)  # jsonb has an order of keys of its own
    for name in ("model", "input_tokens", "user_id", "session_id", "error"):
        assert both[name].fillna("").tolist() == both[f"{name}_json"].fillna("").tolist(), name
    assert ((both["at"] - both["at_json"]).abs() <= pd.Timedelta("1ms")).all()


def test_three_forms_of_one_mlflow_experiment_agree(logs: Path, tmp_path: Path) -> None:
    report, frame = _read(logs, ["mlflow"], tmp_path)
    assert len(frame) == 151
    assert any("identical duplicate rows" in note for note in report.notes)
    assert not any("the last one counts" in note for note in report.notes)
