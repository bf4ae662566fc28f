"""Retraining against MLflow's tracking server on PostgreSQL: all of it, and when it fails."""

import json
import time
from urllib.request import Request, urlopen

import mlflow
import pandas as pd
import pytest

from router import Router
from router.artifact import load_artifact
from tests import tracking_server as servers
from tests.test_retrain import later_rows, run, write_job
from tests.traffic_makers import call, make_rows, write_log, write_tiers
from training.learn import heads
from training.retrain.registry import ANCHOR, CHAMPION, PREVIOUS, Registry

PROGRAMS = servers.postgres_programs()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAMS is None, reason="no PostgreSQL server on this machine"),
]
PROMPTS = ["what is the capital of kenya", "proof of the lemma please"]
REFUSED = "max_ece = 0.0\nece_rows = 1"  # a gate that nothing passes


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A proxy in front of a tracking server in front of PostgreSQL."""
    folder = tmp_path_factory.mktemp("tracking")
    with (
        servers.postgres(PROGRAMS) as store,
        servers.tracking_server(store, folder) as port,
        servers.proxy(port) as proxy,
    ):
        yield proxy


@pytest.fixture
def site(server, tmp_path, monkeypatch):
    """A folder with a log, tiers and a job, whose model in the registry has the folder's name."""
    server.mood = lambda method, path: None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)
    write_log(tmp_path / "log.parquet", make_rows(1500))
    write_tiers(tmp_path)
    write_job(tmp_path, registry=tmp_path.name)
    yield tmp_path
    server.mood = lambda method, path: None


def registry(site, server):
    mlflow.set_tracking_uri(server.url)
    return Registry(mlflow, site.name)


def test_retrain_promote_roll_back_compare_and_serve(site, server, capsys):
    first = run(capsys)[1]
    assert first["status"] == "promoted"
    write_job(site, gate=REFUSED, registry=site.name)
    done, second = run(capsys)
    assert (done.code, second["status"]) == (1, "refused")
    kept = registry(site, server)
    assert kept.of(CHAMPION).artifact == first["artifact"]
    folder = site / "serving" / "current"
    for command, serves in (
        (("promote", second["version"]), second),
        (("rollback",), first),
        (("rollback",), second),
    ):
        assert call(capsys, *command, "--folder", folder, "--model", site.name).code == 0
        assert load_artifact(folder).version == serves["artifact"]
        assert kept.of(CHAMPION).artifact == serves["artifact"]
    assert kept.of(PREVIOUS).artifact == kept.of(ANCHOR).artifact == first["artifact"]

    write_log(site / "later.parquet", later_rows())
    pair = (first["run_id"], "champion", "--traffic", "later.parquet", "--model", site.name)
    told = call(capsys, "compare", *pair, "--json")
    assert told.code == 0, told
    assert json.loads(told.out)["requests"] == 400

    uri, served = f"models:/{site.name}@champion", Router.load(folder)
    expected = [served.route(prompt) for prompt in PROMPTS]
    answers = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"prompt": PROMPTS}))
    assert answers["tier"].tolist() == [one.tier for one in expected]
    from_registry = Router.load(uri).route(PROMPTS[0])
    assert from_registry.p_suffices == expected[0].p_suffices
    body = json.dumps({"dataframe_split": {"columns": ["prompt"], "data": [[p] for p in PROMPTS]}})
    with servers.model_server(uri, site, server.url) as port:
        ask = Request(
            f"http://127.0.0.1:{port}/invocations",
            body.encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(ask, timeout=60) as reply:
            rows = json.load(reply)["predictions"]
    assert [row["tier"] for row in rows] == [one.tier for one in expected]
    for row, one in zip(rows, expected, strict=True):
        assert row["p_suffices__small"] == pytest.approx(one.p_suffices["small"], abs=1e-9)


def test_whatever_the_server_does_the_champion_serves(site, server, capsys, monkeypatch):
    first = run(capsys)[1]
    folder = site / "serving" / "current"
    champion = registry(site, server).of(CHAMPION)
    assert champion.artifact == first["artifact"]
    write_log(site / "log.parquet", make_rows(1600, 3))  # there is something to do

    def fails(mood, *words):
        server.mood = mood
        done, _ = run(capsys)
        server.mood = lambda method, path: None
        assert done.code == 3, done
        assert "Traceback" not in done.err
        for word in (server.url, "the champion serves as before", *words):
            assert word in done.err
        assert load_artifact(folder).version == first["artifact"]
        assert registry(site, server).of(CHAMPION) == champion

    # It refuses the artifact: a full or read-only store.
    fails(lambda method, path: 507 if method == "PUT" and "mlflow-artifacts" in path else None)
    # Its registry fails. That is not the same as a registry without a champion.
    fails(lambda method, path: 500 if "registered-models/get" in path else None, "500")
    # It does not answer in time.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    fails(lambda method, path: time.sleep(2))
    # It is not there.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{servers.free_port()}")
    done, _ = run(capsys)
    assert done.code == 3
    assert load_artifact(folder).version == first["artifact"]


def test_a_champion_deleted_from_the_registry_is_put_back(site, server, capsys):
    first = run(capsys)[1]
    kept = registry(site, server)
    kept.client.delete_model_version(site.name, first["version"])
    assert kept.of(CHAMPION) is None
    done, again = run(capsys)
    assert done.code == 0, done
    assert again["status"] == "nothing new"
    assert kept.of(CHAMPION).artifact == first["artifact"]
    assert load_artifact(site / "serving" / "current").version == first["artifact"]
