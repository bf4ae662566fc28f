"""People's rows go, everybody else's stay, and the artifacts that saw them are named."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.traffic_makers import call
from training.forget import Forgotten, Saw, forget
from training.log.ingest import ingest
from training.log.traffic import read_traffic

PEOPLE = ("ann", "bob", "zoë@x.org", "ann2")


def _log(path: Path, rows: int = 400) -> Path:
    lines = [
        json.dumps(
            {
                "request_id": f"r{n}",
                "prompt": f"question {n}",
                "model": "m",
                "user_id": PEOPLE[n % 4],
                "at": f"2026-01-{n % 20 + 1:02d}T00:00:00Z",
                "score": 0.5 if n % 50 else 7,
            }
        )
        for n in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _requests(table: Path) -> set[str]:
    return set(read_traffic(table).frame["request_id"])


@pytest.mark.parametrize("form", ["traffic.parquet", "traffic/"])
@pytest.mark.parametrize("keep_ids", [False, True])
def test_a_persons_rows_go_and_all_others_stay(tmp_path: Path, form: str, keep_ids: bool) -> None:
    out = tmp_path / form
    ingest([_log(tmp_path / "log.jsonl")], str(tmp_path / form), max_bad=0.1, keep_ids=keep_ids)
    before = read_traffic(out).frame.set_index("request_id")
    done = forget(out, ["ann", "zoë@x.org"])
    after = read_traffic(out).frame.set_index("request_id")
    gone = {f"r{n}" for n in range(400) if n % 50 and n % 4 in (0, 2)}
    assert set(before.index) - set(after.index) == gone
    assert (done.rows, done.requests, done.quarantined) == (len(gone), len(gone), 8)
    pd.testing.assert_frame_equal(before.loc[after.index], after)
    assert not (tmp_path / f"{out.name}.quarantine.jsonl").read_text()
    assert forget(out, ["ann", "zoë@x.org"]).rows == 0
    if not keep_ids:
        assert forget(out, [after["user_id"].iloc[0]]).rows > 0  # the id as it is in the table


def test_rows_that_are_ingested_after_it_are_added_as_before(tmp_path: Path) -> None:
    out, log = tmp_path / "traffic", _log(tmp_path / "log.jsonl")
    ingest([log], f"{out}/", max_bad=0.1)
    whole = _requests(out)
    forget(out, ["bob"])
    ingest([log], out, max_bad=0.1)
    assert _requests(out) == whole


def test_a_table_from_elsewhere_keeps_its_own_columns(tmp_path: Path) -> None:
    path = tmp_path / "own.parquet"
    columns = {"request_id": ["a", "b", "c"], "user_id": [7, None, 8], "mine": [1.5, 2.5, 3.5]}
    pq.write_table(pa.table(columns), path)
    assert forget(path, ["7"]).rows == 1
    assert pq.read_table(path).to_pydict() == {
        "request_id": ["b", "c"],
        "user_id": [None, 8],
        "mine": [2.5, 3.5],
    }


def test_without_the_key_nothing_is_removed(tmp_path: Path, capsys) -> None:
    out = tmp_path / "traffic.parquet"
    ingest([_log(tmp_path / "log.jsonl")], out, max_bad=0.1)
    (tmp_path / "traffic.parquet.key").unlink()
    held = out.read_bytes()
    keyless = call(capsys, "forget", out, "--user", "ann")
    keyless.refused("hashed with another key", "traffic.parquet.key")
    assert "--out" not in keyless.err  # it has none
    call(capsys, "forget", tmp_path / "no", "--user", "ann").refused("no such data set")
    call(capsys, "forget", out, "--user", "").refused("--user")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    call(capsys, "forget", tmp_path / "bad.parquet", "--user", "a").refused("not a whole Parquet")
    assert out.read_bytes() == held


def test_nobody_found_is_told(tmp_path: Path, capsys) -> None:
    out = tmp_path / "traffic.parquet"
    ingest([_log(tmp_path / "log.jsonl")], out, max_bad=0.1)
    done = call(capsys, "forget", out, "--user", "nobody")
    assert (done.code, "no such user_id is in it" in done.out) == (0, True)
    assert "no such user_id" not in call(capsys, "forget", out, "--user", "ann").out
    told = call(capsys, "forget", out, "--user", "bob", "--user", "bop").out  # one is misspelt
    assert "rows of 0 requests" not in told
    assert "under this table's key: 'bop'; beside it" in told.replace("\n", " ")


def test_answers_in_a_replays_journal_become_failures_and_their_price_stays(tmp_path: Path) -> None:
    out = tmp_path / "traffic.parquet"
    ingest([_log(tmp_path / "log.jsonl")], out, max_bad=0.1)
    records = [
        {"kind": "asked", "key": "k1", "request_id": "r1", "usd": 1},
        {"kind": "asked", "key": "k2", "request_id": "r2", "usd": 1},
        {"kind": "answered", "key": "k1", "usd": 1, "text": "to bob"},
        {"kind": "answered", "key": "k2", "usd": 1, "text": "to zoë"},
    ]
    journal = tmp_path / "traffic.parquet.journal.jsonl"
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert forget(out, ["bob"]).answers == 1
    after = [json.loads(line) for line in journal.read_text().splitlines()]
    forgotten = records[2] | {"kind": "failed", "text": None, "error": "forgotten"}
    assert after == [*records[:2], forgotten, records[3]]
    assert forget(out, ["bob"]).answers == 0


def test_artifacts_and_runs_that_saw_them_are_named(
    job, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pq.read_table(job.traffic)
    users = pa.array([f"u{n % 7}" for n in range(len(table))])
    at = table.schema.get_field_index("user_id")
    table = (
        table.append_column("user_id", users) if at < 0 else table.set_column(at, "user_id", users)
    )
    path = tmp_path / "traffic.parquet"
    pq.write_table(table.replace_schema_metadata(), path)
    asked = [
        "forget",
        path,
        "--user",
        "u3",
        "--artifacts",
        job.artifact.parent,
        "--mlflow",
        "--json",
    ]
    done = call(capsys, *asked)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    places = [one["place"] for one in told["saw"]]
    assert str(job.artifact) in places
    assert any(place.startswith("MLflow run ") for place in places)
    assert all(0 < one["requests"] <= told["requests"] for one in told["saw"])
    assert "u3" not in pq.read_table(path)["user_id"].to_pylist()
    again = json.loads(call(capsys, *asked).out)
    assert (again["rows"], again["saw"]) == (0, [])
    call(capsys, *asked[:4], "--artifacts", tmp_path).refused("no artifact")
    saw = [Saw("a", "v1", 1), Saw("MLflow run 1", "v1", 1), Saw("MLflow run 2", "v2", 1)]
    assert Forgotten(path, 1, 1, 0, 0, tuple(saw), True).artifacts == 2
    assert "was not asked" in call(capsys, *asked[:4]).out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    before = path.read_bytes()
    lost = call(capsys, *asked[:3], "u4", "--mlflow")
    assert (lost.code, path.read_bytes() == before) == (3, True)
    assert "there is no MLflow store" in lost.err and not (tmp_path / "none.db").exists()


KILLED = """
import sys
from pathlib import Path
from training.forget import forget
print("ready", flush=True)
forget(Path(sys.argv[1]), ["ann"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["traffic.parquet", "traffic/"])
def test_killed_at_random_points_no_other_row_is_lost(tmp_path: Path, form: str) -> None:
    log = _log(tmp_path / "log.jsonl", 8000)
    kept = {f"r{n}" for n in range(8000) if n % 50 and n % 4 != 0}
    theirs = {f"r{n}" for n in range(8000) if n % 50 and n % 4 == 0}
    chance = random.Random(3)
    whole = 0.0
    for turn in range(21):  # the first runs to its end, and says how long that takes
        out = tmp_path / str(turn) / form
        ingest([log], f"{tmp_path}/{turn}/{form}", max_bad=0.1)
        command = [sys.executable, "-c", KILLED, str(out)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        run.stdout.readline()
        started = time.perf_counter()
        if turn:
            time.sleep(whole * chance.random())
            run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        whole = whole or time.perf_counter() - started
        done = forget(out, ["ann"])
        assert _requests(out) == kept
        assert done.rows in (0, len(theirs))
        assert not [p for p in out.parent.rglob(".*") if p.name.endswith(".part")]
