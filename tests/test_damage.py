"""Damaged logs of every format: the counts add up, nothing raises, what is whole is read."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.damage import damaged
from tests.test_adapters import (
    USER,
    _answered,
    _asked,
    _observation,
    _score,
    lines,
    payload,
    spend,
)
from tests.test_fresh_logs import KEPT
from training.errors import BadInput
from training.log.ingest import ingest
from training.log.traffic import read_traffic


def _text(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _kept(mode: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((KEPT / mode).iterdir())}


def _csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


TABLE = [
    {"request_id": f"r{n}", "prompt": f"line\nof “{n}”, and more", "model": "m", "score": n % 2}
    for n in range(8)
]
STORED = [
    {
        "id": f"c{n}",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"message": {"content": "x"}}],
    }
    for n in range(4)
]
SAID = [
    {"completion_id": f"c{n}", "id": f"c{n}-0", "role": "user", "content": "q"} for n in range(4)
]
LOGS: dict[str, dict[str, bytes]] = {
    **{mode: _kept(mode) for mode in ("openai", "otel_legacy", "otel_latest", "mlflow")},
    "litellm": {"log.jsonl": _text([payload(n) for n in range(6)])},
    "spend": {"log.jsonl": _text([spend(n) for n in range(6)])},
    "spend_csv": {"log.csv": _csv([spend(n) for n in range(6)])},
    "batch": {
        "in.jsonl": _text([_asked(f"k{n}") for n in range(6)]),
        "out.jsonl": _text([_answered(f"k{n}", "x") for n in range(5)]),
    },
    "stored": {"completions.jsonl": _text(STORED), "messages.jsonl": _text(SAID)},
    "langfuse": {
        "observations.jsonl": _text([_observation(f"o{n}", f"t{n}") for n in range(6)]),
        "scores.jsonl": _text([_score(f"t{n}", n % 2 == 0) for n in range(6)]),
    },
    "table": {"log.jsonl": _text(TABLE)},
    "table_csv": {"log.csv": _csv(TABLE)},
    "table_tsv": {"log.tsv": _csv(TABLE, "\t")},
}


def _ingest(files: dict[str, bytes]) -> None:
    """Read files, whatever they hold; check what must hold of any."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_bytes(text)
        out = folder / "out.table"
        sources = [folder / file for file in files]
        try:
            report = ingest(sources, out, keep_ids=True, max_bad=1)
        except BadInput as error:
            assert str(folder) in str(error)  # it names the place
            assert not out.exists()
            return
        counted = [*report.as_json()["files"], report.total]
        for count in counted:
            assert count["read"] == sum(
                count[part]
                for part in ("ingested", "failed", "duplicate", "skipped", "quarantined")
            )
        frame = read_traffic(out).frame
        assert len(frame) == report.rows == report.total["ingested"] + report.total["failed"]
        quarantined = report.total["quarantined"]
        kept = out.with_name("out.table.quarantine.jsonl")
        told = kept.read_text().splitlines() if quarantined else []
        assert len(told) == quarantined
        assert all(json.loads(line)["reason"] for line in told)
        again = ingest(sources, out, keep_ids=True, max_bad=1)
        assert again.rows == report.rows


@pytest.mark.parametrize("name", LOGS)
@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(name: str, data: st.DataObject) -> None:
    files = LOGS[name]
    hit = data.draw(st.sampled_from(sorted(files)))
    _ingest({**files, hit: data.draw(damaged(files[hit]))})


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGS)
@settings(
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_files_that_are_all_damaged_are_read_or_refused(name: str, data: st.DataObject) -> None:
    _ingest({file: data.draw(damaged(text)) for file, text in LOGS[name].items()})


def _counts(files: dict[str, bytes], folder: Path) -> dict[str, int]:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text)
    report = ingest([folder / name for name in files], folder / "out.table", max_bad=1)
    return {name: count for name, count in report.total.items() if count}


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="byte-order mark"),
        pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda text: text.rstrip(b"\n"), id="no end of line"),
        pytest.param(lambda text: pa.Codec("zstd").compress(text, asbytes=True), id="zstd"),
    ],
)
def test_what_is_no_damage(tmp_path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    if b"\r" in LOGS[name][min(LOGS[name])]:
        pytest.skip("CSV has line ends of its own")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = _counts(LOGS[name], tmp_path / "a")
    assert "quarantined" not in whole
    assert _counts({k: change(text) for k, text in LOGS[name].items()}, tmp_path / "b") == whole


@pytest.mark.parametrize("name", [name for name in LOGS if "csv" not in name and "tsv" not in name])
def test_each_bad_line_is_one_bad_row(tmp_path: Path, name: str) -> None:
    files = {}
    for number, (file, text) in enumerate(LOGS[name].items()):
        rows = text.splitlines()
        rows[1:1] = [b"\xff\xfe{}", b'{"cut": ', b"[1, 2]"] if not number else []
        files[file] = b"\n".join([*rows, rows[0][: len(rows[0]) // 2]] if number else rows)
    (tmp_path / "a").mkdir()
    whole = _counts(LOGS[name], tmp_path / "a")
    counted = _counts(files, tmp_path)
    assert counted.pop("quarantined") == 2 + len(files)
    assert counted.pop("read") == whole.pop("read") + 2 + len(files)
    assert counted == whole


@pytest.mark.parametrize("name", [name for name in LOGS if "csv" not in name and "tsv" not in name])
@pytest.mark.parametrize("first", ["half", "noise", "nothing", "list"])
def test_a_log_that_begins_in_the_middle(tmp_path: Path, name: str, first: str) -> None:
    """A rotated file is read from its first whole line on, whatever stands before it."""
    (tmp_path / "a").mkdir()
    whole = _counts(LOGS[name], tmp_path / "a")
    files = dict(LOGS[name])
    hit = min(files)
    half = files[hit].split(b"\n", 1)[0]
    begins = {
        "half": half[len(half) // 2 :].lstrip(b"{["),
        "noise": b"2026-11-25T10:00:00 gateway: log opened",
        "nothing": b"\0" * 512,
        "list": b'["the", "end"], "of": "a line"}',
    }
    files[hit] = begins[first] + b"\n" + files[hit]
    counted = _counts(files, tmp_path / "b")
    assert counted.pop("quarantined") == 1
    assert counted.pop("read") == whole.pop("read") + 1
    assert counted == whole


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("name", ["spend_csv", "table_csv"])
def test_the_delimiter_is_seen(tmp_path: Path, name: str, delimiter: str) -> None:
    (file,) = LOGS[name]
    rows = list(csv.DictReader(io.StringIO(LOGS[name][file].decode(), newline="")))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = _counts(LOGS[name], tmp_path / "a")
    assert _counts({file: _csv(rows, delimiter)}, tmp_path / "b") == whole


@pytest.mark.parametrize("lead", ["", "[", "[\n  "])
def test_an_array_stays_one(tmp_path: Path, lead: str) -> None:
    rows = ",\n".join(json.dumps(payload(n)) for n in range(4))
    text = f"{lead or '[ '}{rows}\n]\n".encode()
    assert _counts({"log.json": text}, tmp_path / "b") == {"read": 4, "ingested": 4}


def test_a_long_line_is_one_bad_row(tmp_path: Path) -> None:
    long = json.dumps(payload(9, extra="x" * 50_000_000)).encode()
    text = LOGS["litellm"]["log.jsonl"]
    counted = _counts({"log.jsonl": text + long + b"\n" + _text([payload(7)])}, tmp_path)
    assert counted == {"read": 8, "ingested": 7, "quarantined": 1}


def test_two_versions_in_one_file(tmp_path: Path) -> None:
    older = payload(2, unknown_field={"deep": [1]})
    for name in ("session_id", "request_tags", "error_information", "custom_llm_provider"):
        older.pop(name, None)
    source = lines(tmp_path / "x.jsonl", payload(1), spend(3), older, payload(1, messages=USER * 2))
    report = ingest([source], tmp_path / "t.parquet")
    assert (report.total["ingested"], report.total["duplicate"]) == (3, 1)
    frame = read_traffic(tmp_path / "t.parquet").frame.set_index("request_id")
    assert len(json.loads(frame["messages"]["p1"])) == 2


@pytest.mark.parametrize("mode", ["otel_legacy", "otel_latest"])
@pytest.mark.parametrize("first", ["spans.jsonl", "events.jsonl"])
def test_spans_events_and_metrics_in_one_file(tmp_path: Path, mode: str, first: str) -> None:
    """As a collector writes them that sends all signals to one file."""
    files = _kept(mode)
    apart = _counts(files, tmp_path / "apart")
    second = files[{"spans.jsonl": "events.jsonl", "events.jsonl": "spans.jsonl"}[first]]
    metrics = b'{"resourceMetrics": []}\n'
    together = _counts({"all.jsonl": files[first] + second + metrics}, tmp_path / "together")
    assert together == {
        **apart,
        "read": apart["read"] + 1,
        "skipped": apart["skipped"] + 1,
    }


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    source = lines(tmp_path / "x.jsonl", payload(1), {"request": {}, "response": {}})
    ingest([source], tmp_path / "t.parquet", max_bad=1.0)
    told = (tmp_path / "t.parquet.quarantine.jsonl").read_text()
    assert "no field 'startTime'" in told


def test_a_folder_with_nothing_readable(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "notes.json").write_text('{\n "a": 1\n}\n')
    (logs / "cut.parquet").write_bytes(b"PAR1 and no more")
    (logs / "utf16.csv").write_bytes("a,b\n".encode("utf-16"))
    pq.write_table(pa.table({"x": [1]}), logs / "other.parquet")
    for damaged_file, told in (("cut.parquet", "not a whole Parquet"), ("utf16.csv", "UTF-16")):
        with pytest.raises(BadInput, match=f"{damaged_file}.*{told}"):
            ingest([logs], tmp_path / "t.parquet")
        (logs / damaged_file).unlink()
    with pytest.raises(BadInput, match="nothing to read in"):
        ingest([logs], tmp_path / "t.parquet")
    lines(logs / "log.jsonl", payload(1))
    report = ingest([logs], tmp_path / "t.parquet")
    assert report.total["ingested"] == 1
    assert sum("left out" in note for note in report.notes) == 2
