"""Another operating point without training: a new goal, or new prices."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from router import Router
from router.artifact import load_artifact, read_artifact
from tests.traffic_makers import TIERS, TIERS_TOML, call, write_log, write_tiers
from training import resolve as job_module
from training.decide.goals import MaxBadDowngrade, MinQuality, Value
from training.errors import BadInput
from training.label.rule import LabelRule, load_requests
from training.resolve import reprice, resolve

DEARER = (replace(TIERS[0], input_usd_per_mtok=3.0, output_usd_per_mtok=10.0), TIERS[1])


@pytest.fixture
def untracked(monkeypatch):
    monkeypatch.setattr("training.record.log_run", lambda *_: ("no run", "no store"))


def fitted(artifact):
    """Hashes of the requests that an artifact was fitted or chosen on."""
    return read_artifact(artifact)[1]["fitted"]


def facts(path):
    return json.loads((path / "manifest.json").read_text(encoding="utf-8"))


def test_a_new_goal_on_fresh_rows(job, workdir):
    done = resolve(job.artifact, job.fresh, MinQuality(0.8, 0.9), workdir / "new")
    artifact = load_artifact(workdir / "new")
    assert artifact.version == done.version != job.trained.version
    assert artifact.policy == done.policy
    promise = artifact.policy.promise
    assert (promise.target, promise.confidence, promise.n) == (0.8, 0.9, 60)  # of 120 requests
    told = artifact.manifest
    assert told["goal"] == {"min_quality": 0.8, "confidence": 0.9}
    assert told["training"]["rows"] == {"fit": 312, "choose": 120, "test": 0}
    assert told["training"]["notes"][-1] in done.summary
    assert "chosen again on 120 requests of fresh.parquet" in done.summary[-2]
    assert f"of {job.trained.version}, which does not know of this one" in done.summary[-2]
    assert not any(name.startswith("policy.") for name in told["metrics"])
    assert "80.0%" in (workdir / "new" / "CARD.md").read_text(encoding="utf-8")
    assert Router.load(workdir / "new").route("what is the capital of peru").reason == "policy"
    assert load_artifact(job.artifact).version == job.trained.version


def test_rows_that_chose_are_known_afterwards(job, workdir, untracked):
    resolve(job.artifact, job.fresh, MinQuality(0.8), workdir / "new")
    assert len(fitted(workdir / "new")) == len(fitted(job.artifact)) + 120
    with pytest.raises(BadInput, match="0 requests with every tier's score"):
        resolve(workdir / "new", job.fresh, MinQuality(0.9), workdir / "newer")
    assert not (workdir / "newer").exists()


def test_the_window_is_that_of_all_rows_that_it_rests_on(job, workdir, untracked, capsys):
    before = facts(job.artifact)["training"]
    newest = pd.read_parquet(job.fresh)["at"].max()
    resolve(job.artifact, job.fresh, MinQuality(0.8), workdir / "new")
    told = facts(workdir / "new")["training"]
    assert told["since"] == before["since"]
    assert pd.Timestamp(told["until"]) == newest > pd.Timestamp(before["until"])
    window = f"window {told['since'][:16]} to {told['until'][:16]} UTC"
    assert window in call(capsys, "inspect", "new").out.replace("\n", " ")
    card = (workdir / "new" / "CARD.md").read_text(encoding="utf-8")
    assert f"- {window}" in card
    reprice(workdir / "new", DEARER, workdir / "dear")
    assert facts(workdir / "dear")["training"]["until"] == told["until"]


def test_a_window_of_rows_without_times_is_the_one_before(job, workdir, untracked):
    rows = pd.read_parquet(job.fresh).drop(columns="at").to_dict("records")
    write_log(workdir / "untimed.parquet", rows)
    resolve(job.artifact, workdir / "untimed.parquet", MinQuality(0.8), workdir / "new")
    ends = ("since", "until")
    before, after = (facts(path)["training"] for path in (job.artifact, workdir / "new"))
    assert [after[end] for end in ends] == [before[end] for end in ends]


def test_rows_that_the_artifact_knows_are_left_out(job, workdir, untracked):
    done = resolve(job.artifact, job.traffic, Value(0.01), workdir / "new")
    assert "chosen again on 116 requests" in done.summary[-2]
    assert "664 left out" in done.summary[-2]


def test_only_the_policy_differs(job, workdir, untracked):
    shutil.copytree(job.artifact, workdir / "a")
    resolve(workdir / "a", job.fresh, Value(0.002), workdir / "a")
    new, old = load_artifact(workdir / "a"), load_artifact(job.artifact)
    assert new.policy.mu == pytest.approx(1 / (100 * 0.002))
    assert new.policy.promise is None
    for name in ("embedder/vectors.npy", "golden.jsonl"):
        assert (workdir / "a" / name).read_bytes() == (job.artifact / name).read_bytes()
    requests, _ = load_requests(job.fresh, TIERS, LabelRule())
    ours, theirs = (a.predictor.estimate(list(requests.prompts[:20])) for a in (new, old))
    np.testing.assert_array_equal(ours.p, theirs.p)
    np.testing.assert_array_equal(ours.usd, theirs.usd)


def test_a_value_decides_as_it_says(job, workdir, untracked):
    """Of two dials the one that maximises value − cost in expectation is the goal's."""
    done = resolve(job.artifact, job.fresh, Value(1e-5), workdir / "new")
    requests, _ = load_requests(job.fresh, TIERS, LabelRule())
    found = load_artifact(workdir / "new").predictor.estimate(list(requests.prompts))
    worth = 100 * 1e-5 * found.p - found.usd  # USD of a request on each tier
    chosen = done.policy.choose(found.p, found.usd)
    np.testing.assert_array_equal(chosen, worth.argmax(axis=1))


def test_what_a_tier_states_since_is_held(job, workdir, untracked):
    assert load_artifact(job.artifact).rules is None
    small = replace(TIERS[0], context_window=10)
    reprice(job.artifact, (small, TIERS[1]), workdir / "new")
    assert "context_window" in (workdir / "new" / "CARD.md").read_text(encoding="utf-8")
    decision = Router.load(workdir / "new").route("what is the capital of peru " * 10)
    assert (decision.tier, decision.reason) == ("large", "rule:context_window")


def test_the_same_prices_give_the_same_policy(job, workdir):
    done = reprice(job.artifact, TIERS, workdir / "same")
    assert done.policy == job.trained.policy
    assert done.version != job.trained.version
    again = reprice(workdir / "same", TIERS, workdir / "again")  # from its own run's evidence
    assert again.policy == done.policy


def test_new_prices_change_costs_and_keep_the_promise(job, workdir):
    done = reprice(job.artifact, DEARER, workdir / "new")
    new, old = load_artifact(workdir / "new"), load_artifact(job.artifact)
    assert new.predictor.tiers == DEARER
    assert new.policy.promise.certified
    assert new.policy.promise.n == old.policy.promise.n
    assert new.policy.promise.target == 0.9
    route = [Router.load(path).route("hi").expected_cost_usd for path in (new.path, old.path)]
    assert route[0]["small"] > 20 * route[1]["small"]
    assert route[0]["large"] == route[1]["large"]
    assert "new prices" in done.summary[-2]
    assert (new.policy.mu != old.policy.mu) or new.policy.constant is not None


def test_without_evidence_the_promise_is_void(job, workdir, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir}/other.db")
    done = reprice(job.artifact, DEARER, workdir / "new")
    told = facts(workdir / "new")
    assert told["policy"]["promise"] is None
    assert "promise is void" in told["policy"]["why"]
    assert told["evidence"] is None
    assert done.policy.mu == job.trained.policy.mu
    assert "evidence.npz" in done.summary[-2]
    assert "void" in (workdir / "new" / "CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["policy", "reprice"])
def test_where_mlflow_refuses_the_run_all_is_as_it_was(
    command, job, workdir, capsys, refusing_store
):
    """In place: the artifact is the old one, no row is spent, and it can be asked again."""
    shutil.copytree(job.artifact, workdir / "own")
    asked = {
        "policy": ("--traffic", job.fresh, "--set", "min_quality=0.8"),
        "reprice": ("--tiers", write_tiers(workdir, TIERS_TOML.replace("5.0", "9.0"))),
    }[command]
    refused = call(capsys, command, "own", *asked)
    assert refused.code == 3
    assert "nothing was written: own is as it was" in refused.err
    assert load_artifact(workdir / "own").version == job.trained.version
    refusing_store.unlink()
    done = call(capsys, command, "own", *asked)
    assert done.code == 0, done.err
    assert load_artifact(workdir / "own").version != job.trained.version


def test_another_file_is_no_evidence(job, workdir, monkeypatch):
    def fetched(tag, value, file, into):
        (into / "evidence.npz").write_bytes(b"another")
        return into / "evidence.npz"

    monkeypatch.setattr(job_module, "fetch_file", fetched)
    with pytest.raises(BadInput, match="sha256 differs"):
        reprice(job.artifact, DEARER, workdir / "new")
    assert not (workdir / "new").exists()


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        (TIERS_TOML.replace('"small"', '"tiny"'), ("tiny", "train again")),
        (TIERS_TOML.replace("vendor/large-1", "vendor/large-2"), ("vendor/large-2",)),
        (TIERS_TOML.replace("0.1", "0").replace("0.4", "0").replace("5.0", "0").replace("1", "1")
         .replace("= 10", "= 0").replace("15.0", "0"), ("every price is 0",)),
        (TIERS_TOML.replace("0.1", "90.0"), ("cheapest first",)),
    ],
)  # fmt: skip
def test_tiers_that_do_not_fit(job, workdir, capsys, tiers, words):
    path = write_tiers(workdir, tiers)
    call(capsys, "reprice", job.artifact, "--tiers", path, "--out", "n").refused(*words)
    assert not (workdir / "n").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "max_cost_usd_per_1k=0.000001"], ("impossible at these prices", "always the")),
        (["--set", "max_bad_downgrad=0.1"], ("did you mean 'max_bad_downgrade'",)),
        (["--set", "top_share=0.1", "--set", "min_quality=0.9"], ("choose one goal",)),
        (["--set", "top_share=2"], ("top_share must be in [0, 1]",)),
        (["--set", "top_share"], ("--set top_share: expected NAME=VALUE",)),
    ],
)
def test_goals_that_are_refused(job, workdir, capsys, options, words):
    arguments = ("policy", job.artifact, "--traffic", job.fresh, "--out", "n", *options)
    call(capsys, *arguments).refused(*words)
    assert not (workdir / "n").exists()


def test_a_one_sided_log_is_told_how_many_shadow_calls_to_buy(job, workdir, capsys):
    fresh = pd.read_parquet(job.fresh)
    write_log(workdir / "small.parquet", fresh[fresh["tier"] == "small"])
    goal = ("--set", "max_bad_downgrade=0.02", "--set", "confidence=0.95")
    arguments = ("policy", job.artifact, "--traffic", "small.parquet", "--out", "n", *goal)
    call(capsys, *arguments).refused("at least 149 more", "shadow calls", "min_quality")


def test_the_command_line_tells_all(job, workdir, capsys):
    goal = ("--set", "max_bad_downgrade=0.2")
    done = call(capsys, "policy", job.artifact, "--traffic", job.fresh, "--out", "n", *goal)
    assert done.code == 0, done.err
    assert "at most 20.00% of requests go to a tier that fails" in done.out
    assert "chosen again on 120 requests" in done.out
    done = call(capsys, "inspect", "n")
    assert "at most 20.00%" in done.out
    tiers = write_tiers(workdir, TIERS_TOML.replace("5.0", "9.0"))
    done = call(capsys, "reprice", "n", "--tiers", tiers, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["policy"]["promise"]["rule"] == "max_bad_downgrade"
    assert load_artifact(workdir / "n").predictor.tiers[1].input_usd_per_mtok == 9.0


def test_sessions_of_several_requests_bet(job, workdir, untracked):
    promise = resolve(job.artifact, job.fresh, MaxBadDowngrade(0.3), workdir / "new").policy.promise
    assert (promise.rule, promise.test) in {
        ("max_bad_downgrade", "betting"),
        ("max_bad_downgrade", "by definition"),
    }
