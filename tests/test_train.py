"""The training job: repeatable, whole or not at all, and on record in MLflow."""

import json
import os
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest

from router import Router
from router.artifact import load_artifact
from router.policy import Policy
from tests.traffic_makers import QUICK, TIERS, make_rows, one_sided, prompt_texts, write_log
from training import export as exporting
from training import record
from training import train as job_module
from training.config import Config
from training.decide.goals import (
    MaxBadDowngrade,
    MaxCost,
    MinQuality,
    TopShare,
    Value,
    goal_as_dict,
)
from training.errors import BadInput, EnvironmentProblem
from training.label.rule import LabelRule
from training.learn import heads
from training.learn.splits import parse_shares
from training.train import train

CONFIG = Config(policy=MinQuality(0.9))


def run(folder, traffic, out="artifact", config=CONFIG, shares="60/30/10", seed=0, tiers=TIERS):
    return train(traffic, tiers, folder / out, config, parse_shares(shares), seed, "static")


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def untracked(monkeypatch):
    """Without MLflow, and with little to choose from: quick, all else as it is."""
    monkeypatch.setattr(job_module, "STANDARD", QUICK)
    monkeypatch.setattr(heads, "MAX_ROUNDS", 30)
    monkeypatch.setattr(record, "log_run", lambda *_: ("no run", "no store"))


def test_same_log_same_seed_same_arrays(workdir, untracked):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    one, two, other = (
        run(workdir, traffic, name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    heads = [(workdir / name / "heads.npz").read_bytes() for name in "abc"]
    assert heads[0] == heads[1]
    assert heads[0] != heads[2]
    assert one.policy == two.policy
    prints = [load_artifact(t.out).manifest["training"]["fingerprint"] for t in (one, two, other)]
    assert len(set(prints)) == 1


@pytest.mark.parametrize("timed", [True, False])
def test_the_order_of_the_rows_says_nothing(workdir, untracked, timed):
    rows = make_rows(300, seed=3, timed=timed)
    turned = np.random.default_rng(0).permutation(len(rows))
    one, two = (
        run(workdir, write_log(workdir / f"{out}.parquet", log), out)
        for out, log in (("a", rows), ("b", [rows[i] for i in turned]))
    )
    assert one.policy == two.policy
    assert one.report.figures == two.report.figures
    heads = [(workdir / name / "heads.npz").read_bytes() for name in "ab"]
    assert heads[0] == heads[1]


def test_what_the_artifact_tells(job):
    artifact = load_artifact(job.artifact)
    told = artifact.manifest
    assert artifact.policy == job.trained.policy
    assert artifact.policy.constant is None
    assert told["training"]["rows"] == {"fit": 312, "choose": 352, "test": 116}
    assert told["training"]["since"] == "2026-03-01T00:00:00.000000Z"
    assert any(line.startswith("leakage:") for line in told["training"]["notes"])
    assert (
        told["metrics"]["policy.quality"] == job.trained.report.figures["policy"]["quality"].value
    )
    assert artifact.version == job.trained.version
    text = "\n".join(job.trained.summary)
    assert "leakage: split by time" in text
    assert "Promise: mean quality at least 90.0%" in text
    card = (job.artifact / "CARD.md").read_text(encoding="utf-8")
    assert "vendor/large-1" in card
    assert "90.0%" in card


def test_no_text_of_the_log_leaves_with_the_artifact(job):
    """Neither prompts nor request ids nor session names."""
    for path in job.artifact.rglob("*"):
        if path.is_file() and path.name != "tokenizer.json":
            content = path.read_bytes()
            for trace in (b"eigenvalue", b'r17"', b's12"'):
                assert trace not in content, path


def test_a_constant_has_no_dial_on_record(job, monkeypatch):
    """A dial of 0 is another policy: the likeliest tier, at any cost."""
    told = {}
    monkeypatch.setattr(record, "log_run", lambda name, told_of, metrics, *_: told.update(metrics))
    artifact = load_artifact(job.artifact)
    record.track(artifact, None, "")
    assert told["policy.mu"] == artifact.policy.mu
    told.clear()
    record.track(replace(artifact, policy=Policy(0.0, 1)), None, "")
    assert "policy.mu" not in told and "policy.quality" in told


def test_it_routes_by_what_it_learned(job):
    router = Router.load(job.artifact)
    hard = np.arange(200) < 100
    texts = prompt_texts(hard, np.random.default_rng(99))
    to_large = np.array([decision.tier == "large" for decision in router.route_batch(texts)])
    assert to_large[hard].mean() > 0.8
    assert to_large[~hard].mean() < 0.4
    assert router.route(texts[0]).reason == "policy"


def test_the_run_is_on_record(job):
    client = mlflow.MlflowClient(job.trained.store)
    found = client.get_run(job.trained.run_id)
    assert found.info.status == "FINISHED"
    params, metrics, tags = found.data.params, found.data.metrics, found.data.tags
    assert params["seed"] == "0"
    assert params["split"] == "40/45/15"
    assert params["min_quality"] == "0.9"
    assert params["rows.fit"] == "312"
    quality = job.trained.report.figures["policy"]["quality"]
    assert metrics["policy.quality"] == quality.value
    assert metrics["policy.quality.low"] == quality.low
    assert metrics["promise.certified"] == 1.0
    assert tags["suffice.artifact"] == job.trained.version
    assert len(tags["suffice.fingerprint"]) == 32
    files = {
        file.path
        for folder in ("artifact", "plots", "report")
        for file in client.list_artifacts(job.trained.run_id, folder)
    }
    assert {"artifact/manifest.json", "artifact/heads.npz"} <= files
    assert {"plots/cost_quality.png", "plots/reliability.png", "report/report.json"} <= files


def test_files_of_runs_stay_beside_the_store(job):
    store = Path(job.trained.store.removeprefix("sqlite:///"))
    assert (store.parent / "mlruns" / job.trained.run_id / "artifacts").is_dir()
    assert not (job.artifact.parent / "mlruns").exists()  # where the job was run


@pytest.mark.parametrize("store", ["sqlite:///log.parquet/in/file.db", "sqlite:///.", "nosql://"])
def test_a_store_that_cannot_be_used_is_refused_before_the_work(store, workdir, monkeypatch):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setattr(job_module, "prepare", None)
    with pytest.raises(EnvironmentProblem, match=r"nothing was written.*MLFLOW_TRACKING_URI"):
        run(workdir, traffic)
    assert [path.name for path in workdir.iterdir()] == ["log.parquet"]


def test_a_store_that_may_only_be_read_is_refused_before_the_work(workdir, monkeypatch):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    (workdir / "mlflow.db").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).suffix != ".db")  # root may all
    monkeypatch.setattr(job_module, "prepare", None)
    with pytest.raises(EnvironmentProblem, match=r"mlflow\.db may not be written.*nothing was"):
        run(workdir, traffic)


def test_a_refused_run_leaves_the_artifact_in_place(workdir, refusing_store):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    with pytest.raises(EnvironmentProblem, match=r"the artifact is in .*/artifact, .*MLFLOW_TRACK"):
        run(workdir, traffic)
    assert load_artifact(workdir / "artifact").policy.promise is not None


def test_a_failing_export_leaves_no_half_written_output(workdir, untracked, monkeypatch):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(exporting, "load_artifact", fail)
    with pytest.raises(OSError, match="disk full"):
        run(workdir, traffic)
    assert not (workdir / "artifact").exists()
    assert hidden(workdir) == []


def test_an_older_artifact_is_replaced_whole_or_left_alone(workdir, untracked, monkeypatch):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    first, second = run(workdir, traffic), run(workdir, traffic, seed=1)
    assert first.version != second.version
    assert load_artifact(workdir / "artifact").version == second.version
    monkeypatch.setattr(exporting, "replay", lambda *_: float("nan"))
    with pytest.raises(exporting.ParityError, match="differ from training"):
        run(workdir, traffic)
    assert load_artifact(workdir / "artifact").version == second.version
    assert hidden(workdir) == []


def test_another_folder_is_never_replaced(workdir, untracked, monkeypatch):
    """And it is refused before the work, not after it."""
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    (workdir / "artifact").mkdir()
    (workdir / "artifact" / "thesis.txt").write_text("mine")
    monkeypatch.setattr(job_module, "fit", None)
    with pytest.raises(BadInput, match="is not an artifact"):
        run(workdir, traffic)
    assert (workdir / "artifact" / "thesis.txt").read_text() == "mine"


def test_without_test_rows_there_is_no_report(workdir, untracked):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    done = run(workdir, traffic, shares="70/30/0")
    assert done.report is None
    assert any("no report" in line for line in done.summary)
    metrics = json.loads((done.out / "manifest.json").read_text())["metrics"]
    assert {name.split(".")[0] for name in metrics} == {"members"}  # which are of the fit rows


def test_an_assumed_top_tier_is_said_everywhere(workdir, untracked):
    rows = [row for row in make_rows(400, seed=3) if row["tier"] == "small"]
    traffic = write_log(workdir / "log.parquet", rows)
    config = Config(LabelRule(assume_top_suffices=True), MinQuality(0.8))
    done = run(workdir, traffic, config=config)
    assert Router.load(done.out).route("hi").p_suffices["large"] == 1.0
    assert any("ASSUMED" in note for note in done.report.notes)
    assert "ASSUMED" in (done.out / "CARD.md").read_text(encoding="utf-8")
    assert "ASSUMED" in "\n".join(done.summary)


def test_a_one_sided_log_is_told_what_is_missing(workdir, untracked, monkeypatch):
    monkeypatch.setattr(job_module, "fit", None)  # it is told before the work
    rows = [row for i, row in enumerate(make_rows(400, seed=3)) if (i // 2 + i) % 2]
    with pytest.raises(
        BadInput,
        match=r"of the choose part's 120 requests: 0 requests with every tier's score, 20 are "
        "needed: .*; the other 120 carry no",
    ):
        run(workdir, write_log(workdir / "log.parquet", rows))
    assert not (workdir / "artifact").exists()


def test_a_one_sided_log_end_to_end(workdir, untracked):
    rows = one_sided(make_rows(1500, seed=3, session=1), 0.3)
    config = Config(policy=MinQuality(0.8))
    done = run(workdir, write_log(workdir / "log.parquet", rows), config=config, shares="40/45/15")
    assert done.summary[0].startswith("world: one-sided, 675 requests")
    assert done.summary[0].endswith("(in the choose part)")
    assert done.policy.constant is None
    assert done.policy.promise.certified
    assert done.policy.promise.test == "betting on doubly robust estimates"
    figures = done.report.figures
    assert figures["policy"]["cost_usd"].high < figures["always large"]["cost_usd"].low
    assert "doubly robust" in (done.out / "CARD.md").read_text(encoding="utf-8")
    # the population's value, which the log never showed whole
    fresh = make_rows(3000, seed=9)
    route = Router.load(done.out)
    decided = route.route_batch([json.loads(row["messages"]) for row in fresh[::2]])
    scores = np.array([row["score"] for row in fresh]).reshape(-1, 2)
    tier = [int(decision.tier == "large") for decision in decided]
    routed = scores[np.arange(3000), tier]
    assert routed.mean() >= 0.8 * scores[:, 1].mean()
    value = figures["policy"]["quality"]
    assert value.low - 0.02 < routed.mean() < value.high + 0.02


def test_never_tried_tiers_are_refused_with_the_exploration_needed(workdir, untracked):
    rows = make_rows(600, seed=3)
    never = write_log(workdir / "never.parquet", one_sided(rows, 0.0))
    with pytest.raises(BadInput, match=r"tier 'small': no labelled row .* propensit"):
        run(workdir, never)
    late = one_sided(rows[:700], 0.3) + one_sided(rows[700:], 1.0)  # large was given up
    with pytest.raises(BadInput, match=r"always-top.* to tier 'large' .*Explore: send at least"):
        run(workdir, write_log(workdir / "late.parquet", late))
    assert not (workdir / "artifact").exists()


def test_a_relative_label_needs_pairs(workdir, untracked):
    rows = one_sided(make_rows(400, seed=3), 0.4)
    traffic = write_log(workdir / "log.parquet", rows)
    with pytest.raises(BadInput, match="0 independent choose rows with every tier's score"):
        run(workdir, traffic, config=Config(LabelRule(margin=0.1)))
    with pytest.raises(BadInput, match="shadow calls"):
        run(workdir, traffic, config=Config(policy=MaxBadDowngrade(0.05)))


def test_four_tiers_end_to_end(workdir, untracked):
    """The middle tier takes what it does as well; one that is dearer and worse gets nothing."""
    tiers = tuple(
        type(TIERS[0])(name, f"v/{name}", price, price)
        for name, price in (("nano", 0.1), ("mid", 1.0), ("bad", 2.0), ("top", 20.0))
    )
    rows = make_rows(
        700,
        seed=4,
        tiers=tiers,
        session=1,
        easy=(0.97, 0.97, 0.5, 0.98),
        hard=(0.05, 0.95, 0.3, 0.97),
    )
    done = run(workdir, write_log(workdir / "log.parquet", rows), tiers=tiers, shares="45/40/15")
    assert done.policy.constant is None or done.policy.constant == 1
    policy = done.report.figures["policy"]
    assert policy["share_1"].value > 0.3
    assert policy["share_2"].value < 0.05
    assert policy["share_3"].value < 0.5
    figures = done.report.figures
    ours = figures["Suffice, by gain per dollar"]["aiq"].value
    assert ours <= figures["oracle"]["aiq"].value + 1e-9
    assert "apgr" in done.report.missing


def test_names_that_mlflow_does_not_take(workdir):
    tiers = tuple(
        type(tier)(name, tier.model, tier.input_usd_per_mtok, tier.output_usd_per_mtok)
        for tier, name in zip(TIERS, ("klein (größe=7) ../a", "large@prod: +50%"), strict=True)
    )
    rows = make_rows(300, seed=3, tiers=tiers)
    done = run(workdir, write_log(workdir / "log.parquet", rows), tiers=tiers)
    assert done.run_id
    store = done.store.removeprefix("sqlite:///")
    with sqlite3.connect(store) as database:
        keys = database.execute("select key from metrics where run_uuid = ?", [done.run_id])
        assert any(key.startswith("tier_klein") for (key,) in keys)


def test_odd_prompts_are_no_trouble(workdir, untracked):
    odd = ["", "x" * 300_000, "\0", "a\0b" * 9, "🎉🎂", "مرحبا بالعالم", "שלום", "\ud83d", "\n\t "]
    rows = make_rows(300, seed=3)
    for i, text in enumerate(odd):
        for row in rows[2 * i : 2 * i + 2]:
            row["messages"] = json.dumps([{"role": "user", "content": text}])
    done = run(workdir, write_log(workdir / "log.parquet", rows))
    router = Router.load(done.out)
    for text in odd:
        assert router.route(text).reason == "policy"
        assert np.isfinite(list(router.route(text).expected_cost_usd.values())).all()


def test_prices_that_are_all_zero_are_refused_and_a_free_tier_is_noted(workdir, untracked):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    tier = type(TIERS[0])
    free = tuple(tier(one.name, one.model, 0.0, 0.0) for one in TIERS)
    with pytest.raises(BadInput, match=r"every price is 0.*suffice init"):
        run(workdir, traffic, tiers=free)
    assert not (workdir / "artifact").exists()
    done = run(workdir, traffic, tiers=(free[0], TIERS[1]))
    assert any("small: both prices are 0, it counts as free" in note for note in done.summary)


def test_rows_that_hang_together_are_told(workdir, untracked):
    rows = [row | {"session_id": "prod"} for row in make_rows(300, seed=3, timed=False)]
    with pytest.raises(BadInput, match="300 of 300 stay in one part, tied by their session_id"):
        run(workdir, write_log(workdir / "log.parquet", rows))


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_that_are_all_equal(workdir, untracked, score):
    rows = [row | {"score": score} for row in make_rows(300, seed=3)]
    with pytest.raises(BadInput, match="no tier's scores vary"):
        run(workdir, write_log(workdir / "log.parquet", rows))


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (MaxBadDowngrade(0.3), "at most 30.00% of requests"),
        (MaxCost(2.0), "2 USD per 1,000 requests"),
        (TopShare(0.3), "at most 30.0% of requests to the top tier"),
        (Value(1e-5), "worth 1e-05 USD"),
    ],
)
def test_every_goal_end_to_end(workdir, untracked, goal, words):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    done = run(workdir, traffic, config=Config(policy=goal))
    assert words in done.summary[-1]
    assert words in (done.out / "CARD.md").read_text(encoding="utf-8")
    told = json.loads((done.out / "manifest.json").read_text(encoding="utf-8"))
    assert told["goal"] == goal_as_dict(goal)
    assert (told["policy"]["promise"] is None) == (not isinstance(goal, MaxBadDowngrade))


def test_a_cost_that_no_mix_keeps(workdir, untracked):
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=3))
    with pytest.raises(BadInput, match="impossible at these prices"):
        run(workdir, traffic, config=Config(policy=MaxCost(1e-6)))
    assert not (workdir / "artifact").exists()


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "one-sided"])
def test_the_report_tells_what_rules_make_of_the_choices(paired, workdir, untracked):
    """Training says of its test rows what evaluate would: figures do not know of the rules."""
    rows = make_rows(600, seed=3)
    for row in rows:
        row["tags"] = ["legal"] if int(row["request_id"][1:]) % 2 else []
    traffic = write_log(workdir / "log.parquet", rows if paired else one_sided(rows, 0.5))
    goal, table = Value(0.001), {"pin": {"tag": {"legal": "small"}}}
    held, free = (
        run(workdir, traffic, name, Config(policy=goal, rules=rules), tiers=TIERS)
        for name, rules in (("held", table), ("free", None))
    )
    told = [note for note in held.report.notes if "the artifact's rules send" in note]
    [count] = (int(found) for note in told for found in re.findall(r"\(pin (\d+)\)", note))
    assert count > 5 and f", {count} of them to a cheaper tier" in told[0]
    assert any("with the rules $" in note for note in held.report.notes) == paired
    assert not any("rules" in note for note in free.report.notes)
