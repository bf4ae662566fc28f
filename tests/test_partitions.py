"""A traffic table as a folder with a partition a day: appended to, killed, read."""

import csv
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import dataset

from tests.traffic_makers import call, make_rows, write_log
from training.errors import BadInput
from training.log import ledger, partitions
from training.log.ingest import ingest
from training.log.layout import JOURNAL, hashes_of
from training.log.traffic import read_traffic

HEADER = ["request_id", "at", "prompt", "model", "score", "user_id"]


def _log(path: Path, *rows: tuple[object, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def _rows(numbers: range, days: int = 5, score: int = 1) -> list[tuple[object, ...]]:
    return [
        (f"r{n}", f"2026-11-{n % days + 1:02d}T10:00:00Z", f"prompt {n}", "m", score, f"u{n % 7}")
        for n in numbers
    ]


def _files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def _scores(out: Path) -> dict[str, float]:
    frame = read_traffic(out).frame
    assert frame["request_id"].is_unique
    return dict(zip(frame["request_id"], frame["score"], strict=True))


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_a_partition_a_day(tmp_path: Path) -> None:
    out = tmp_path / "traffic"
    source = _log(tmp_path / "1.csv", *_rows(range(50)), ("late", "", "no time", "m", 1, "u"))
    report = ingest([source], f"{out}/")
    assert (report.rows, report.total["ingested"]) == (51, 51)
    days = sorted(path.name for path in out.iterdir())
    assert days == [*(f"day=2026-11-{d:02d}" for d in range(1, 6)), f"day={partitions.UNTIMED}"]
    for day in days[:-1]:
        [part] = (out / day).iterdir()
        at = pq.read_table(part, partitioning=None)["at"].to_pandas()
        assert set(at.dt.strftime("day=%Y-%m-%d")) == {day}
    assert len(_scores(out)) == 51
    assert (tmp_path / "traffic.key").exists()


def test_append_adds_and_replaces(tmp_path: Path) -> None:
    out = tmp_path / "traffic"
    ingest([_log(tmp_path / "1.csv", *_rows(range(50)))], f"{out}/")
    before = _files(out)
    again = ingest([tmp_path / "1.csv"], out)  # the folder is there: no slash is needed
    assert (again.total["duplicate"], again.total["ingested"]) == (50, 0)
    assert _files(out) == before
    more = _log(tmp_path / "2.csv", *_rows(range(45, 60), score=0), *_rows(range(58, 60), score=0))
    report = ingest([more], out)
    assert (report.total["ingested"], report.total["duplicate"]) == (15, 2)
    scores = _scores(out)
    assert len(scores) == 60
    assert [scores[f"r{n}"] for n in (44, 45, 59)] == [1, 0, 0]
    assert not [name for name in _files(out) if "/." in name or name.startswith(".")]


def test_a_day_that_is_replaced_whole_loses_its_old_file(tmp_path: Path) -> None:
    out = tmp_path / "traffic"
    ingest([_log(tmp_path / "1.csv", ("a", "2026-11-01", "x", "m", 1, "u"))], f"{out}/")
    ingest([_log(tmp_path / "2.csv", ("a", "2026-11-02", "x", "m", 1, "u"))], out)
    assert [name.split("/")[0] for name in _files(out)] == ["day=2026-11-02"]


def test_a_refused_append_leaves_no_trace(tmp_path: Path) -> None:
    out = tmp_path / "traffic"
    bad = _log(tmp_path / "bad.csv", *_rows(range(5)), ("b", "2026-11-01", "x", "m", 7, "u"))
    with pytest.raises(BadInput, match="nothing was written"):
        ingest([bad], f"{out}/")
    assert not out.exists()
    ingest([_log(tmp_path / "1.csv", *_rows(range(50)))], f"{out}/")
    before = _files(out)
    with pytest.raises(BadInput, match="nothing was written"):
        ingest([bad], out)
    assert _files(out) == before
    with pytest.raises(BadInput, match="is a file"):
        ingest([tmp_path / "1.csv"], f"{tmp_path}/1.csv/")


def test_memory_is_bounded_by_closing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "OPEN_FILES", 3)
    monkeypatch.setattr(partitions, "PENDING_BYTES", 1)
    monkeypatch.setattr("training.log.ingest.BATCH_ROWS", 7)
    out = tmp_path / "traffic"
    ingest([_log(tmp_path / "1.csv", *_rows(range(100)), *_rows(range(20)))], f"{out}/")
    assert len(_scores(out)) == 100
    ingest([_log(tmp_path / "2.csv", *_rows(range(50, 150), score=0))], out)
    assert sum(score == 0 for score in _scores(out).values()) == 100


def test_a_reader_under_whose_hands_an_append_ends_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "traffic"
    ingest([_log(tmp_path / "1.csv", *_rows(range(50)))], f"{out}/")
    ended: list[Path] = []

    def slow(path: Path, **_: Any) -> pa.Table:
        found = dataset(path, format="parquet", partitioning=None)
        if not ended:
            ended.append(out)
            ingest([_log(tmp_path / "2.csv", *_rows(range(60), score=0))], out)
        return found.to_table()

    monkeypatch.setattr(pq, "read_table", slow)
    scores = _scores(out)
    assert ended and (len(scores), set(scores.values())) == (60, {0})


def test_an_unfinished_append_is_refused_by_readers_and_finished_by_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "traffic"
    ingest([_log(tmp_path / "1.csv", *_rows(range(50)))], f"{out}/")
    more = _log(tmp_path / "2.csv", *_rows(range(40, 80), score=0))
    apply = partitions._apply
    monkeypatch.setattr(partitions, "_apply", lambda folder, plan: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ingest([more], out)
    monkeypatch.setattr(partitions, "_apply", apply)
    assert (out / JOURNAL).exists()
    with pytest.raises(BadInput, match="the same log again"):
        read_traffic(out)
    call(capsys, "label", out, "--out", tmp_path / "l.parquet").refused("the same log again")
    with pytest.raises(BadInput, match="the same log again"):
        ingest([out], tmp_path / "copy.parquet")
    report = ingest([more], out)
    assert report.total["duplicate"] == 40
    assert len(_scores(out)) == 80


KILLED = """
import sys
from training.log.ingest import ingest
print("ready", flush=True)
ingest([sys.argv[1]], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "file"])
def test_kill_at_random_points_loses_and_doubles_nothing(tmp_path: Path, form: str) -> None:
    out = tmp_path / "traffic" if form == "folder" else tmp_path / "traffic.parquet"
    first = _log(tmp_path / "1.csv", *_rows(range(3000), days=28))
    more = _log(tmp_path / "2.csv", *_rows(range(2000, 12_000), days=28, score=0))
    command = [sys.executable, "-c", KILLED, str(more)]
    rng = random.Random(0)
    whole = 0.0
    for turn in range(21):  # the first runs to its end, and says how long that takes
        place = tmp_path / str(turn) / out.name
        ingest([first], f"{place}/" if form == "folder" else place)
        run = subprocess.Popen([*command, str(place)], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        run.stdout.readline()
        started = time.perf_counter()
        if turn:
            time.sleep(whole * (rng.random() if turn % 2 else 0.6 + 0.4 * rng.random()))
            run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        whole = whole or time.perf_counter() - started
        ingest([more], place)
        scores = _scores(place)
        assert len(scores) == 12_000
        assert sum(score == 0 for score in scores.values()) == 10_000
        rows = sum(pq.ParquetFile(p).metadata.num_rows for p in _parquet(place))
        assert rows == 12_000
        strays = [p for p in place.parent.rglob("*") if p.name.endswith(".part")]
        assert not strays


def _parquet(place: Path) -> list[Path]:
    return sorted(place.rglob("*.parquet")) if place.is_dir() else [place]


def test_a_folder_reads_as_the_file_does(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = make_rows(300, seed=3)
    one = write_log(workdir / "log.parquet", rows)
    ingest([one], "traffic/", keep_ids=True)
    by_file, by_folder = read_traffic(one).frame, read_traffic("traffic").frame
    key = ["request_id", "tier"]
    pd.testing.assert_frame_equal(
        by_file.sort_values(key).reset_index(drop=True),
        by_folder.sort_values(key).reset_index(drop=True),
    )
    assert call(capsys, "inspect", "traffic").out == call(capsys, "inspect", one).out


def test_an_append_reads_only_the_keys_of_rows_that_do_not_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t"
    out.mkdir()
    ingest([_log(tmp_path / "a.csv", *_rows(range(50)))], out)
    read: list[int] = []

    def watched(batch: pa.RecordBatch) -> Any:
        read.append(len(batch))
        return hashes_of(batch)

    monkeypatch.setattr(ledger, "hashes_of", watched)
    report = ingest([_log(tmp_path / "b.csv", *_rows(range(48, 60), score=0))], out)
    assert report.rows == 60
    assert sum(read) == 12 + 2  # what is new, and the two rows that it may replace
    assert [_scores(out)[f"r{n}"] for n in (47, 48, 49, 50)] == [1.0, 0.0, 0.0, 0.0]


def test_a_foreign_table_that_repeats_itself_is_resolved_by_content(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"request_id": ["a", "a", "b", "b"], "messages": "x", "model": "m", "score": [0, 1, 1, 1.0]}
    )
    out = tmp_path / "t.parquet"
    frame.to_parquet(out, index=False)
    report = ingest([_log(tmp_path / "b.csv", *_rows(range(3)))], out, keep_ids=True)
    assert report.rows == 5
    assert _scores(out)["a"] == 1.0
