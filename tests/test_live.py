"""A served router is replaced, shadowed, switched off and measured while it goes on deciding."""

import asyncio
import errno
import gc
import json
import logging
import os
import shutil
import signal
import threading
import time
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from router import ArtifactError, Decision, DecisionLog, Policy, Router
from router.artifact import ALL_FILES, files_of, load_artifact
from router.integrations.mlflow import fetch
from router.integrations.opentelemetry import instrument
from router.watch import load_settled, mark
from tests.builders import POLICY, make_artifact
from training.retrain.registry import Registry

ALWAYS = [Policy(0.0, constant=k) for k in range(3)]
NAMES = ["small", "middle", "large"]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three artifacts: always small, always middle, always large."""
    folder = tmp_path_factory.mktemp("kinds")
    return [make_artifact(folder / str(k), policy) for k, policy in enumerate(ALWAYS)]


@pytest.fixture
def current(kinds: list[Path], tmp_path: Path) -> Path:
    """A folder that a test may replace, at first always small."""
    return Path(shutil.copytree(kinds[0], tmp_path / "current"))


def put(new: Path, current: Path) -> None:
    """Replace by two renames, as the training job does: for an instant there is none."""
    beside, old = current.with_name(".new"), current.with_name(".old")
    shutil.copytree(new, beside)
    current.rename(old)
    beside.rename(current)
    shutil.rmtree(old)


@pytest.fixture
def watched(current: Path) -> Iterator[Router]:
    """A watching router whose looks the test makes itself."""
    router = Router.load(current).watch(seconds=3600)
    assert router.watcher is not None
    router.watcher.look()
    yield router
    router.close()


def test_a_new_artifact_is_served(watched: Router, current: Path, kinds: list[Path]) -> None:
    assert watched.watcher is not None
    assert watched.route("x").tier == "small"
    assert (watched.watcher.swapped, watched.watcher.refused) == (0, 0)
    for k in (2, 1):
        put(kinds[k], current)
        watched.watcher.look()
        assert watched.route("x").tier == NAMES[k]
        assert watched.route("x").router_version == watched.artifact.version
    watched.watcher.look()
    assert (watched.watcher.swapped, watched.watcher.refused) == (2, 0)


def test_a_refusal_that_cannot_be_told_is_counted(watched: Router, current: Path) -> None:
    """A handler that raises, unlike the standard ones, would end the thread that watches."""

    class Away(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the collector is away")

    logger, handler = logging.getLogger("suffice"), Away()
    (current / "manifest.sha256").write_text("x")
    assert watched.watcher is not None
    logger.addHandler(handler)
    try:
        watched.watcher.look()
    finally:
        logger.removeHandler(handler)
    assert watched.watcher.refused == 1
    assert "manifest" in str(watched.watcher.refusal)


def test_a_bad_artifact_is_refused_once(watched: Router, current: Path, kinds: list[Path]) -> None:
    watcher = watched.watcher
    assert watcher is not None
    put(kinds[2], current)
    raw = (current / "heads.npz").read_bytes()
    (current / "heads.npz").write_bytes(raw[:-1] + b"!")
    for _ in range(3):
        watcher.look()
    assert (watcher.swapped, watcher.refused) == (0, 1)
    assert watcher.refusal is not None
    assert "heads.npz" in watcher.refusal
    assert watched.route("x").tier == "small"
    (current / "heads.npz").write_bytes(raw)
    watcher.look()
    assert (watcher.swapped, watcher.refused, watcher.refusal) == (1, 1, None)
    assert watched.route("x").tier == "large"


def test_each_bad_artifact_counts(watched: Router, current: Path) -> None:
    assert watched.watcher is not None
    for number in range(1, 4):
        (current / "heads.npz").write_bytes(b"x" * 9)
        os.utime(current / "heads.npz", (number, number))
        watched.watcher.look()
        watched.watcher.look()
        assert watched.watcher.refused == number


def test_a_folder_that_is_completed_file_by_file(current: Path) -> None:
    """Whichever file comes last: it is refused until then, and served from then on."""
    manifests = list((Path(__file__).parent / "artifacts").glob("protocol-*/manifest.json"))
    stated = [files_of(json.loads(manifest.read_text())) for manifest in manifests]
    assert len(stated) == 5 and {name for names in stated for name in names} == set(ALL_FILES)
    for name in ALL_FILES:
        before = mark(current)
        (current / name).parent.mkdir(exist_ok=True)
        with (current / name).open("ab") as file:
            file.write(b"x")
        assert mark(current) != before, name


def test_half_an_artifact_that_stays_so_counts(watched: Router, current: Path) -> None:
    """A copy that was broken off: what seals it comes last."""
    watcher, seal = watched.watcher, current / "manifest.sha256"
    assert watcher is not None
    watcher.look()
    kept = seal.read_bytes()
    for number in (1, 2):
        seal.unlink()
        watcher.look()
        assert watcher.refused == number - 1  # it may be between two renames
        for _ in range(3):
            watcher.look()
        assert watcher.refused == number
        assert "half an artifact" in str(watcher.refusal)
        seal.write_bytes(kept)
        watcher.look()
        assert (watcher.refusal, watcher.swapped) == (None, 0)


def test_what_can_be_read_again_is_served(
    watched: Router, current: Path, kinds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights that were set right, a disk of the network that is back: no file looks changed."""
    watcher, shut, opened = watched.watcher, [current / "heads.npz"], Path.open
    assert watcher is not None

    def open_(path: Path, *args: Any, **options: Any) -> Any:
        if path in shut:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_)
    put(kinds[2], current)
    for _ in range(3):
        watcher.look()
    assert (watcher.swapped, watcher.refused) == (0, 1)
    assert "heads.npz cannot be read: Permission denied" in str(watcher.refusal)
    shut.clear()
    watcher.look()
    assert (watcher.swapped, watcher.refusal) == (1, None)
    assert watched.route("x").tier == "large"


def test_what_is_bad_is_read_once(
    watched: Router, current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transformer takes a second of processor time to load."""
    watcher, reads = watched.watcher, []
    assert watcher is not None

    def load(path: Path) -> Any:
        reads.append(path)
        return load_settled(path)

    monkeypatch.setattr("router.watch.load_settled", load)
    (current / "heads.npz").unlink()
    for _ in range(3):
        watcher.look()
    assert (watcher.refused, len(reads)) == (1, 1)


def test_a_folder_that_may_be_listed_again_ends_the_refusal(
    watched: Router, current: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watched.watcher
    assert watcher is not None
    for number in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr("router.watch.mark", lambda *_: None)
            patch.setattr(Path, "iterdir", lambda path: os.scandir("/proc/0"))
            for _ in range(3):
                watcher.look()
        assert watcher.refused == number
        watcher.look()
        assert watcher.refusal is None


def test_a_stopped_watcher_stays_stopped_after_a_fork(watched: Router) -> None:
    watched.close()
    assert watched.watcher is not None
    before = threading.active_count()
    watched.watcher.renew()
    assert threading.active_count() <= before


def test_a_folder_that_is_away_for_an_instant(
    watched: Router, current: Path, kinds: list[Path]
) -> None:
    assert watched.watcher is not None
    current.rename(current.with_name("away"))
    watched.watcher.look()
    assert watched.watcher.refused == 0
    assert watched.route("x").tier == "small"
    shutil.copytree(kinds[1], current)
    watched.watcher.look()
    assert watched.route("x").tier == "middle"
    threading.Timer(0.03, lambda: current.with_name("late").rename(current)).start()
    current.rename(current.with_name("late"))
    assert load_settled(current).policy.constant == 1


def test_a_folder_that_is_not_there_is_told_once(
    kinds: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name misspelt, or a volume that is gone, is no silence for ever."""
    place = tmp_path / "artifacts" / "curent"
    router = Router.load(kinds[0]).watch(place, seconds=3600)
    assert router.watcher is not None
    router.watcher.look()
    assert not caplog.records  # it may be between two renames
    for _ in range(3):
        router.watcher.look()
    words = f"suffice: {place}: there is no artifact; the one before stays"
    assert [record.getMessage() for record in caplog.records] == [words]
    shutil.copytree(kinds[2], place)
    router.watcher.look()
    assert (router.route("x").tier, router.watcher.refused) == ("large", 0)
    shutil.rmtree(place)
    for _ in range(3):
        router.watcher.look()
    assert len(caplog.records) == 2
    router.close()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5"])
def test_a_time_between_looks_that_is_none(seconds: Any, watched: Router) -> None:
    before = watched.watcher
    with pytest.raises(ValueError, match="watch: seconds must be a number above 0"):
        watched.watch(seconds=seconds)
    assert watched.watcher is before


def test_a_swap_in_the_middle_of_a_read(
    current: Path, kinds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from router import artifact

    read, swapped = artifact._read_checked, []

    def late(path: Path, name: str, stated: Any) -> bytes:
        if name == "heads.npz" and not swapped:
            swapped.append(1)
            make_artifact(current, replace(POLICY, why="another"), small=2)
        return read(path, name, stated)

    monkeypatch.setattr(artifact, "_read_checked", late)
    assert load_settled(current).policy.why == "another"


def test_rules_are_followed_too(
    current: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("[rules]\n")
    router = Router.load(current, rules=rules).watch(seconds=3600)
    assert router.watcher is not None
    router.watcher.look()
    rules.write_text('[rules.pin.tag]\na = "large"\n')
    router.watcher.look()
    assert router.route("x", tags=["a"]).reason == "rule:pin"
    rules.write_text('[rules.pin.tag]\na = "lrge"\n')
    router.watcher.look()
    assert router.watcher.refused == 1
    assert "did you mean 'large'" in str(router.watcher.refusal)
    assert "artifact was refused" not in caplog.text  # its rules were
    assert router.route("x", tags=["a"]).reason == "rule:pin"
    router.close()


def test_the_thread_looks_by_itself_and_ends_with_the_router(
    current: Path, kinds: list[Path]
) -> None:
    before = set(threading.enumerate())
    router = Router.load(current).watch(seconds=0.02)
    [thread] = set(threading.enumerate()) - before
    put(kinds[2], current)
    until = time.monotonic() + 20
    while router.route("x").tier != "large" and time.monotonic() < until:
        time.sleep(0.02)
    assert router.route("x").tier == "large"
    del router
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_watches_and_decides(current: Path, kinds: list[Path]) -> None:
    router = Router.load(current).watch(seconds=0.02)
    child = os.fork()
    if child == 0:
        until = time.monotonic() + 20
        while router.route("x").tier != "large" and time.monotonic() < until:
            time.sleep(0.02)
        os._exit(0 if router.route("x").tier == "large" else 1)
    put(kinds[2], current)
    _, status = os.waitpid(child, 0)
    router.close()
    assert status == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_without_threads_left_logs_by_itself(
    watched: Router, kinds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher that could not start left the log as the parent had it, without its thread."""
    go = threading.Event()
    parent, log = os.getpid(), DecisionLog(lambda _: go.wait(20 if os.getpid() == parent else 0))
    router = Router.load(kinds[0], log=log)
    router.route("x")
    monkeypatch.setattr("router.forks._THINGS", [watched.watcher, log])
    monkeypatch.setattr("router.watch.Thread", lambda **_: 1 / 0)  # whatever it raises
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a lock that the parent held would be waited for without end
        router.route("x")
        os._exit(0 if log.flush(10) and log.counts.written == 1 else 1)
    _, status = os.waitpid(child, 0)
    go.set()
    router.close()
    assert status == 0


def test_a_huge_seal_is_not_read_whole(kinds: list[Path], tmp_path: Path) -> None:
    """It is looked at before anything is checked, and every few seconds."""
    shutil.copytree(kinds[0], tmp_path / "huge")
    os.truncate(tmp_path / "huge" / "manifest.sha256", 2**28)  # takes no room on the disk
    tracemalloc.start()
    with pytest.raises(ArtifactError, match="larger than 200 bytes"):
        Router.load(tmp_path / "huge")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25


def test_no_decision_is_torn(kinds: list[Path], tmp_path: Path) -> None:
    """Tier and version of every decision are of one artifact, however often it is swapped."""
    artifacts = [load_settled(path) for path in kinds]
    belongs = {artifact.version: NAMES[k] for k, artifact in enumerate(artifacts)}
    router, stop = Router(artifacts[0]), threading.Event()
    wrong: list[Decision] = []

    def ask() -> None:
        while not stop.is_set():
            decision = router.route("x")
            if belongs[decision.router_version] != decision.tier:
                wrong.append(decision)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for i in range(300):
        router.swap(artifacts[i % 3])
        time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_service_that_changes_its_working_folder(
    kinds: list[Path], current: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Daemons do, after they have loaded: names are of the folder that they were given in."""
    (tmp_path / "rules.toml").write_text("[rules]\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUFFICE_OFF_FILE", "off")
    routers = [
        Router.load("current", rules="rules.toml").watch(seconds=3600),
        Router.load(kinds[1], rules="rules.toml").watch("current", seconds=3600),
        Router(load_artifact(Path("current")), rules="rules.toml"),
    ]
    monkeypatch.chdir(tmp_path / "elsewhere")
    routers[2].watch(seconds=3600)
    put(kinds[2], current)
    for router in routers:
        assert router.watcher is not None
        router.watcher.look()
        assert (router.route("x").tier, router.watcher.refusal) == ("large", None)
        router.close()
    (tmp_path / "off").touch()
    monkeypatch.setattr("router.switch._EVERY", 0.0)
    assert {router.route("x").reason for router in routers} == {"kill_switch"}


# Kill switch


def test_the_kill_switch_by_variable(kinds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router.load(kinds[0])
    assert router.route("x").tier == "small"
    for off in ("1", "true", "yes please"):
        monkeypatch.setenv("SUFFICE_OFF", off)
        assert (router.route("x").tier, router.route("x").reason) == ("large", "kill_switch")
    for on in ("", "0", "False", "no"):
        monkeypatch.setenv("SUFFICE_OFF", on)
        assert router.route("x").reason == "policy"


def test_the_kill_switch_by_file(
    kinds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("router.switch.monotonic", lambda: now[0])
    monkeypatch.setenv("SUFFICE_OFF_FILE", str(tmp_path / "off"))
    (tmp_path / "rules.toml").write_text('[rules.deny.tag]\na = ["large"]\n')
    router = Router.load(kinds[0], rules=tmp_path / "rules.toml")
    assert router.route("x").tier == "small"
    (tmp_path / "off").touch()
    now[0] += 1.1
    assert (router.route("x").tier, router.route("x").reason) == ("large", "kill_switch")
    assert router.route("x", tags=["a"]).tier == "middle"  # a denied tier stays denied
    (tmp_path / "off").unlink()
    now[0] += 1.1
    assert router.route("x").tier == "small"


def test_a_clock_that_jumps_back(kinds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router.load(kinds[0])
    first = router.route("x")
    monkeypatch.setattr("router.decision.time", lambda: first.at - 1e6)
    later = router.route("x")
    assert later.reason == "policy"
    assert later.latency_us > 0


# Shadow, observers, event loops


def test_a_shadow_is_only_logged(kinds: list[Path]) -> None:
    lines: list[dict[str, Any]] = []
    router = Router.load(kinds[0], log=lines.append, shadow=kinds[2])
    decision = router.route("hello")
    router.route(None)  # type: ignore[arg-type]
    router.close()
    assert decision.tier == "small"
    shadow = lines[0]["shadow"]
    assert (shadow["tier"], shadow["reason"]) == ("large", "policy")
    assert shadow["router_version"] == Router.load(kinds[2]).artifact.version
    assert shadow["p_suffices"] == decision.p_suffices
    assert "shadow" not in lines[1]
    with pytest.raises(ValueError, match="give a log"):
        Router.load(kinds[0], shadow=kinds[2])


def test_what_waits_for_a_shadow_holds_no_tools(kinds: list[Path]) -> None:
    """Of ten thousand waiting lines the tools alone would be gigabytes."""

    class Tools(list[Any]):
        """A list that says when it is gone."""

    stalled, tools = threading.Event(), Tools([{"type": "function"}])
    gone = weakref.ref(tools)
    log = DecisionLog(lambda _: stalled.wait(30))
    router = Router.load(kinds[0], log=log, shadow=kinds[2])
    for _ in range(3):
        router.route("hello", tools)
    del tools
    gc.collect()
    assert gone() is None
    stalled.set()
    router.close()
    assert log.counts.written == 3


def test_a_shadow_that_is_a_router_goes_its_own_way(
    kinds: list[Path], current: Path, tmp_path: Path
) -> None:
    (tmp_path / "rules.toml").write_text('[rules.pin.tag]\na = "middle"\n')
    shadow = Router.load(current, rules=tmp_path / "rules.toml").watch(seconds=3600)
    lines: list[dict[str, Any]] = []
    router = Router.load(kinds[1], log=lines.append, shadow=shadow)
    router.route("x")
    put(kinds[2], current)
    assert shadow.watcher is not None
    shadow.watcher.look()
    router.route("x")
    router.route("x", tags=["a"])
    router.close()
    shadow.close()
    assert {line["tier"] for line in lines} == {"middle"}
    told = [(line["shadow"]["tier"], line["shadow"]["reason"]) for line in lines]
    assert told == [("small", "policy"), ("large", "policy"), ("middle", "rule:pin")]


def test_a_shadow_follows_sessions_by_itself(kinds: list[Path], tmp_path: Path) -> None:
    """Its floor is what it chose itself, as it would be if it served; it sees all of a request."""
    file = tmp_path / "rules.toml"
    file.write_text('[rules.session]\nfloor = true\n[rules.pin.tag]\nhard = "large"\n')
    lines: list[dict[str, Any]] = []
    router = Router.load(kinds[0], log=lines.append, shadow=Router.load(kinds[1], rules=file))
    call = {"role": "assistant", "tool_calls": [{"function": {"arguments": "x" * 900_000}}]}
    router.route("prove it", session="a", tags=["hard"])
    router.route("yes, go on", session="a")
    router.route("yes, go on", session="b")
    router.route([{"role": "user", "content": "go"}, call], session="c", tags=["hard"])
    router.route("hello", json_mode=np.ones(2))  # type: ignore[arg-type]
    router.close()
    assert {line["tier"] for line in lines} == {"small"}
    told = [line["shadow"].get("reason", line["shadow"].get("error")) for line in lines]
    assert told == ["rule:pin", "rule:session_floor", "policy", "rule:context_window", "ValueError"]
    assert [line["shadow"].get("tier") for line in lines][:3] == ["large", "large", "middle"]


def test_an_observer_that_raises_is_passed_over(kinds: list[Path]) -> None:
    router, seen = Router.load(kinds[0]), list[Decision]()
    router.observe(lambda decision: 1 / 0)
    router.observe(seen.append)
    assert router.route("x").reason == "policy"
    assert router.route(None).reason == "fallback:TypeError"  # type: ignore[arg-type]
    assert [decision.reason for decision in seen] == ["policy", "fallback:TypeError"]


def test_an_observer_that_has_to_be_awaited_is_refused(kinds: list[Path]) -> None:
    async def later(_: Decision) -> None: ...

    with pytest.raises(TypeError, match="without async"):
        Router.load(kinds[0]).observe(later)


def test_an_event_loop(kinds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router.load(kinds[0])
    here, seen = threading.get_ident(), list[int]()
    router.observe(lambda _: seen.append(threading.get_ident()))

    async def ask() -> list[Decision]:
        return await asyncio.gather(*(router.aroute("x", session="s") for _ in range(5)))

    assert {decision.tier for decision in asyncio.run(ask())} == {"small"}
    assert set(seen) == {here}  # a table is not worth a thread
    monkeypatch.setattr("router.served.Served.quick", False)
    asyncio.run(ask())
    assert seen[-1] != here


def test_an_event_loop_that_is_ending(kinds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.served.Served.quick", False)
    router = Router.load(kinds[1])

    async def late() -> str:
        await asyncio.get_running_loop().shutdown_default_executor()
        return (await router.aroute("x")).tier

    assert asyncio.run(late()) == "middle"


def test_metrics(kinds: list[Path], current: Path) -> None:
    reader = InMemoryMetricReader()
    router = Router.load(current, log=lambda _: None).watch(seconds=3600)
    instrument(router, MeterProvider([reader]))
    assert router.watcher is not None
    router.watcher.look()
    put(kinds[2], current)
    router.watcher.look()
    router.watch(seconds=3600)  # elsewhere, say: counters never go down
    for _ in range(5):
        router.route("x")
    router.route(None)  # type: ignore[arg-type]
    router.close()
    data = reader.get_metrics_data()
    assert data is not None
    [scope] = data.resource_metrics[0].scope_metrics
    points = {metric.name: list(metric.data.data_points) for metric in scope.metrics}
    counted = {p.attributes["suffice.reason"]: p.value for p in points["suffice.decisions"]}
    assert counted == {"policy": 5, "fallback:TypeError": 1}
    [times] = points["suffice.route.duration"]
    assert times.count == 6
    assert 0 < times.sum < 60
    loads = {p.attributes["suffice.outcome"]: p.value for p in points["suffice.artifact.loads"]}
    assert loads == {"swapped": 1, "refused": 0}
    written = {p.attributes["suffice.outcome"]: p.value for p in points["suffice.log.lines"]}
    assert written == {"written": 6, "dropped": 0, "failed": 0}


# A registry


@pytest.fixture(scope="module")
def registered(kinds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose model `support` has the three artifacts as versions 1 to 3."""
    folder = tmp_path_factory.mktemp("registry")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'registry.db'}")
    client.create_registered_model("support")
    experiment = client.create_experiment("e", artifact_location=(folder / "runs").as_uri())
    for kind in kinds:
        run = client.create_run(experiment).info
        client.log_artifacts(run.run_id, str(kind), "artifact")
        client.create_model_version("support", f"{run.artifact_uri}/artifact", run.run_id)
    client.set_registered_model_alias("support", "champion", "1")
    return folder / "registry.db"


def registry_goes_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> Any:
        raise ConnectionError("the registry is down")

    monkeypatch.setattr(mlflow, "MlflowClient", down)


@pytest.fixture
def registry(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> mlflow.MlflowClient:
    """A copy of that store, and an empty cache."""
    monkeypatch.setenv("SUFFICE_CACHE", str(tmp_path / "cache"))
    shutil.copyfile(registered, tmp_path / "registry.db")
    store = f"sqlite:///{tmp_path / 'registry.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # undone afterwards: MLflow sets it itself
    mlflow.set_tracking_uri(store)
    return mlflow.MlflowClient()


def test_a_champion_is_served_through_an_outage(
    registry: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = Router.load("models:/support@champion").watch(seconds=3600)
    assert router.watcher is not None
    assert router.route("x").tier == "small"
    assert Router.load("models:/support/2").route("x").tier == "middle"
    registry.set_registered_model_alias("support", "champion", "3")
    router.watcher.look()
    assert router.route("x").tier == "large"

    registry_goes_down(monkeypatch)
    assert Router.load("models:/support@champion").route("x").tier == "large"
    assert Router.load("models:/support/2").route("x").tier == "middle"
    router.watcher.look()
    assert (router.route("x").tier, router.watcher.refused) == ("large", 0)
    with pytest.raises(ArtifactError, match=r"support@other: .*is down; there is no local copy"):
        Router.load("models:/support@other")
    router.close()


def test_registries_do_not_share_what_they_number_alike(
    registry: mlflow.MlflowClient,
    kinds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two registries, as of a staging and a production, or one that was made anew: one cache."""
    assert Router.load("models:/support@champion").route("x").tier == "small"
    first = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'other.db'}")
    other = mlflow.MlflowClient()
    other.create_registered_model("support")
    for number in ("1", "2"):
        other.create_model_version("support", kinds[2].as_uri())
        other.set_registered_model_alias("support", "champion", number)
        assert Router.load("models:/support@champion").route("x").tier == "large"

    registry_goes_down(monkeypatch)
    for version in ("1", "2"):  # each was the champion
        assert Router.load(f"models:/support/{version}").route("x").tier == "large"
    mlflow.set_tracking_uri(first)
    for way in ("@champion", "/1"):
        assert Router.load(f"models:/support{way}").route("x").tier == "small"
    with pytest.raises(ArtifactError, match="no local copy"):
        Router.load("models:/support/2")


def test_a_registry_that_nobody_named_is_told(
    registry: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="not found") as told:
        fetch("models:/nobodys@champion")
    assert "MLFLOW_TRACKING_URI" not in str(told.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ArtifactError, match=r"MLFLOW_TRACKING_URI is not set"):
        fetch("models:/nobodys@champion")


def test_what_a_registry_may_not_do(
    registry: mlflow.MlflowClient, kinds: list[Path], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "model.pkl").write_bytes(b"x")
    bad = Path(shutil.copytree(kinds[0], tmp_path / "bad"))
    (bad / "CARD.md").write_text("changed")
    for source, words in ((empty, "holds no artifact"), (bad, "CARD.md")):
        registry.create_model_version("support", source.as_uri())
        newest = max(int(v.version) for v in registry.search_model_versions("name='support'"))
        with pytest.raises(ArtifactError, match=words):
            Router.load(f"models:/support/{newest}")
    registry.set_registered_model_alias("support", "champion", "1")
    router = Router.load("models:/support@champion").watch(seconds=3600)
    assert router.watcher is not None
    router.watcher.look()
    registry.set_registered_model_alias("support", "champion", newest)
    for _ in range(3):
        router.watcher.look()
    assert (router.route("x").tier, router.watcher.refused) == ("small", 1)
    registry.set_registered_model_alias("support", "champion", "1")  # taken back
    router.watcher.look()
    assert (router.watcher.swapped, router.watcher.refusal) == (0, None)
    registry.set_registered_model_alias("support", "champion", newest)
    router.watcher.look()
    assert router.watcher.refused == 2
    router.close()
    for uri in ("models:/support", "models:/a/b/c", "models:/../x@y/z", "models:/x@"):
        with pytest.raises(ArtifactError, match="expected models:/NAME@ALIAS"):
            fetch(uri)
    odd = "a b%2e.é"
    registry.create_registered_model(odd)
    registry.create_model_version(odd, kinds[1].as_uri())
    assert fetch(f"models:/{odd}/1").resolve().parents[1] == (tmp_path / "cache").resolve()


def test_what_a_retraining_job_registers_is_served(
    registry: mlflow.MlflowClient, kinds: list[Path]
) -> None:
    ours, name = Registry(mlflow, "suffice"), Router.load(kinds[1]).artifact.version
    experiment = registry.get_experiment_by_name("e")
    assert experiment is not None
    with mlflow.start_run(experiment_id=experiment.experiment_id):
        ours.promote(ours.register(kinds[1], name, {}, "made by a test"))
    served = Router.load("models:/suffice@champion")
    assert (served.artifact.version, served.route("x").tier) == (name, "middle")


def test_a_damaged_copy_is_fetched_anew(registry: mlflow.MlflowClient, tmp_path: Path) -> None:
    copy = fetch("models:/support/2")
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    (copy / "heads.npz").write_bytes(b"x")
    assert Router.load("models:/support/2").route("x").tier == "middle"
    shutil.rmtree(copy / "embedder")
    assert Router.load("models:/support/2").route("x").tier == "middle"


def test_a_cache_that_cannot_be_written(
    registry: mlflow.MlflowClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Copies made at the build of an image, on a disk that is mounted to be read or is full."""
    copies = [fetch(f"models:/support{way}") for way in ("/2", "@champion")]

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert [fetch(f"models:/support{way}") for way in ("/2", "@champion")] == copies
    assert not caplog.records
    registry.set_registered_model_alias("support", "champion", "2")
    assert fetch("models:/support@champion") == copies[0]
    assert "its copy cannot be noted, nor found in an outage: " in caplog.text


def test_another_process_fetched_the_same(
    registry: mlflow.MlflowClient, kinds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if target.name.startswith("v2-"):
            shutil.copytree(kinds[1], target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    assert Router.load("models:/support/2").route("x").tier == "middle"


def test_containers_that_share_a_cache_point_at_once(
    registry: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two processes may have one number, as threads do: neither takes the file of the other."""
    fetch("models:/support/2")
    registry.set_registered_model_alias("support", "champion", "2")
    replace, others = Path.replace, [1]

    def late(self: Path, target: Path) -> Path:
        if others and target.name.startswith("at-champion"):
            others.pop()
            fetch("models:/support@champion")  # as another container, at the same time
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    fetch("models:/support@champion")
    assert not others and not caplog.records


def test_a_champions_copy_outlasts_those_of_other_versions(
    registry: mlflow.MlflowClient,
    kinds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service that does not watch uses its copy at its start alone, so that others are newer."""
    assert Router.load("models:/support@champion").route("x").tier == "small"
    for _ in range(2):
        registry.create_model_version("support", kinds[1].as_uri())
    for number in range(2, 6):
        fetch(f"models:/support/{number}")

    registry_goes_down(monkeypatch)
    assert Router.load("models:/support@champion").route("x").tier == "small"
    assert len(list((tmp_path / "cache" / "support").glob("v*"))) == 4


def test_copies_are_few(registry: mlflow.MlflowClient, kinds: list[Path], tmp_path: Path) -> None:
    for _ in range(3):
        registry.create_model_version("support", kinds[0].as_uri())
    for number in range(1, 7):
        assert fetch(f"models:/support/{number}").is_dir()
    assert len(list((tmp_path / "cache" / "support").glob("v*"))) == 3
    assert json.loads((fetch("models:/support/6") / "manifest.json").read_text())["protocol"] == 1
