"""The decision log never stands in a request's way, and its counts add up."""

import errno
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Decision, DecisionLog, Exploration, Router
from router.artifact import Artifact
from router.lines import LineFile
from router.log import LogCounts
from router.request import Request
from training.log.ingest import ingest
from training.log.traffic import read_traffic

PLAIN = Request()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def adds_up(log: DecisionLog) -> bool:
    counts = log.counts
    parts = counts.written + counts.dropped + counts.failed + counts.waiting
    return counts.offered == parts


def test_a_line_says_what_the_decision_says(artifact: Artifact, tmp_path: Path) -> None:
    router = Router(artifact, b"key", log=tmp_path / "d.jsonl")
    made = [router.route("hello"), router.route(None), router.route("solve 2")]  # type: ignore[arg-type]
    assert router.log is not None
    assert router.log.flush()
    for line, decision in zip(lines(tmp_path / "d.jsonl"), made, strict=True):
        assert line.pop("decision_id") == decision.id
        assert line.pop("suffice")
        assert line == {name: getattr(decision, name) for name in line}
        assert {"tier", "p_suffices", "propensity", "reason", "at", "prompt_hash"} <= set(line)
        assert "messages" not in line
    assert (tmp_path / "d.jsonl").stat().st_mode & 0o077 == 0
    assert adds_up(router.log)


def test_messages_are_logged_as_they_were(artifact: Artifact, tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "d.jsonl", messages=True)
    router = Router(artifact, log=log)
    messages = [{"role": "user", "content": "hello \ud800"}]
    router.route(messages, session="s", tags="t")
    messages.append({"role": "assistant", "content": "later"})
    ring: list[Any] = []
    ring.append(ring)
    router.route(ring, session="r", tags=["t"])
    router.route("x" * 2_000_000)
    router.route("hi", session=UUID(int=7), tenant=7, tags=[7])  # type: ignore[arg-type, list-item]
    assert log.flush()
    first, second, third, fourth = lines(tmp_path / "d.jsonl")
    assert json.loads(first["messages"]) == messages[:1]
    assert (first["session_id"], first["tags"]) == ("s", ["t"])
    assert (second["messages"], third["messages"]) == (None, None)
    assert (second["session_id"], second["tags"]) == ("r", ["t"])
    assert (fourth["session_id"], fourth["tenant"]) == (str(UUID(int=7)), "7")
    assert fourth["tags"] == ["7"]


def test_a_sink_that_stalls_drops_and_counts(artifact: Artifact) -> None:
    go, taken = threading.Event(), []

    def sink(line: dict[str, Any]) -> None:
        go.wait(30)
        taken.append(line["decision_id"])

    log = DecisionLog(sink, capacity=20)
    router = Router(artifact, log=log)
    made = [router.route("hello") for _ in range(100)]
    assert max(decision.latency_us for decision in made) < 1e6
    counts = log.counts
    assert (counts.offered, counts.written, counts.failed) == (100, 0, 0)
    assert counts.waiting in (20, 21)  # one may be with the sink
    assert counts.dropped == 100 - counts.waiting
    assert not log.flush(0.01)
    go.set()
    assert log.flush()
    assert log.counts.written == len(taken) == counts.waiting
    assert adds_up(log)


def test_a_sink_that_raises_is_counted(
    artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    def sink(_: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    router = Router(artifact, log=sink)
    assert {router.route("hello").reason for _ in range(10)} == {"policy"}
    assert router.log is not None
    assert router.log.flush()
    assert router.log.counts.failed == 10
    told = [r for r in caplog.records if "No space left" in r.getMessage()]
    assert len(told) == 1  # once a minute, not once a line


def test_a_sink_that_ends_its_thread_ends_nothing(artifact: Artifact) -> None:
    def sink(_: dict[str, Any]) -> None:
        raise SystemExit

    router = Router(artifact, log=sink)
    for _ in range(5):
        router.route("hello")
    assert router.log is not None and router.log.flush()
    assert router.log.counts == LogCounts(5, 0, 0, 5, 0)


class Away(logging.Handler):
    """A handler whose collector cannot be reached; unlike the standard ones, it says so."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the collector is away")


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [OSError("full"), Wordless()], ids=["handler", "error"])
def test_a_failure_that_cannot_be_told_ends_nothing(error: Exception, artifact: Artifact) -> None:
    def sink(_: dict[str, Any]) -> None:
        raise error

    logger, handler = logging.getLogger("suffice"), Away()
    logger.addHandler(handler)
    try:
        router = Router(artifact, log=sink)
        for _ in range(3):
            router.route("hello")
        assert router.log is not None and router.log.flush(5)
    finally:
        logger.removeHandler(handler)
    assert router.log.counts == LogCounts(3, 0, 0, 3, 0)


def test_a_sink_that_has_to_be_awaited_is_refused(artifact: Artifact) -> None:
    async def sink(_: dict[str, Any]) -> None: ...

    with pytest.raises(TypeError, match="without async"):
        Router(artifact, log=sink)


def test_a_sink_that_turns_out_to_be_awaited_has_written_nothing(artifact: Artifact) -> None:
    taken: list[Any] = []

    async def keep(line: Any) -> None:
        taken.append(line)

    router = Router(artifact, log=lambda line: keep(line))
    router.route("hello")
    assert router.log is not None and router.log.flush()
    assert (router.log.counts.written, router.log.counts.failed, taken) == (0, 1, [])


def test_images_are_logged_by_kind_and_size(artifact: Artifact, tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 3_000_000}}
    content = [{"type": "text", "text": "What is this?"}, image]
    log = DecisionLog(tmp_path / "d.jsonl", messages=True)
    Router(artifact, log=log).route([{"role": "user", "content": content}])
    assert log.flush()
    [line] = lines(tmp_path / "d.jsonl")
    [message] = json.loads(line["messages"])
    url = {"url": "data:image/png;base64", "url_characters": 3_000_022}
    assert message["content"] == [content[0], {"type": "image_url", "image_url": url}]
    assert image["image_url"]["url"].endswith("A")  # the caller's own are as they were


@pytest.mark.parametrize("long", ["prompt", "session", "tenant", "tags"])
@pytest.mark.parametrize("shadowed", [False, True])  # a shadow is told of the session, too
def test_what_waits_is_bounded(
    shadowed: bool, long: str, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.log.MAX_WAITING", 10_000)
    go, taken = threading.Event(), []

    def sink(line: dict[str, Any]) -> None:
        go.wait(30)
        taken.append(line)

    words = "word " * 400
    asked = {"prompt": "hello"} | {long: words}
    log = DecisionLog(sink, messages=not shadowed or long == "prompt")
    router = Router(artifact, log=log, shadow=Router(artifact) if shadowed else None)
    for _ in range(20):
        router.route(**asked)  # type: ignore[arg-type]
    counts = log.counts
    assert counts.dropped >= 14 and counts.waiting >= 4 and adds_up(log)
    go.set()
    assert log.flush()
    router.route(**asked)  # type: ignore[arg-type]
    assert log.flush() and log.counts.dropped == counts.dropped


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk(artifact: Artifact) -> None:
    router = Router(artifact, log="/dev/full")
    assert router.route("hello").reason == "policy"
    assert router.log is not None
    assert router.log.flush()
    assert router.log.counts.failed == 1


def test_a_line_that_was_cut_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write = LineFile(tmp_path / "d.jsonl"), os.write
    monkeypatch.setattr("router.lines.os.write", lambda fd, text: write(fd, text[:5]))
    with pytest.raises(OSError, match="cut"):
        file.write({"a": 1, "b": 2})
    monkeypatch.setattr("router.lines.os.write", write)
    file.write({"c": 3})
    file.write({"d": 4})
    file.close()
    assert (tmp_path / "d.jsonl").read_text().splitlines() == ['{"a":', '{"c": 3}', '{"d": 4}']


def test_a_line_that_another_process_cut_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is started anew when there is room again; or a sibling finds the disk full."""
    path, write = tmp_path / "d.jsonl", os.write

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    sibling = LineFile(path)
    sibling.write({"a": 0})
    monkeypatch.setattr("router.lines.os.write", lambda fd, text: write(fd, text[:5]))
    with pytest.raises(OSError, match="cut"):
        LineFile(path).write({"a": 1})
    monkeypatch.setattr("router.lines.os.write", full)
    with pytest.raises(OSError, match="No space"):
        sibling.write({"b": 1})
    monkeypatch.setattr("router.lines.os.write", write)
    sibling.write({"b": 2})
    with path.open("a") as stream:
        stream.write('{"a":')  # as a machine that lost its power leaves it
    LineFile(path).write({"c": 3})
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert whole == ['{"a": 0}', '{"b": 2}', '{"c": 3}']


def test_a_link_goes_on_leading_to_the_log(tmp_path: Path) -> None:
    volume = tmp_path / "volume.jsonl"
    (tmp_path / "d.jsonl").symlink_to(volume)
    file = LineFile(tmp_path / "d.jsonl", max_bytes=100, keep=2)
    for i in range(100):
        file.write({"i": i})
    assert [line["i"] for line in lines(volume)] == list(range(100))
    assert (tmp_path / "d.jsonl").is_symlink()


def test_files_rotate_and_the_oldest_go(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "d.jsonl", max_bytes=1000, keep=3)
    for i in range(500):
        file.write({"i": i})
    file.close()
    rotated = sorted(tmp_path.glob("d.*.jsonl"))
    assert len(rotated) == 3
    numbers = [line["i"] for path in (*rotated, tmp_path / "d.jsonl") for line in lines(path)]
    assert numbers == list(range(numbers[0], 500))
    assert all(path.stat().st_size < 1100 for path in tmp_path.iterdir())


def test_a_neighbours_rotated_files_stay(tmp_path: Path) -> None:
    for name in ("d.eu.jsonl", "d.jsonl"):
        file = LineFile(tmp_path / name, max_bytes=100, keep=2)
        for i in range(100):
            file.write({"i": i})
        file.close()
    assert len(list(tmp_path.glob("d.eu.2*.jsonl"))) == 2


def test_a_file_that_cannot_be_renamed_grows_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, tried = LineFile(tmp_path / "d.jsonl", max_bytes=100, keep=2), []

    def refuse(*_: object) -> None:
        tried.append(1)
        raise PermissionError("the folder is another's")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        for i in range(100):
            file.write({"i": i})
    assert [line["i"] for line in lines(tmp_path / "d.jsonl")] == list(range(100))
    assert 2 <= len(tried) <= 5  # at each doubling, not at each line
    for i in range(200):
        file.write({"i": i})
    assert (tmp_path / "d.jsonl").stat().st_size < 200


def test_two_writers_rotate_one_file_without_loss(tmp_path: Path) -> None:
    """As processes do, also those of two containers that have one number; no name comes twice.

    A file that was renamed under a writer is opened anew.
    """
    with ThreadPoolExecutor(4) as pool:

        def fill(who: int) -> None:
            file = LineFile(tmp_path / "d.jsonl", max_bytes=2000, keep=1000)
            for i in range(200):
                file.write({"who": who, "i": i})
            file.close()

        list(pool.map(fill, range(4)))
    found = Counter((line["who"], line["i"]) for path in tmp_path.iterdir() for line in lines(path))
    assert len(found) == 800
    assert set(found.values()) == {1}


def test_a_process_forked_while_the_file_is_closed_closes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be another file's by the time that the child writes its first line."""
    file, close, held = LineFile(tmp_path / "log.jsonl", max_bytes=1), os.close, []

    def forking(number: int) -> None:
        close(number)  # without the interpreter's lock: here another thread may fork
        held.append(file._file)

    file.write({"n": 1})
    monkeypatch.setattr(os, "close", forking)
    file.write({"n": 2})
    assert held == [None]


def test_a_log_that_someone_removed_is_begun_anew(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "deep" / "d.jsonl")
    file.write({"a": 1})
    (tmp_path / "deep" / "d.jsonl").unlink()
    file.write({"b": 2})
    assert lines(tmp_path / "deep" / "d.jsonl") == [{"b": 2}]


def test_what_waits_is_written_at_exit(artifact: Artifact, tmp_path: Path) -> None:
    program = (
        "import sys, time; from router import Router, DecisionLog\n"
        "from router.lines import LineFile; from pathlib import Path\n"
        "file = LineFile(Path(sys.argv[2]))\n"
        "def slow(line): time.sleep(0.002); file.write(line)\n"
        "router = Router.load(sys.argv[1], log=slow)\n"
        "for i in range(200): router.route('hello')\n"
    )
    command = [sys.executable, "-c", program, str(artifact.path), str(tmp_path / "d.jsonl")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1], timeout=60)
    assert len(lines(tmp_path / "d.jsonl")) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_multiprocessing_writes_what_waits(artifact: Artifact, tmp_path: Path) -> None:
    router = Router(artifact, log=tmp_path / "d.jsonl")
    router.route("hello")

    def work() -> None:
        for _ in range(50):
            router.route("hello")

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    router.close()
    assert child.exitcode == 0
    assert len(lines(tmp_path / "d.jsonl")) == 51


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_logs_its_own_decisions(artifact: Artifact, tmp_path: Path) -> None:
    go = threading.Event()
    file = LineFile(tmp_path / "d.jsonl")
    where = os.getpid()

    def sink(line: dict[str, Any]) -> None:
        if os.getpid() == where:
            go.wait(30)  # the parent's queue is full when the fork comes
        file.write({"pid": os.getpid(), "id": line["decision_id"]})

    router = Router(artifact, log=sink)
    for _ in range(5):
        router.route("hello")
    child = os.fork()
    if child == 0:
        assert router.log is not None
        router.route("hello")
        done = router.log.flush(20) and router.log.counts.written == 1
        os._exit(0 if done else 1)
    _, status = os.waitpid(child, 0)
    go.set()
    assert status == 0
    assert router.log is not None
    assert router.log.flush()
    assert Counter(line["pid"] == where for line in lines(tmp_path / "d.jsonl")) == {
        True: 5,
        False: 1,
    }


def test_a_signal_while_the_thread_starts_starts_no_second(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would write at once, and `flush` would wait for one of them only."""
    router = Router(artifact, log=lambda _: None)
    started: list[threading.Thread] = []

    class Interrupted(threading.Thread):
        def start(self) -> None:
            started.append(self)
            if len(started) < 3:
                router.route("asked by a signal's handler")
            super().start()

    monkeypatch.setattr("router.log.Thread", Interrupted)
    router.route("hello")
    assert router.log is not None and router.log.flush()
    assert (len(started), router.log.counts) == (1, LogCounts(2, 2, 0, 0, 0))


def test_threads_and_counts(artifact: Artifact) -> None:
    def sink(line: dict[str, Any]) -> None:
        time.sleep(0.0005)
        if line["decision_id"].endswith("0"):
            raise ValueError

    log = DecisionLog(sink, capacity=50)
    router = Router(artifact, log=log)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: router.route(f"what is {i}"), range(600)))
    assert log.flush(30)
    assert log.counts.offered == len({decision.id for decision in made}) == 600
    assert adds_up(log)
    assert log.counts.waiting == 0


# Exploration


def explored(router: Router, n: int, **facts: Any) -> list[Decision]:
    return [router.route("hello", **facts) for _ in range(n)]


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.4])
def test_only_dearer_tiers_are_tried(rate: float, artifact: Artifact) -> None:
    chosen = Router(artifact).route("hello")
    names = [tier.name for tier in artifact.predictor.tiers]
    above = names[names.index(chosen.tier) + 1 :]
    assert above, "the prompt must not be the top tier's"
    made = explored(Router(artifact, explore=rate), 2000)
    seen = Counter(decision.tier for decision in made)
    assert set(seen) <= {chosen.tier, *above}
    for decision in made:
        if decision.tier == chosen.tier:
            assert (decision.reason, decision.propensity) == ("policy", 1 - rate)
        else:
            assert decision.reason == "explore"
            assert decision.propensity == rate / len(above)
    share = 1 - seen[chosen.tier] / 2000
    assert abs(share - rate) <= 5 * (rate * (1 - rate) / 2000) ** 0.5


def test_exploration_never_goes_against_a_rule(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(
        '[rules.deny.tag]\na = ["large"]\nb = ["middle", "large"]\n[rules.pin.tag]\np = "small"\n'
    )
    router = Router(artifact, rules=tmp_path / "rules.toml", explore=Exploration(0.9, down=True))
    assert {d.tier for d in explored(router, 200, tags=["a"])} == {"small", "middle"}
    for tag in ("b", "p"):
        made = explored(router, 50, tags=[tag])
        assert {(d.tier, d.propensity) for d in made} == {("small", 1.0)}
    fallen = [router.route(None) for _ in range(50)]  # type: ignore[arg-type]
    assert {d.propensity for d in fallen} == {1.0}


@given(
    rate=st.floats(0.0, 1.0, exclude_max=True),
    down=st.booleans(),
    allowed=st.sets(st.integers(0, 5), min_size=1).map(sorted),
    data=st.data(),
)
def test_propensities_are_the_shares_of_draws(
    rate: float, down: bool, allowed: list[int], data: st.DataObject
) -> None:
    """Over draws that are evenly apart each tier is served as often as its propensity says."""
    chosen = data.draw(st.sampled_from(allowed))
    draws = [(i + 0.5) / 2000 for i in range(2000)]
    ends = [0.0, float(np.nextafter(rate, 0.0)), rate, float(np.nextafter(1.0, 0.0))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("router.explore._DRAW", iter([*draws, *ends]).__next__)
        made = [Exploration(rate, down).try_another(chosen, allowed) for _ in (*draws, *ends)]
    stated = dict(made)
    assert len(set(made)) == len(stated)  # of each tier one propensity
    assert set(stated) <= {tier for tier in allowed if down or tier >= chosen}
    served = Counter(tier for tier, _ in made[: len(draws)])
    for tier, propensity in stated.items():
        assert abs(served[tier] - 2000 * propensity) <= 1.5
    if len(stated) == len(allowed):
        assert sum(stated.values()) == pytest.approx(1.0)


def test_inverse_propensities_are_unbiased(artifact: Artifact) -> None:
    """The values of two policies, from the log of a third, against what they truly are."""
    prompts = [f"what is {i} {'please solve ' * (i % 5)}" for i in range(40)]
    plain, router = Router(artifact), Router(artifact, explore=Exploration(0.3, down=True))
    names = [tier.name for tier in artifact.predictor.tiers]
    worth = {
        (p, n): ((i * 7 + k * 3) % 10) / 10
        for i, p in enumerate(prompts)
        for k, n in enumerate(names)
    }
    wanted = {"policy": [plain.route(p).tier for p in prompts], "top": ["large"] * len(prompts)}
    found: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in range(100):
        for place, prompt in enumerate(prompts):
            decision = router.route(prompt)
            for name, tiers in wanted.items():
                hit = decision.tier == tiers[place]
                found[name].append(hit * worth[prompt, decision.tier] / decision.propensity)
    for name, tiers in wanted.items():
        truth = np.mean([worth[p, t] for p, t in zip(prompts, tiers, strict=True)])
        draws = np.array(found[name])
        assert abs(draws.mean() - truth) <= 5 * draws.std() / len(draws) ** 0.5, name


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan"), True, "0.05", None, np.float32(0.05)])
def test_a_rate_that_is_none(rate: Any, artifact: Artifact) -> None:
    with pytest.raises(ValueError, match="share in"):
        Router(artifact, explore=rate)


# Back into training


@pytest.fixture
def served(artifact: Artifact, tmp_path: Path) -> Iterator[tuple[Path, list[Decision]]]:
    """A service's two files, and what it decided."""
    router = Router(artifact, explore=0.2, log=tmp_path / "decisions.jsonl")
    made = [router.route(f"what is {i}?") for i in range(30)]
    assert router.log is not None
    assert router.log.flush()
    with (tmp_path / "outcomes.jsonl").open("w") as file:
        for i, decision in enumerate(made[:25]):
            said = {"messages": [{"role": "user", "content": f"what is {i}?"}]}
            usage = {"prompt_tokens": 9, "completion_tokens": 3}
            reply = {"choices": [{"message": {"content": str(i)}}], "usage": usage}
            print(json.dumps({"decision_id": decision.id, **said, "response": reply}), file=file)
            print(json.dumps({"decision_id": decision.id, "score": i % 2}), file=file)
        print(json.dumps({"decision_id": "nobody's", "score": 1}), file=file)
    yield tmp_path, made


def test_decisions_are_joined_with_outcomes(served: tuple[Path, list[Decision]]) -> None:
    folder, made = served
    files = [folder / "decisions.jsonl", folder / "outcomes.jsonl"]
    report = ingest(files, folder / "t.parquet")
    assert {part.format for part in report.files} == {"suffice"}
    assert (report.total["ingested"], report.total["skipped"]) == (25, 6)
    frame = read_traffic(folder / "t.parquet").frame.set_index("request_id")
    for i, decision in enumerate(made[:25]):
        row = frame.loc[decision.id]
        assert (row["tier"], row["model"]) == (decision.tier, decision.model)
        assert row["propensity"] == decision.propensity
        assert (row["score"], row["response"], row["output_tokens"]) == (i % 2, str(i), 3)
        assert abs(row["at"].timestamp() - decision.at) < 1e-3


def test_a_decision_on_no_messages_is_skipped(artifact: Artifact, tmp_path: Path) -> None:
    """The router takes them, and nothing can be learned; in a small log one is more than 1 %."""
    log = DecisionLog(tmp_path / "decisions.jsonl", messages=True)
    made = [Router(artifact, log=log).route(asked) for asked in ("hi", [], [])]
    assert log.flush()
    with (tmp_path / "outcomes.jsonl").open("w") as file:
        print(json.dumps({"decision_id": made[1].id, "messages": []}), file=file)
    report = ingest([tmp_path], tmp_path / "t.parquet")
    assert (report.total["ingested"], report.total["skipped"]) == (1, 2)
    assert "2 rows skipped: an empty list of messages" in report.notes


def test_an_outcome_may_be_of_another_tier(artifact: Artifact, tmp_path: Path) -> None:
    """The provider of the tier that was chosen failed, and the service asked another one."""
    log = DecisionLog(tmp_path / "decisions.jsonl", messages=True)
    router = Router(artifact, log=log)
    made = [router.route(f"what is {i}?") for i in range(3)]
    assert log.flush() and {decision.tier for decision in made} != {"large"}
    with (tmp_path / "outcomes.jsonl").open("w") as file:
        for decision, more in zip(
            made,
            ({"tier": "large", "model": "openai/huge-1"}, {"tier": made[1].tier}, {}),
            strict=True,
        ):
            print(json.dumps({"decision_id": decision.id, **more, "response": "a"}), file=file)
            print(json.dumps({"decision_id": decision.id, "score": 1}), file=file)
    ingest([tmp_path], tmp_path / "t.parquet", keep_ids=True)
    frame = pd.read_parquet(tmp_path / "t.parquet").set_index("request_id")
    fell = frame.loc[made[0].id]
    assert (fell["tier"], fell["model"], fell["score"]) == ("large", "huge-1", 1.0)
    assert pd.isna(fell["propensity"])
    for decision in made[1:]:
        row = frame.loc[decision.id]
        assert (row["tier"], row["propensity"]) == (decision.tier, decision.propensity)


def test_outcomes_of_the_responses_api(artifact: Artifact, tmp_path: Path) -> None:
    """Our client routes its calls, too; their answers and tokens were lost."""
    log = DecisionLog(tmp_path / "decisions.jsonl", messages=True)
    router = Router(artifact, log=log)
    text = {"type": "output_text", "text": "Paris.", "annotations": []}
    refused = {"type": "refusal", "refusal": "No."}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    outputs = [
        [{"type": "reasoning", "summary": []}, {"type": "message", "content": [text]}],
        [{"type": "message", "content": [refused]}],
        [call],
    ]
    made = [router.route(f"what is {i}?") for i in range(3)]
    assert log.flush()
    usage = {"input_tokens": 9, "output_tokens": 7, "total_tokens": 16}
    usage["output_tokens_details"] = {"reasoning_tokens": 5}  # type: ignore[assignment]
    whole = {"object": "response", "status": "completed", "usage": usage}
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    with (tmp_path / "outcomes.jsonl").open("w") as file:
        for decision, output, more in zip(made, outputs, (cut, {}, {}), strict=True):
            outcome = {"decision_id": decision.id, "response": {**whole, **more, "output": output}}
            print(json.dumps(outcome), file=file)
    ingest([tmp_path], tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet").set_index("request_id")
    rows = frame.loc[[decision.id for decision in made]]
    assert rows["response"].tolist() == ["Paris.", "No.", json.dumps([call])]
    assert rows["finish_reason"].tolist() == ["max_output_tokens", "completed", "completed"]
    assert rows["input_tokens"].tolist() == [9] * 3
    assert rows["output_tokens"].tolist() == [7] * 3


def test_outcomes_from_a_warehouse(artifact: Artifact, tmp_path: Path) -> None:
    """A time or a decimal in a Parquet file ended ingest with a traceback."""
    log = DecisionLog(tmp_path / "decisions.jsonl", messages=True)
    decision = Router(artifact, log=log).route("hello")
    assert log.flush()
    told = {"decision_id": decision.id, "score": 1.0, "cost_usd": Decimal("0.25")}
    pd.DataFrame([{**told, "answered_at": pd.Timestamp.now("UTC")}]).to_parquet(
        tmp_path / "outcomes.parquet"
    )
    ingest([tmp_path], tmp_path / "t.parquet")
    [row] = pd.read_parquet(tmp_path / "t.parquet").to_dict("records")
    assert (row["score"], row["cost_usd"]) == (1.0, 0.25)


def test_logged_messages_need_no_second_file(artifact: Artifact, tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "decisions.jsonl", messages=True)
    decision = Router(artifact, log=log).route("hello", session="s")
    assert log.flush()
    assert ingest([tmp_path], tmp_path / "t.parquet", keep_ids=True).total["ingested"] == 1
    [row] = pd.read_parquet(tmp_path / "t.parquet").to_dict("records")
    assert (row["request_id"], row["session_id"]) == (decision.id, "s")
    assert json.loads(row["messages"]) == [{"role": "user", "content": "hello"}]
