"""Where a job may write is asked before its work, and what it reads is never overwritten."""

from pathlib import Path

import numpy as np
import pytest

from tests.traffic_makers import call, write_tiers
from training import files
from training.errors import BadInput, EnvironmentProblem
from training.files import check_file, whole, write_arrays


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "a.txt"
    with whole(out) as beside:
        beside.write_text("one")
    with pytest.raises(ZeroDivisionError), whole(out) as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert out.read_text() == "one"
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("out", ["", ".", "/", "folder", "file/x", "file/x/y", "log", "folder/x"])
def test_places_that_are_refused(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "log").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "log")
    with pytest.raises(BadInput):
        check_file(Path(out), Path("link"), None, Path("folder"))
    check_file(Path("new/x"), Path("link"), Path("folder"))


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(EnvironmentProblem, match="may not be written"):
        check_file(tmp_path / "deep" / "a.txt")


def test_a_folder_that_takes_no_files_from_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def refuse(dir: Path) -> None:
        raise OSError(2, "No such file or directory")

    monkeypatch.setattr(files, "TemporaryFile", refuse)  # as /proc does, also for root
    with pytest.raises(EnvironmentProblem, match=f"nothing can be made in {tmp_path}"):
        check_file(tmp_path / "deep" / "a.txt")
    for asked in (
        ("demo", "--out", tmp_path / "x"),
        ("train", "--traffic", "none", "--tiers", write_tiers(tmp_path), "--out", tmp_path / "x"),
    ):
        done = call(capsys, *asked)
        assert done.code == 3
        assert "nothing can be made in" in done.err
    assert not (tmp_path / "x").exists()


def test_what_is_read_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(BadInput, match="log: is a file, which this job reads"):
        check_file(tmp_path / "log", tmp_path / "log")
    with pytest.raises(BadInput, match=f"x: is in {tmp_path}, which this job reads"):
        check_file(tmp_path / "x", tmp_path)


@pytest.mark.parametrize("out", ["", "folder", "file/x", "traffic", "artifact/x"])
@pytest.mark.parametrize(
    "command",
    [
        ("score", "artifact", "--traffic", "traffic", "--out"),
        ("evaluate", "artifact", "--traffic", "traffic", "--json"),
        ("report", "artifact", "--traffic", "traffic", "--out"),
        ("monitor", "artifact", "--traffic", "traffic", "--state"),
        ("drift", "--reference", "artifact", "--traffic", "traffic", "--out"),
        ("label", "traffic", "--out"),
        ("replay", "traffic", "--tiers", "tiers", "--dry-run", "--out"),
        ("judge", "traffic", "--model", "m", "--dry-run", "--out"),
        ("bench", "--traffic", "traffic", "--tiers", "tiers", "--json"),
    ],
)
def test_every_command_asks_before_its_work(command, out, job, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    before = job.traffic.read_bytes()
    known = {"artifact": job.artifact, "traffic": job.traffic, "tiers": job.tiers}
    if out == "artifact/x" and "artifact" not in command:
        pytest.skip("it reads no artifact")
    place = str(known.get(out, out)).replace("artifact/x", f"{job.artifact}/x")
    asked = [known.get(word, word) for word in command]
    call(capsys, *asked, place).refused()
    assert job.traffic.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert not list((tmp_path / "folder").iterdir())


def test_train_and_ingest_ask_too(job, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    train = ("train", "--traffic", job.traffic, "--tiers", job.tiers, "--out")
    for out in ("", "file/x", "/"):
        call(capsys, *train, out).refused("write" if out == "file/x" else "artifact")
    for out in ("", "."):
        call(capsys, "ingest", job.traffic, "--out", out).refused("names no table")


def test_pictures_are_all_that_is_logged(job, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "secret.key").write_text("x")
    asked = ("evaluate", job.artifact, "--traffic", job.fresh, "--plots", "figures")
    assert call(capsys, *asked).code == 0
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    kept = {path.name for path in (tmp_path / "mlruns").rglob("plots/*")}
    assert kept == drawn != set()
    assert not list((tmp_path / "mlruns").rglob("*.key"))


@pytest.mark.parametrize("budget", ["nan", "-5", "inf"])
def test_a_budget_is_a_sum(budget, job, tmp_path, capsys):
    out = ("--out", tmp_path / "r.parquet", "--budget", budget)
    call(capsys, "replay", job.traffic, "--tiers", job.tiers, *out).refused("--budget")
    call(capsys, "judge", job.traffic, "--model", "m", *out).refused("--budget")


def test_arrays_of_objects_are_not_written(tmp_path: Path) -> None:
    arrays = {"allow": np.arange(3), "pickle": np.zeros((2, 2), np.float32)}
    write_arrays(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert set(found.files) == set(arrays)  # and no array "allow_pickle"
    with pytest.raises(TypeError, match="words: an array of objects"):
        write_arrays(tmp_path / "b.npz", {"words": np.array(["a", None])})
    assert not (tmp_path / "b.npz").exists()
