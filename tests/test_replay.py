"""Replay against a stub upstream on loopback: answers, money, failures, kills, exit codes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.stub_upstream import stub
from tests.traffic_makers import TIERS, call, make_rows, write_inputs, write_log, write_tiers
from training.ask import asking
from training.ask.journal import Journal
from training.ask.plan import make_plan
from training.ask.run import journal_path
from training.ask.sampling import Sampling
from training.log.traffic import read_traffic

ROOT = Path(__file__).parents[1]
LONGEST = 4096


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def small_only(n, seed=0):
    """A one-sided log: the small tier answered n requests."""
    return [row for row in make_rows(n, seed) if row["tier"] == "small"]


def arguments(folder, url, *more, budget=10.0):
    files = ["--tiers", folder / "tiers.toml", "--out", folder / "new.parquet"]
    where = ["--base-url", url] if url else []
    return ["replay", folder / "log.parquet", *files, "--budget", budget, *where, *more]


@pytest.mark.parametrize(("strategy", "told"), [("stratified", True), ("random", False)])
def test_a_sample_that_is_not_like_the_traffic_is_told(workdir, capsys, strategy, told):
    rows = small_only(60)
    for row in rows[:10]:
        row["source"] = "rare"  # and so taken more often
    write_inputs(workdir, rows)
    asked = ("--sample", 20, "--strategy", strategy, "--dry-run")
    said = "is not like the traffic"
    assert (said in call(capsys, *arguments(workdir, None, *asked)).out) == told
    notes = json.loads(call(capsys, *arguments(workdir, None, *asked, "--json")).out)["notes"]
    assert any(said in note for note in notes) == told


def test_asking_all_that_a_sample_left_makes_it_no_sample(workdir, capsys):
    rows = small_only(60)
    for row in rows[:10]:
        row["source"] = "rare"
    write_inputs(workdir, rows)
    with stub() as upstream:
        for more in (("--sample", 20, "--strategy", "stratified"), ()):
            done = call(capsys, *arguments(workdir, upstream.url, *more))
            assert done.code == 0, done.err
            chance = read_traffic(workdir / "new.parquet").frame["sample_probability"]
            assert chance.nunique() == (2 if more else 1)
    assert len(chance) == 60 and (chance == 1).all()


def test_every_missing_answer_is_asked_for_once_and_the_log_is_paired_then(workdir, capsys):
    rows = small_only(60)
    rows[3] |= {"tags": ["eu"], "reference": "42"}
    write_inputs(workdir, rows)
    with stub(errors=0.05) as upstream:
        done = call(capsys, *arguments(workdir, upstream.url, "--timeout", 0.5, "--json"))
        counts = upstream.counts()
    assert done.code == 0, done.err
    run = json.loads(done.out)["run"]
    assert (run["answered"], run["failed"], run["left"]) == (60, 0, 0)
    assert run["again"] == sum(counts["faults"].values())
    assert set(counts["answered"].values()) == {1}
    assert len(counts["answered"]) == 60
    assert all(len(set(keys)) == 1 and keys[0] for keys in counts["keys"].values())
    assert counts["last"]["body"]["model"] == "vendor/large-1"
    frame = read_traffic(workdir / "new.parquet").frame.set_index("request_id")
    assert len(frame) == 60
    assert set(frame["tier"]) == {"large"}
    assert frame["response"].str.startswith("answer to ").all()
    assert frame["cost_usd"].sum() == pytest.approx(run["usd"])
    assert frame["cost_usd"].iloc[0] == pytest.approx((12 * 5 + 30 * 15) / 1e6)
    assert frame.loc["r3", "tags"] == ["eu", "replay"]
    assert frame.loc["r3", "reference"] == "42"
    assert frame.loc["r3", "at"] == pd.Timestamp("2026-03-01T00:03:00Z")
    assert frame["score"].isna().all()
    merged = call(capsys, "ingest", "log.parquet", "new.parquet", "--out", "all.parquet")
    assert merged.code == 0, merged.err
    both = read_traffic(workdir / "all.parquet").frame
    assert (both.groupby("request_id")["tier"].nunique() == 2).all()
    assert call(capsys, *arguments(workdir, "http://127.0.0.1:9/v1")).code == 0  # nothing to ask


def test_replays_of_an_ingested_log_keep_its_people_when_they_are_merged(workdir, capsys):
    write_tiers(workdir)
    write_log(workdir / "raw.parquet", [row | {"user_id": "ann"} for row in small_only(6)])
    assert call(capsys, "ingest", "raw.parquet", "--out", "log.parquet").code == 0
    with stub() as upstream:
        assert call(capsys, *arguments(workdir, upstream.url)).code == 0
    done = call(capsys, "ingest", "new.parquet", "--out", "log.parquet")
    assert done.code == 0, done.err
    frame = read_traffic(workdir / "log.parquet").frame
    assert len(frame) == 12
    assert frame["user_id"].nunique() == 1
    assert "ann" not in set(frame["user_id"])
    assert (frame.groupby("request_id")["session_id"].nunique() == 1).all()


def test_answers_to_people_whose_rows_are_gone_are_forgotten_too(workdir, capsys, monkeypatch):
    """As `new.parquet` has no row of them any more, or was never written."""
    write_tiers(workdir)
    rows = [row | {"user_id": "ann" if n < 2 else "bob"} for n, row in enumerate(small_only(6))]
    write_log(workdir / "raw.parquet", rows)
    assert call(capsys, "ingest", "raw.parquet", "--out", "log.parquet").code == 0
    journal = journal_path(workdir / "new.parquet")
    with stub() as upstream:
        assert call(capsys, *arguments(workdir, upstream.url)).code == 0
        assert call(capsys, "forget", "log.parquet", "--user", "ann").code == 0
        assert call(capsys, *arguments(workdir, upstream.url)).code == 0
    assert len(read_traffic(workdir / "new.parquet").frame) == 4
    forget = ("forget", "new.parquet", "--user", "ann")
    call(capsys, *forget).refused("a table made of another has that one's")
    monkeypatch.setenv("SUFFICE_KEY", (workdir / "log.parquet.key").read_text().strip())
    done = call(capsys, *forget)
    assert "0 rows of 0 requests removed" in done.out and "2 replayed answers" in done.out
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sorted(bool(r["text"]) for r in records if r["kind"] != "asked") == [False] * 2 + (
        [True] * 4
    )
    # Who is in the log again is asked for again: what was forgotten is no answer, empty or not.
    assert call(capsys, "ingest", "raw.parquet", "--out", "log.parquet").code == 0
    with stub() as upstream:
        done = call(capsys, *arguments(workdir, upstream.url, "--json"))
    run = json.loads(done.out)["run"]
    assert (run["answered"], run["known"]) == (2, 4)
    before = sum(r["usd"] for r in records if r["kind"] != "asked")
    assert run["usd"] == pytest.approx(8 / 6 * before)
    frame = read_traffic(workdir / "new.parquet").frame
    assert len(frame) == 6 and frame["response"].str.startswith("answer to ").all()
    (workdir / "new.parquet").unlink()
    call(capsys, *forget).refused("no such data set, but", journal.name, "remove the file")


def test_a_dry_run_asks_nothing_and_tells_the_price(workdir, capsys):
    write_inputs(workdir, small_only(40))
    done = call(capsys, *arguments(workdir, None, "--dry-run", "--json"))
    assert done.code == 0, done.err
    plan = json.loads(done.out)["plan"]
    assert plan["calls"] == plan["tiers"]["large"]["calls"] == 40
    frame = read_traffic(workdir / "log.parquet").frame
    tokens = frame["input_tokens"].sum() * 5 + 40 * frame["output_tokens"].mean() * 15
    assert plan["estimated_usd"] == pytest.approx(tokens / 1e6)
    assert sorted(path.name for path in workdir.iterdir()) == ["log.parquet", "tiers.toml"]


def test_a_dry_run_needs_no_extra(workdir):
    write_inputs(workdir, small_only(5))
    script = (
        "import sys; sys.modules['litellm'] = sys.modules['tenacity'] = None\n"
        "from training.cli import main; main()"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments(workdir, None, *more))],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for more in (["--dry-run"], [])
    ]
    assert done[0].returncode == 0, done[0].stderr
    assert done[1].returncode == 3
    assert "pip install 'suffice[replay]'" in done[1].stderr


def test_a_budget_that_does_not_hold_the_estimate_asks_nothing(workdir, capsys):
    write_inputs(workdir, small_only(40))
    with stub() as upstream:
        done = call(capsys, *arguments(workdir, upstream.url, budget=0.01))
        assert upstream.counts()["asked"] == {}
    assert done.code == 1
    assert "cost about" in done.err
    assert not (workdir / "new.parquet").exists()


def test_a_run_stops_at_the_budget_when_answers_are_dearer_and_goes_on_with_more(workdir, capsys):
    write_inputs(workdir, small_only(40))
    with stub(reply="dear") as upstream:  # 30,000 tokens each: $0.45, estimated below $0.01
        more = ["--concurrency", 2, "--json"]
        done = call(capsys, *arguments(workdir, upstream.url, *more, budget=5))
        assert done.code == 1
        assert "budget" in done.err
        first = json.loads(done.out)["run"]
        assert 0 < first["answered"] < 40
        in_flight = asking.OPEN_PER_PLACE * 2
        assert first["usd"] < 5 + in_flight * 0.45
        assert first["left"] == 40 - first["answered"]
        frame = read_traffic(workdir / "new.parquet").frame
        assert len(frame) == first["answered"]
        chance = pd.read_parquet(workdir / "new.parquet")["sample_probability"]
        assert chance.to_numpy() == pytest.approx(first["answered"] / 40)
        asked = upstream.counts()["asked"]
        done = call(capsys, *arguments(workdir, upstream.url, *more, budget=100))
        assert done.code == 0, done.err
        second = json.loads(done.out)["run"]
        assert second["known"] == first["answered"]
        assert set(upstream.counts()["asked"].values()) == {1}
        assert len(asked) == first["answered"]
    frame = read_traffic(workdir / "new.parquet").frame
    assert len(frame) == 40
    assert frame["propensity"].isna().all()
    assert (pd.read_parquet(workdir / "new.parquet")["sample_probability"] == 1).all()


def test_an_answer_without_a_bill_counts_as_estimated(workdir, capsys):
    write_inputs(workdir, small_only(3))
    with stub(reply="unbilled") as upstream:
        done = call(capsys, *arguments(workdir, upstream.url, "--json"))
    told = json.loads(done.out)
    assert told["run"]["usd"] == pytest.approx(told["plan"]["estimated_usd"])
    assert read_traffic(workdir / "new.parquet").frame["output_tokens"].isna().all()


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        ("401", 3, "refuses"),
        ("404", 2, "not found"),
        ("500", 3, "failures only"),
        ("429", 3, "failures only"),
        ("garbage", 3, "failures only"),
    ],
)
def test_an_upstream_that_never_answers_ends_the_run(
    workdir, capsys, monkeypatch, reply, code, words
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key-1234")
    write_inputs(workdir, small_only(30))
    with stub(reply=reply) as upstream:
        more = ("--concurrency", 4, "--api-key-env", "OPENAI_API_KEY")
        done = call(capsys, *arguments(workdir, upstream.url, *more))
        asked = sum(upstream.counts()["asked"].values())
    assert done.code == code, done
    assert words in done.err
    assert "Traceback" not in done.err
    assert asked < 30 * asking.ATTEMPTS / 2
    told = done.err + done.out + journal_path(workdir / "new.parquet").read_text()
    assert "very-secret" not in told


def test_a_request_that_the_provider_refuses_is_an_error_row_and_not_retried(workdir, capsys):
    write_inputs(workdir, small_only(5))
    with stub(reply="400") as upstream:
        done = call(capsys, *arguments(workdir, upstream.url))
        assert set(upstream.counts()["asked"].values()) == {1}
    assert done.code == 0, done.err
    frame = read_traffic(workdir / "new.parquet").frame
    assert set(frame["status"]) == {"error"}
    assert frame["error"].str.contains("refused").all()
    with stub() as upstream:  # a failed call is not paid for: the next run asks again
        assert call(capsys, *arguments(workdir, upstream.url)).code == 0
    assert set(read_traffic(workdir / "new.parquet").frame["status"]) == {"ok"}


def test_a_key_goes_to_a_named_server_only_where_asked(workdir, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key-1234")
    write_inputs(workdir, small_only(2))
    with stub() as upstream:
        assert call(capsys, *arguments(workdir, upstream.url, "--sample", 1)).code == 0
        assert upstream.counts()["last"]["authorization"] is None
        more = ("--api-key-env", "OPENAI_API_KEY")
        assert call(capsys, *arguments(workdir, upstream.url, *more)).code == 0
        assert upstream.counts()["last"]["authorization"] == "Bearer sk-very-secret-key-1234"
    call(capsys, *arguments(workdir, None, *more)).refused("--base-url", "OPENAI_API_KEY")


def test_an_upstream_out_of_reach_is_told_with_its_address(workdir, capsys):
    write_inputs(workdir, small_only(60))
    done = call(capsys, *arguments(workdir, "http://127.0.0.1:9/v1", "--concurrency", 4))
    assert done.code == 3
    assert "out of reach" in done.err
    assert "127.0.0.1:9" in done.err


def test_keys_and_models_are_checked_before_anything_is_sent(workdir, capsys, monkeypatch):
    write_inputs(workdir, small_only(3))
    call(capsys, *arguments(workdir, None)).refused("vendor/large-1", "--base-url")
    toml = (workdir / "tiers.toml").read_text()
    (workdir / "tiers.toml").write_text(toml.replace("vendor/large-1", "openai/gpt-4o"))
    done = call(capsys, *arguments(workdir, None))
    assert done.code == 3
    assert "OPENAI_API_KEY" in done.err
    done = call(capsys, *arguments(workdir, "http://127.0.0.1:9/v1", "--api-key-env", "NO_KEY"))
    assert done.code == 3
    assert "NO_KEY" in done.err


def test_bad_arguments_are_refused(workdir, capsys):
    write_inputs(workdir, small_only(3))
    files = ["replay", "log.parquet", "--tiers", "tiers.toml", "--out", "new.parquet"]
    call(capsys, *files).refused("--budget")
    call(capsys, *arguments(workdir, "localhost:1")).refused("--base-url")
    call(capsys, *arguments(workdir, None, "--strategy", "best")).refused("stratified")
    call(capsys, *arguments(workdir, None, "--strategy", "informative")).refused("--artifact")


def test_an_informative_sample_follows_the_router_and_states_its_chances(job, workdir):
    frame = read_traffic(job.fresh).frame
    frame = frame[frame["tier"] == "small"].reset_index(drop=True)
    how = Sampling(20, "informative", job.artifact)
    plan = make_plan(frame, TIERS, how, LONGEST)
    chances = [one.facts["propensity"] for one in plan.calls]
    assert len(plan.calls) == 20
    assert len(set(chances)) > 5
    assert all(0 < chance <= 1 for chance in chances)
    assert [c.key for c in make_plan(frame, TIERS, how, LONGEST).calls] == [
        c.key for c in plan.calls
    ]


def test_what_cannot_be_asked_as_it_was_is_left_out_and_counted(tmp_path):
    rows = small_only(4)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 999}}
    rows[0]["messages"] = json.dumps([{"role": "user", "content": [picture]}])
    rows[1]["input_tokens"] = 10_000
    tiers = (TIERS[0], replace(TIERS[1], context_window=8192))
    frame = read_traffic(write_log(tmp_path / "log.parquet", rows)).frame
    plan = make_plan(frame, tiers, Sampling(), LONGEST)
    assert sorted(one.request_id for one in plan.calls) == ["r2", "r3"]
    assert list(plan.skipped.values()) == [1, 1]


def test_an_interrupted_run_keeps_what_is_under_way(workdir):
    write_inputs(workdir, small_only(80))
    with stub(latency=0.3) as upstream:
        process = start(arguments(workdir, upstream.url))
        await_answers(upstream, 8)
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=300)[1]
        counts = upstream.counts()
    assert process.returncode == 1, told
    assert "interrupted by SIGTERM" in told
    frame = read_traffic(workdir / "new.parquet").frame
    assert len(frame) == sum(counts["answered"].values())
    with Journal(journal_path(workdir / "new.parquet")) as journal:
        assert journal.in_flight == {}


def start(words):
    return subprocess.Popen(
        [sys.executable, "-m", "training", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def await_answers(upstream, n):
    deadline = time.monotonic() + 300
    while sum(upstream.counts()["answered"].values()) < n:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_at_twenty_points_no_row_is_lost_or_doubled_and_no_call_paid_twice(workdir, capsys):
    """A call whose answer is in the journal is never sent again; one in flight may be, and counts.

    The stub counts every answer that it gave, also those that nobody was there to read.
    """
    n, kills = 400, 20
    write_inputs(workdir, small_only(n))
    chance = random.Random(5)
    again = Counter()
    with stub(latency=0.05, errors=0.05) as upstream:
        words = arguments(workdir, upstream.url, "--timeout", 0.5)
        for _ in range(kills):
            process = start(words)
            before = sum(upstream.counts()["asked"].values())
            deadline = time.monotonic() + 300
            while sum(upstream.counts()["asked"].values()) == before:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.15))
            process.kill()
            process.communicate()
            with Journal(journal_path(workdir / "new.parquet")) as journal:
                again.update(list(journal.in_flight))
                kept = {journal.asked[key]["request_id"] for key in journal.answered}
            assert len(kept) < n, "all was answered before the last kill: make n larger"
        done = call(capsys, *words)
        counts = upstream.counts()
    assert done.code == 0, done.err
    frame = read_traffic(workdir / "new.parquet").frame
    assert sorted(frame["request_id"]) == sorted(f"r{i}" for i in range(n))
    assert set(frame["status"]) == {"ok"}
    keys = {prompt: keys[0] for prompt, keys in counts["keys"].items()}
    twice = {keys[p]: c - 1 for p, c in counts["answered"].items() if c > 1}
    assert all(extra <= again[key] for key, extra in twice.items())
    # A call that waits for its retry is in flight, too, but holds no place and costs nothing.
    assert again.total() <= asking.OPEN_PER_PLACE * 8 * kills
    assert sum(twice.values()) <= 8 * kills, (again.total(), sum(twice.values()))
