"""Retraining: proposes, proves, promotes; and leaves the champion alone whatever happens."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from unittest import mock

import mlflow
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout

from router import Router
from router.artifact import load_artifact
from tests.traffic_makers import call, make_rows, requests_of, write_log, write_tiers
from training.errors import BadInput
from training.learn import heads
from training.log.fingerprint import contents, fingerprint
from training.log.traffic import read_traffic
from training.retrain.job import retrain
from training.retrain.registry import ANCHOR, CHAMPION, PREVIOUS, Registry, end_orphans
from training.retrain.settings import Window, read_settings
from training.retrain.window import cut, decay
from training.tracking import connected, fetch_file, log_run

TOML = """
[data]
traffic = "log.parquet"
tiers = "tiers.toml"
{data}
[train]
challengers = {challengers}
[policy]
min_quality = {quality}
[gate]
min_rows = 100
latency_p50_ms = 1000
{gate}
[registry]
model = "{model}"
[serve]
folder = "serving/current"
"""


def write_job(
    folder: Path,
    *,
    challengers: int = 1,
    quality: float = 0.9,
    data: str = "",
    gate: str = "",
    registry: str = "suffice",
) -> Path:
    path = folder / "retrain.toml"
    path.write_text(
        TOML.format(challengers=challengers, quality=quality, data=data, gate=gate, model=registry),
        encoding="utf-8",
    )
    return path


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with a log, tiers and a job; quick to fit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)
    write_log(tmp_path / "log.parquet", make_rows(1500))
    write_tiers(tmp_path)
    write_job(tmp_path)
    return tmp_path


def run(capsys, *more):
    done = call(capsys, "--quiet", "retrain", "--config", "retrain.toml", "--json", *more)
    return done, json.loads(done.out) if done.out else {}


def later_rows():
    return [row | {"request_id": f"later-{row['request_id']}"} for row in make_rows(400, 9)]


def registry(folder):
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return Registry(mlflow, "suffice")


def running(folder):
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    runs = mlflow.search_runs(experiment_names=["suffice"], output_format="list")
    return [run for run in runs if run.info.status == "RUNNING"]


def test_the_first_job_makes_a_champion_and_a_second_finds_nothing_new(site, capsys):
    planned, told = run(capsys, "--dry-run")
    assert planned.code == 0
    assert told["status"] == "planned"
    assert told["notes"][1] == "train 1 challenger (static), hold the best against no champion"
    assert not (site / "serving").exists()  # no lock either
    assert not list(site.glob("*mlflow*"))
    done, first = run(capsys)
    assert (done.code, done.err) == (0, "")  # MLflow is quiet, too
    assert first["status"] == "promoted"
    worth, look = first["notes"][1:]
    assert worth.startswith("Saves") and "requests that the router has not seen" in worth
    assert (
        look
        == f"MLflow run {first['run_id']}: mlflow ui --backend-store-uri sqlite:///{site}/mlflow.db"
    )
    assert all(check["passed"] for check in first["checks"])
    served = Router.load(site / "serving" / "current")
    assert served.artifact.version == first["artifact"]
    champion = registry(site).of(CHAMPION)
    assert champion is not None
    assert champion.artifact == first["artifact"]
    assert registry(site).of(ANCHOR) == champion
    again, second = run(capsys)
    assert again.code == 0
    assert second["status"] == "nothing new"
    assert second["run_id"] == first["run_id"]
    assert run(capsys, "--dry-run")[1]["notes"][1].startswith("nothing:")

    # The model in the registry answers as the served artifact does, without suffice's jobs.
    model = mlflow.pyfunc.load_model("models:/suffice@champion")
    prompts = ["what is the capital of kenya", '[{"role": "user", "content": "proof lemma"}]']
    answers = model.predict(pd.DataFrame({"prompt": prompts}))
    assert answers["tier"].tolist()[0] == served.route(prompts[0]).tier
    assert answers["tier"].tolist()[1] == served.route(json.loads(prompts[1])).tier

    # What a reviewer finds in the run.
    client, kept = mlflow.MlflowClient(), mlflow.get_run(first["run_id"])
    assert kept.info.run_name.startswith("promoted, 20")
    told = kept.data.tags["mlflow.note.content"]
    assert told.startswith("# Promoted. Saves")
    assert "## Gate: passed" in told
    assert "| ✓ | test rows |" in told
    assert kept.data.tags["suffice.since"] == "2026-03-01T00:00:00"
    assert kept.data.tags["suffice.until"] == "2026-03-02T00:59:00"
    assert len(kept.data.tags["suffice.fingerprint"]) == 32
    (data,) = kept.inputs.dataset_inputs
    assert data.dataset.name == "log.parquet"
    assert str(site / "log.parquet") in data.dataset.source
    names = ("CARD.md", "report.html", "report.json", "cost_quality.png", "reliability.png")
    files = {Path(file.path).name for file in client.list_artifacts(first["run_id"], "report")}
    assert {*names, "slices.png"} == files
    figures = kept.data.metrics
    for name in ("policy.saving", "policy.quality_of_top", "policy.share_small", "dollar.aiq"):
        assert figures[f"{name}.low"] <= figures[name] <= figures[f"{name}.high"]
    assert len(figures) < 80
    nested = mlflow.search_runs(
        experiment_names=["suffice"],
        filter_string=f"tags.`mlflow.parentRunId` = '{first['run_id']}'",
        order_by=["metrics.merit DESC"],
        output_format="list",
    )
    assert [run.data.tags.get("suffice.retrain.picked") for run in nested] == ["yes"]
    assert nested[0].data.metrics["merit"] == figures["merit"]
    assert nested[0].data.params["ridge_strength"] == "1"
    version = client.get_model_version("suffice", first["version"])
    assert version.description.startswith("Promoted. Saves")
    assert version.tags["suffice.fingerprint"] == kept.data.tags["suffice.fingerprint"]
    assert "champion" in client.get_registered_model("suffice").description
    assert model.metadata.signature.inputs.input_names() == ["prompt"]
    assert model.input_example["prompt"].tolist() == ["What is the capital of France?"]
    kind = mlflow.get_experiment_by_name("suffice").tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"


@pytest.mark.slow
def test_an_equal_is_no_reason_to_change_and_a_refusal_exits_with_1(site, capsys):
    assert run(capsys)[1]["status"] == "promoted"
    champion = registry(site).of(CHAMPION)
    write_job(site, gate="margin = 0.006")  # another job, the same challenger
    done, second = run(capsys)
    assert done.code == 0, done
    assert second["status"] == "champion kept"
    write_job(site, gate="max_ece = 0.0\nece_rows = 1")
    done, third = run(capsys)
    assert done.code == 1
    assert third["status"] == "refused"
    assert any("calibration" in why for why in third["notes"])
    tags = registry(site).client.get_model_version("suffice", third["version"]).tags
    assert tags["gate"] == "refused"
    assert any("calibration" in why for name, why in tags.items() if name.startswith("refused"))
    assert registry(site).of(CHAMPION) == champion
    assert load_artifact(site / "serving" / "current").version == champion.artifact


@pytest.mark.slow
def test_promote_and_roll_back_by_hand(site, capsys):
    first = run(capsys)[1]
    write_job(site, gate="max_ece = 0.0\nece_rows = 1")
    second = run(capsys)[1]
    assert second["status"] == "refused"
    folder = site / "serving" / "current"
    assert call(capsys, "promote", second["version"], "--folder", folder).code == 0
    assert load_artifact(folder).version == second["artifact"]
    assert registry(site).of(PREVIOUS).artifact == first["artifact"]
    assert call(capsys, "rollback", "--folder", folder).code == 0
    assert load_artifact(folder).version == first["artifact"]
    assert registry(site).of(CHAMPION).artifact == first["artifact"]
    write_log(site / "later.parquet", later_rows())
    told = call(
        capsys, "compare", first["run_id"], "previous", "--traffic", "later.parquet", "--json"
    )
    assert told.code == 0, told
    found = json.loads(told.out)
    assert found["world"] == "paired"
    assert found["requests"] == 400
    assert found["figures"]["quality"]["difference"]["low"] <= 0
    call(capsys, "compare", "nobody", "champion", "--traffic", "later.parquet").refused("nobody")
    call(capsys, "promote", "99", "--folder", folder).refused("99", "versions: 1, 2")


def test_a_promotion_that_is_killed_loses_no_version_to_go_back_to(site, monkeypatch):
    """Wherever it is killed: ``previous`` is what served before the champion, whichever that is."""
    known, client = registry(site), mlflow.MlflowClient
    for writes in range(5):
        name = f"killed after {writes}"
        found = Registry(known.mlflow, name)
        found.client.create_registered_model(name)
        first, second, third = (
            found.version(found.client.create_model_version(name, f"file:///{i}").version)
            for i in range(3)
        )
        found.promote(first)
        found.promote(second)
        with monkeypatch.context() as patch:
            killed = mock.Mock(side_effect=[*[mock.DEFAULT] * writes, KeyboardInterrupt])
            for method in dir(client):
                if method.startswith(("set_", "delete_")):
                    patch.setattr(client, method, _after(killed, getattr(client, method)))
            with suppress(KeyboardInterrupt):
                found.promote(third)
        before = {second: first, third: second}
        champion = found.of(CHAMPION)
        assert champion == (second if writes < 2 else third)
        back = found.version(PREVIOUS)
        assert back == before[champion]
        assert found.promote(back) == champion
        assert (found.of(CHAMPION), found.version(PREVIOUS)) == (back, champion)


def _after(first, then):
    def both(*given):
        first()
        return then(*given)

    return both


@pytest.mark.slow
def test_what_a_killed_job_or_a_hand_left_is_put_right(site, capsys):
    first = run(capsys)[1]
    folder = site / "serving" / "current"
    (folder / "heads.npz").write_bytes(b"damaged")
    with mlflow.start_run(tags={"suffice.retrain.folder": str(folder.resolve())}) as orphan:
        client = mlflow.MlflowClient()
    client.update_run(orphan.info.run_id, status="RUNNING")
    assert running(site)
    done, second = run(capsys)
    assert done.code == 0, done
    assert second["status"] == "nothing new"
    assert load_artifact(folder).version == first["artifact"]
    assert not running(site)
    registry(site).client.delete_registered_model("suffice")  # the champion is deleted by hand
    assert run(capsys)[0].code == 0
    adopted = registry(site).of(CHAMPION)
    assert adopted is not None
    assert adopted.artifact == first["artifact"]


@pytest.mark.parametrize(("old", "new"), [("serving/current", "full"), ('"static"', '"nope"')])
def test_a_dry_run_refuses_what_the_job_would(old, new, site, capsys):
    (site / "full").mkdir()
    (site / "full" / "notes.txt").write_text("mine")
    job = (site / "retrain.toml").read_text()
    job = job.replace("[train]", '[train]\nembedders = ["static"]').replace(old, new)
    (site / "retrain.toml").write_text(job)
    call(capsys, "retrain", "--config", "retrain.toml", "--dry-run").refused(new.strip('"'))
    assert not (site / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("column", "mend"),
    [
        ("propensity", lambda row: 0.5),
        ("cost_usd", lambda row: 0.25),
        ("label_weight", lambda row: 0.9),
        ("messages", lambda row: row["messages"].replace("capital", "seat of government")),
        ("session_id", lambda row: "one"),
    ],
)
def test_what_is_mended_under_the_same_ids_and_scores_is_new(column, mend, tmp_path):
    rows = make_rows(30)
    before = requests_of(rows, tmp_path)
    mended = requests_of([row | {column: mend(row)} for row in rows], tmp_path)
    assert fingerprint(mended) == fingerprint(before)
    assert contents(mended) != contents(before)
    by_request = [rows[i : i + 2] for i in range(0, 60, 2)][::-1]
    assert contents(requests_of([row for pair in by_request for row in pair], tmp_path)) == (
        contents(before)
    )


def test_a_dry_run_tells_what_would_be_put_right(job, site, capsys):
    folder = site / "serving" / "current"
    shutil.copytree(job.artifact, folder)
    notes = run(capsys, "--dry-run")[1]["notes"]
    assert notes[1] == f"adopt {job.trained.version}, which serving/current serves, as the champion"
    assert notes[2].endswith(f"hold the best against {job.trained.version}")
    with connected("failed") as (module, _), module.start_run():
        champion = registry(site).register(folder, "another", {}, "")
        registry(site).promote(champion)
    notes = run(capsys, "--dry-run")[1]["notes"]
    assert notes[1].startswith("put the champion, another (version 1), back into")
    assert notes[2].endswith("hold the best against version 1 (another)")


@pytest.mark.parametrize(
    ("error", "became", "why"),
    [(KeyboardInterrupt(), "interrupted", "By hand."), (BadInput("no rows"), "failed", "no rows")],
)
def test_a_job_that_stops_says_so_in_its_run(error, became, why, site, monkeypatch):
    monkeypatch.setattr("training.retrain.job._best", mock.Mock(side_effect=error))
    with pytest.raises(type(error)):
        retrain(site / "retrain.toml")
    (found,) = mlflow.search_runs(experiment_names=["suffice"], output_format="list")
    assert found.info.run_name.startswith(f"{became}, 20")
    assert found.data.tags["mlflow.note.content"].endswith(why)


def test_a_job_that_was_killed_is_called_so(site):
    with connected("failed") as (module, _):
        with module.start_run(run_name="retrain 2026-03-01 00:00", tags={"job": "here"}) as killed:
            pass
        module.MlflowClient().update_run(killed.info.run_id, status="RUNNING")
        assert end_orphans(module, "job", "here") == 1
        found = module.get_run(killed.info.run_id).info
    assert (found.run_name, found.status) == ("killed, 2026-03-01 00:00", "KILLED")


DIES = """
import os, mlflow
from training.tracking import connected
mlflow.MlflowClient.search_experiments = lambda *_, **__: os._exit(9)
with connected("failed"):
    pass
"""


def test_a_store_that_a_killed_job_began_is_made_anew(site):
    died = subprocess.run([sys.executable, "-c", DIES], cwd=Path(__file__).parents[1], check=False)
    assert died.returncode == 9
    assert not (site / "mlflow.db").exists()
    with connected("failed") as (_, store):
        assert store.endswith("mlflow.db")
    assert (site / "mlflow.db").is_file()


@pytest.mark.parametrize(
    ("store", "file"),
    [
        ("sqlite:///my%20store/m.db", "my store/m.db"),
        ("sqlite:///{here}/deep/m.db", "deep/m.db"),
        ("sqlite:///m.db", "m.db"),
    ],
)
def test_a_store_is_where_mlflow_looks_for_it(store, file, tmp_path, monkeypatch):
    place = tmp_path / "a%20folder"  # whose own name looks encoded
    place.mkdir()
    monkeypatch.chdir(place)
    shown = store.format(here=str(place).replace("%", "%25"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shown)
    assert fetch_file("tag", "value", "a/b", tmp_path) is None
    run, _ = log_run("one", {}, {}, {"tag": "value"}, {})
    assert (place / file).is_file() and run
    assert fetch_file("tag", "value", "a/b", tmp_path) is None
    assert not list(place.rglob("*.part"))


def test_a_second_job_at_once_exits_with_3(site, capsys):
    (site / "serving").mkdir()
    with FileLock(site / "serving" / ".current.lock"):
        done, _ = run(capsys)
    assert done.code == 3
    assert "another job" in done.err


@pytest.mark.slow
def test_a_server_that_is_down_exits_with_3_and_the_champion_serves(site, capsys, monkeypatch):
    first = run(capsys)[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_job(site, challengers=2)
    done, _ = run(capsys)
    assert done.code == 3
    assert "Traceback" not in done.err
    assert load_artifact(site / "serving" / "current").version == first["artifact"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("challengers", "chalengers", ("[train]", "did you mean 'challengers'")),
        ("[serve]", "[server]", ("did you mean 'serve'",)),
        ("min_rows = 100", 'min_rows = "many"', ("[gate] min_rows", "whole number")),
        ('folder = "serving/current"', "", ("[serve] folder is missing",)),
        ("challengers = 1", "challengers = 0", ("at least one",)),
        ("challengers = 1", "seed = -1", ("seed", "below 0")),
        ("challengers = 1", 'labels = ["al"]', ("[train] labels", "did you mean 'all'")),
        ("challengers = 1", 'labels = ["all", "firm"]\nchallengers = 1', ("label rule",)),
        (
            "challengers = 1",
            'labels = ["all", "sufficed"]\nchallengers = 2\n[label]\nmargin = 0.1',
            ("[train] labels", "[label] margin"),
        ),
        ("min_quality", "min_qualty", ("did you mean 'min_quality'",)),
        ("challengers = 1", "finetune = 1", ("[train] finetune", "true or false")),
        ("challengers = 1", "max_minutes = 5", ("max_minutes", "finetune = true")),
        ("[train]", 'since = "soon"\n[train]', ("since", "90d")),
        ("[train]", 'since = "2027-01-01"\n[train]', ("the window is empty",)),
        ("[train]", "since = 2026-05-01\nuntil = 2026-04-01\n[train]", ("not before",)),
        ("[train]", "max_rows = 0\n[train]", ("max_rows",)),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_place(site, capsys, old, new, words):
    path = site / "retrain.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    done, _ = run(capsys)
    done.refused(*words)
    assert not (site / "serving" / "current").exists()


def test_a_log_whose_schema_changed_half_way_is_refused(site, capsys):
    rows = pd.DataFrame(make_rows(200))
    (site / "log").mkdir()
    write_log(site / "log" / "1.parquet", rows)
    write_log(site / "log" / "2.parquet", rows.assign(score="good"))
    text = write_job(site).read_text(encoding="utf-8").replace("log.parquet", "log")
    (site / "retrain.toml").write_text(text, encoding="utf-8")
    run(capsys)[0].refused("2.parquet", "column score", "changed half-way")


def test_forget_finds_what_was_registered(site, capsys):
    """A job keeps its artifact as a logged model: of `previous` and `anchor` there is no folder."""
    rows = make_rows(1500)
    write_log(site / "log.parquet", [row | {"user_id": row["session_id"][-1]} for row in rows])
    first = run(capsys)[1]
    assert first["status"] == "promoted"
    done = call(capsys, "forget", "log.parquet", "--user", "3", "--mlflow", "--json")
    (saw,) = json.loads(done.out)["saw"]
    assert saw["place"] == f"MLflow run {first['run_id']}"
    assert saw["version"] == first["artifact"]
    assert saw["requests"] > 0


@pytest.fixture
def small_disk(site):
    """The serving folder on a disk of its own with room for one artifact, not for two."""
    (site / "serving").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(site / "serving")]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield site
    subprocess.run(["umount", str(site / "serving")], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_exits_with_3_and_the_champion_serves(small_disk, capsys):
    first = run(capsys)[1]
    folder = small_disk / "serving" / "current"
    assert load_artifact(folder).version == first["artifact"]
    champion = registry(small_disk).of(CHAMPION)
    write_job(small_disk, gate="margin = 0.9")  # an equal challenger; nothing to gain
    second = run(capsys)[1]
    assert second["status"] == "champion kept"

    def holds(done):
        assert done.code == 3, done
        assert "No space left" in done.err or "written" in done.err or "too large" in done.err
        assert "the champion serves as before" in done.err
        assert "Traceback" not in done.err
        assert load_artifact(folder).version == first["artifact"]
        assert registry(small_disk).of(CHAMPION) == champion
        assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["current"]

    holds(call(capsys, "promote", second["version"], "--folder", folder))
    write_job(small_disk, gate="margin = 0.8")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, limit[1]))  # an artifact is larger
    try:
        done, _ = run(capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    holds(done)
    assert not running(small_disk)


@pytest.mark.slow
def test_of_two_jobs_at_once_the_second_waits_and_finds_nothing_new(site, capsys):
    text = write_job(site).read_text(encoding="utf-8") + "wait_seconds = 600\n"
    (site / "retrain.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "training", "--quiet", "retrain", "--config"]
    with subprocess.Popen([*command, "retrain.toml", "--json"], stdout=subprocess.PIPE) as job:
        lock = FileLock(site / "serving" / ".current.lock")
        while not _held(lock):
            time.sleep(0.1)
        done, second = run(capsys)
        first = json.load(job.stdout)
    assert first["status"] == "promoted"
    assert done.code == 0, done
    assert second["status"] == "nothing new"
    assert second["run_id"] == first["run_id"]


def _held(lock):
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


@pytest.mark.slow
def test_the_same_job_in_another_place_makes_the_same_bytes(site, capsys, monkeypatch):
    write_job(site, challengers=2)
    run(capsys)
    there = site / "there"
    there.mkdir()
    for name in ("log.parquet", "tiers.toml", "retrain.toml"):
        shutil.copy(site / name, there / name)
    monkeypatch.chdir(there)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{there}/mlflow.db")
    assert run(capsys)[1]["status"] == "promoted"
    one, other = (folder / "serving" / "current" for folder in (site, there))
    for name in ("heads.npz", "golden.jsonl", "embedder/vectors.npy", "embedder/tokenizer.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    facts = [json.loads((folder / "manifest.json").read_text()) for folder in (one, other)]
    for manifest in facts:
        del manifest["created_at"], manifest["files"]["CARD.md"]
    assert facts[0] == facts[1]


def test_fine_tuning_is_asked_for_in_the_configuration(site):
    path = site / "retrain.toml"
    words = "[train]\nfinetune = true\nmax_minutes = 30"
    path.write_text(path.read_text(encoding="utf-8").replace("[train]", words), encoding="utf-8")
    tuning = read_settings(path).tuning
    assert tuning is not None and tuning.max_minutes == 30


def test_a_window_keeps_requests_whole_and_the_latest(site):
    table = read_traffic(site / "log.parquet")
    some = cut(table, Window(max_rows=100))
    assert some.frame["request_id"].nunique() == 100
    assert len(some.frame) == 200
    assert some.frame["at"].min() > table.frame["at"].median()
    settings = read_settings(write_job(site, data='since = "2026-03-01T10:00:00"'))
    later = cut(table, settings.window)
    assert later.frame["at"].min() >= pd.Timestamp("2026-03-01T10:00:00Z")
    with pytest.raises(BadInput, match="no request has a time"):
        cut(type(table)(table.frame.assign(at=pd.NaT), *_rest(table)), settings.window)


def _rest(table):
    return [getattr(table, name) for name in list(table.__dataclass_fields__)[1:]]


def test_old_rows_weigh_less(tmp_path):
    rows = make_rows(100, timed=False)
    for i, row in enumerate(rows):
        row["at"] = pd.Timestamp("2026-03-01T00:00:00Z") + pd.Timedelta(days=i // 2)
    requests = requests_of(rows, tmp_path)
    weights = decay(requests, 10.0).weight[:, 0]
    assert weights[-1] == 1.0
    assert weights[-11] == pytest.approx(0.5)
    np.testing.assert_array_equal(decay(requests, None).weight, requests.weight)
    assert decay(requests, 10.0).firm.all()  # an old label is as sure as it was


@pytest.mark.slow
def test_kill_at_30_points(site, capsys):
    """Whenever it is killed, the champion or its heir serves, whole; a rerun is right."""
    before = run(capsys)[1]
    folder = site / "serving" / "current"
    write_log(site / "log.parquet", make_rows(1800, 1))
    command = [sys.executable, "-m", "training", "--quiet", "retrain", "--config"]
    started = time.perf_counter()
    subprocess.run([*command, write_job(site)], capture_output=True, check=False, cwd=site)
    whole = time.perf_counter() - started
    for point in range(30):
        write_log(site / "log.parquet", make_rows(1800 + point, 2 + point))
        job = subprocess.Popen(
            [*command, "retrain.toml"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=site,
            start_new_session=True,
        )
        time.sleep(whole * (point + 1) / 31)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        version = load_artifact(folder).version  # whole, whichever it is
        champion = registry(site).of(CHAMPION)
        assert champion is not None
        if version != champion.artifact:  # killed between the alias and the folder
            assert version in (before["artifact"], registry(site).of(PREVIOUS).artifact)
    done, told = run(capsys)
    assert done.code in (0, 1), done
    assert told["status"] in ("promoted", "champion kept", "refused", "nothing new")
    assert load_artifact(folder).version == registry(site).of(CHAMPION).artifact
    assert not running(site)
