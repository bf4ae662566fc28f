"""The monitor of the promise: seldom wrong over a year of looks, quick where it is broken."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.traffic_makers import call, make_rows, requests_of, write_log, write_tiers
from training.learn import heads
from training.watch.monitor import Watch, _per_unit, look, monitor

RATE, A_DAY = 0.02, 500


def days_until_alarm(rate: float, days: int, rng: np.random.Generator) -> int | None:
    """Looks once a day at `A_DAY` labels, of which a share `rate` are bad downgrades."""
    watch = Watch("v")
    for day in range(days):
        bad = rng.random(A_DAY) < rate
        times = np.full(A_DAY, np.datetime64("2026-01-01") + day)
        watch = look(watch, RATE - bad, RATE, times)
        if watch.alarm:
            return day + 1
    return None


def test_false_alarms_over_a_year_are_rare_and_a_doubling_is_found() -> None:
    rng = np.random.default_rng(0)
    false = sum(days_until_alarm(RATE, 365, rng) is not None for _ in range(40))
    assert false <= 2 + 2 * np.sqrt(40 * 0.05 * 0.95)
    found = [days_until_alarm(2 * RATE, 60, rng) or 99 for _ in range(25)]
    assert np.median(found) <= 14


def test_looks_in_one_go_or_day_by_day_are_the_same() -> None:
    rng = np.random.default_rng(1)
    margins = RATE - (rng.random(1000) < 0.05)
    times = np.arange(1000).astype("datetime64[s]")
    whole = look(Watch("v"), margins, RATE, times)
    parts = look(
        look(Watch("v"), margins[:300], RATE, times[:300]), margins[300:], RATE, times[300:]
    )
    assert parts.sessions == whole.sessions
    assert parts.alarm == whole.alarm
    assert parts.capital == pytest.approx(whole.capital)
    assert parts.kept == pytest.approx(whole.kept)


def test_repeated_prompts_raise_no_more_false_alarms(tmp_path):
    """A promise kept just so; 40 prompts, each asked twenty times and answered always alike."""
    rng, rows = np.random.default_rng(3), make_rows(800, session=1)
    for number, row in enumerate(rows):
        row["messages"] = f"question number {number // 2 % 40} of this kind, please answer it"
    requests = requests_of(rows, tmp_path)
    prompts = np.unique([prompt.text for prompt in requests.prompts], return_inverse=True)[1]
    assert prompts.max() == 39
    alarms, draws = 0, 300
    for _ in range(draws):
        fails = (rng.random(40) < 0.1)[prompts]
        values, sizes, first = _per_unit(np.where(fails, -0.9, 0.1), requests)
        found = look(Watch("a"), values, 0.1 * float(sizes.max()), requests.at[first])
        alarms += bool(found.alarm)
    assert alarms <= 0.05 * draws + 2 * np.sqrt(draws * 0.05 * 0.95)


def test_a_session_that_goes_on_is_counted_in_one_look(job, workdir):
    """Sessions of 20 requests, looked at in their middle and at their end."""
    rows = [row | {"request_id": f"new-{row['request_id']}"} for row in make_rows(200, 7)]
    for row in rows:  # ten sessions at once
        number = int(row["request_id"].removeprefix("new-r"))
        row["session_id"] = f"s{number // 100}-{number % 5}"
    half = [row for row in rows if int(row["request_id"].removeprefix("new-r")) < 150]
    log, state = workdir / "log.parquet", workdir / "state.json"
    first = monitor(job.artifact, write_log(log, half), state)
    then = monitor(job.artifact, write_log(log, rows), state)
    assert first.sessions == 10
    assert then.sessions == 10


def test_a_label_that_comes_late_is_counted(job, workdir):
    """Of requests that a look had passed by no later label ever counted."""
    rows = [
        row | {"request_id": f"new-{row['request_id']}"} for row in make_rows(200, 7, session=1)
    ]
    early, log, state = pd.DataFrame(rows), workdir / "log.parquet", workdir / "state.json"
    early.loc[early.groupby("request_id").ngroup() % 4 == 1, "score"] = None
    first = monitor(job.artifact, write_log(log, early), state)
    then = monitor(job.artifact, write_log(log, rows), state)
    assert (first.sessions, then.sessions) == (150, 200)
    assert monitor(job.artifact, log, state) == then  # nothing counts twice


def test_each_artifact_has_its_own_watch_in_a_state(job, workdir, capsys):
    """Of `models:/suffice@champion` a watch ended with the first promotion."""
    rows = [
        row | {"request_id": f"new-{row['request_id']}"} for row in make_rows(200, 7, session=1)
    ]
    log, state = write_log(workdir / "log.parquet", rows), workdir / "state.json"
    next_one = workdir / "next"
    chosen = ("--traffic", str(job.fresh), "--set", "min_quality=0.8", "--out", str(next_one))
    assert call(capsys, "policy", str(job.artifact), *chosen).code == 0
    first = monitor(job.artifact, log, state)
    after = monitor(next_one, log, state)
    assert after.artifact != first.artifact and after.sessions > 0
    assert monitor(job.artifact, log, state) == first
    assert monitor(next_one, log, state) == after


def test_a_state_of_an_earlier_version_goes_on(job, workdir):
    """Such a state knows what it has counted by time alone."""
    rows = [
        row | {"request_id": f"new-{row['request_id']}"} for row in make_rows(200, 7, session=1)
    ]
    log, state = write_log(workdir / "log.parquet", rows), workdir / "state.json"
    first = monitor(job.artifact, log, state)
    [old] = json.loads(state.read_text())["artifacts"].values()
    del old["counted"]
    state.write_text(json.dumps(old))
    assert monitor(job.artifact, log, state) == first
    more = pd.DataFrame(rows)
    more["at"] = pd.to_datetime(more["at"]) + pd.Timedelta(days=90)
    more[["request_id", "session_id"]] += "-more"
    write_log(log, pd.concat([pd.DataFrame(rows), more]))
    assert monitor(job.artifact, log, state).sessions == 400


def test_a_look_counts_once_and_a_broken_promise_is_exit_1(workdir, capsys, monkeypatch):
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)
    write_log(workdir / "log.parquet", make_rows(1500, session=1))
    write_tiers(workdir)
    train = ("--traffic", "log.parquet", "--tiers", "tiers.toml", "--out", "a")
    assert call(capsys, "train", *train, "--policy", "min_quality=0.9").code == 0
    new = pd.DataFrame(make_rows(800, 7, session=1))
    new["request_id"] = "new-" + new["request_id"]
    new["at"] += pd.Timedelta(days=30)
    write_log(workdir / "new.parquet", new)
    watch = ("monitor", "a", "--traffic", "new.parquet", "--state", "state.json", "--json")
    calm = call(capsys, *watch)
    assert calm.code == 0, calm
    first = json.loads(calm.out)
    assert first["sessions"] == 800
    assert json.loads(call(capsys, *watch).out)["sessions"] == 800  # nothing counts twice
    new["request_id"] = "later-" + new["request_id"]
    new["at"] += pd.Timedelta(days=30)
    new.loc[new["tier"] == "small", "score"] = 0.0
    write_log(workdir / "new.parquet", new)
    broken = call(capsys, *watch)
    assert broken.code == 1, broken
    assert json.loads(broken.out)["alarm"]
    alone = new[new["tier"] == "small"]  # one-sided, and no propensity
    write_log(workdir / "alone.parquet", alone)
    nothing = ("monitor", "a", "--traffic", "alone.parquet", "--state", "other.json")
    call(capsys, *nothing).refused("none can be counted", "propensity")
    (workdir / "state.json").write_text("{}", encoding="utf-8")
    call(capsys, *watch).refused("state.json")
