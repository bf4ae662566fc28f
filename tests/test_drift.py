"""Drift: what changed is named with its size and direction; what did not raises no alarm."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from router.artifact import load_artifact
from tests.traffic_makers import TIERS, call, make_rows, write_log, write_tiers
from training.config import Config
from training.decide.goals import MinQuality
from training.learn import heads
from training.train import train
from training.watch import drift
from training.watch.baseline import FITTED, UNDECIDED, Sample, carried, fetch_baseline
from training.watch.two_sample import compare

NAMES = ("small", "large")


def a_sample(n: int, seed: int, *, lower: float = 0.0, shift: float = 0.0) -> Sample:
    """Requests without sessions: probabilities that are true, but for `lower` on the small tier."""
    rng = np.random.default_rng(seed)
    place = rng.normal(0, 1, (n, 64))
    place[:, 0] += shift
    place /= np.linalg.norm(place, axis=1, keepdims=True)
    p = np.column_stack([np.clip(0.6 + place[:, 1], 0.05, 0.95), np.full(n, 0.9)])
    score = (rng.random((n, 2)) < p - np.array([lower, 0.0])).astype(float)
    usd = np.column_stack([np.full(n, 0.1), np.full(n, 1.0)]) * rng.gamma(2, 0.5, (n, 1))
    return Sample(place.astype(np.float32), p, score, usd, (p[:, 0] < 0.6).astype(np.int64))


def joined(*samples: Sample) -> Sample:
    names = Sample.__dataclass_fields__
    return Sample(*(np.concatenate([getattr(one, name) for one in samples]) for name in names))


def due(reference: Sample, recent: Sample) -> set[str]:
    return {found.kind for found in compare(reference, recent, NAMES) if found.due}


def test_alarms_without_drift_are_rare() -> None:
    """At most 5 % of 60 looks, within two standard errors."""
    alarms = sum(bool(due(a_sample(2000, 2 * s), a_sample(1000, 2 * s + 1))) for s in range(60))
    assert alarms <= 3 + 2 * np.sqrt(60 * 0.05 * 0.95)


def test_few_rows_raise_no_more_alarms_than_many() -> None:
    """Of a hundred rows in 16 dimensions χ² finds a change in every seventh look."""
    alarms = 0
    for seed in range(200):
        looks = [a_sample(n, 2 * seed + k) for k, n in enumerate((100, 1500))]
        old, new = (  # so that the tests of prompts and of the mix are left
            replace(
                look,
                p=look.p[:, 1:],
                score=np.full((len(look), 1), np.nan),
                usd=np.zeros((len(look), 1)),
                tier=np.zeros(len(look), np.int64),
            )
            for look in looks
        )
        means, mix = compare(old, new, ("large",))
        assert (means.kind, mix.kind) == ("prompts", "mix")
        alarms += means.p_value < 0.05  # two tests, so below 2.5 % by itself
    assert alarms <= 5 + 2 * np.sqrt(200 * 0.025 * 0.975)


def scored(score: np.ndarray) -> Sample:
    """Requests of one tier, whose scores alone are there to be compared."""
    n = len(score)
    place, zero = np.zeros((n, 64), np.float32), np.zeros((n, 1))
    return Sample(place, np.full((n, 1), 0.97), score[:, None], zero, np.zeros(n, np.int64))


def test_a_tier_that_hardly_ever_fails_raises_no_more_alarms() -> None:
    """One in a hundred fails: of 120 recent rows none in three looks of ten."""
    alarms = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        old, new = (scored((rng.random(n) >= 0.01) * 1.0) for n in (2000, 120))
        alarms += any(one.p_value < 0.05 for one in compare(old, new, ("large",)))
    assert alarms <= 15 + 2 * np.sqrt(300 * 0.05 * 0.95)


def test_a_tier_that_always_sufficed_and_never_does_now_is_found() -> None:
    before = scored(np.ones(200))
    found = {one.kind for one in compare(before, scored(np.zeros(150)), ("large",)) if one.due}
    assert found == {"labels", "calibration"}
    assert not any(one.due for one in compare(before, scored(np.ones(150)), ("large",)))


def test_rows_that_the_space_was_fitted_on_are_no_measure_of_new_prompts() -> None:
    fitted, chosen = a_sample(3000, 0, shift=3.0), a_sample(1000, 1)
    fitted = replace(fitted, tier=np.full(3000, FITTED))
    reference = joined(fitted, chosen)
    assert "prompts" not in due(reference, a_sample(2000, 2))
    assert "prompts" in due(reference, a_sample(2000, 2, shift=3.0))
    # With another operating point, which made no choice on any row, too.
    again = carried(reference, None)
    assert set(again.tier) == {FITTED, UNDECIDED}
    assert "prompts" not in due(again, a_sample(2000, 2))
    assert "prompts" in due(again, a_sample(2000, 2, shift=3.0))


def test_what_changed_is_named() -> None:
    reference = a_sample(6000, 0)
    assert {"labels", "calibration"} <= due(reference, a_sample(2000, 1, lower=0.08))
    assert "prompts" in due(reference, a_sample(2000, 1, shift=3.0))
    dearer = a_sample(2000, 1)
    dearer = Sample(dearer.place, dearer.p, dearer.score, 1.3 * dearer.usd, dearer.tier)
    found = {one.kind: one for one in compare(reference, dearer, NAMES)}
    assert found["cost"].due
    assert found["cost"].size == pytest.approx(0.3, abs=0.1)
    assert not found["labels"].due


def test_a_change_too_small_to_matter_is_no_alarm() -> None:
    found = compare(a_sample(200_000, 0), a_sample(200_000, 1, lower=0.01), NAMES)
    labels = next(one for one in found if one.name == "score of small")
    assert labels.p_value < 0.05
    assert not labels.due


def test_few_rows_are_not_tested() -> None:
    assert compare(a_sample(50, 0), a_sample(50, 1), NAMES) == ()


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder with a log, tiers and an artifact `a` trained on them, for all tests to copy."""
    folder = tmp_path_factory.mktemp("trained")
    log, goal = write_log(folder / "log.parquet", make_rows(1200, session=1)), MinQuality(0.9)
    write_tiers(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "MAX_ROUNDS", 20)
        train(log, TIERS, folder / "a", Config(policy=goal), (0.75, 0.15, 0.1), 0, "static")
    return folder


@pytest.fixture
def trained(once, workdir, monkeypatch):
    """A copy of that folder to work in."""
    shutil.copytree(once, workdir, dirs_exist_ok=True)
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)


def test_what_changed_is_named_and_a_lost_baseline_is_refused(
    trained, workdir, capsys, monkeypatch
):
    rows = pd.DataFrame(make_rows(600, 7, session=1))
    rows["request_id"] = "new-" + rows["request_id"]
    prices = {tier.name: (tier.input_usd_per_mtok, tier.output_usd_per_mtok) for tier in TIERS}
    paid = np.array([prices[name] for name in rows["tier"]])
    rows["cost_usd"] = (rows[["input_tokens", "output_tokens"]].to_numpy() * paid).sum(axis=1) / 1e6
    write_log(workdir / "same.parquet", rows)
    calm = call(capsys, "drift", "--reference", "a", "--traffic", "same.parquet")
    assert calm.code == 0, calm
    assert "nothing is due" in calm.out
    rows.loc[rows["tier"] == "large", "cost_usd"] *= 0.8
    rows.loc[rows["tier"] == "small", "model"] = "vendor/small-2"
    write_log(workdir / "other.parquet", rows)
    other = ("drift", "--reference", "a", "--traffic", "other.parquet")
    told = call(capsys, *other, "--json", "--out", "pages/drift.html")
    assert told.code == 1
    page = (workdir / "pages" / "drift.html").read_text(encoding="utf-8")
    assert "<h1>Retraining is due: cost, prices and models changed.</h1>" in page
    assert "−20.0\u202f% of the price" in page
    assert page.index("retrain</td>") < page.index("not shown</td>")
    found = {one["kind"]: one for one in json.loads(told.out)["findings"] if one["due"]}
    assert found["prices"]["size"] == pytest.approx(-0.2)
    assert "vendor/small-2" in found["models"]["name"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir}/another.db")
    call(capsys, "drift", "--reference", "a", "--traffic", "same.parquet").refused("baseline")
    assert not (workdir / "another.db").exists()


def test_rows_that_the_artifact_was_fitted_on_are_no_recent_ones(trained, workdir, capsys):
    """As in a table that jobs append to: of these its heads are surer than of any others."""
    old, new = make_rows(1200, session=1), make_rows(600, 7, session=1)
    new = [row | {name: f"new-{row[name]}" for name in ("request_id", "session_id")} for row in new]
    write_log(workdir / "new.parquet", new)
    write_log(workdir / "both.parquet", [*old, *new])
    told = [
        json.loads(call(capsys, "drift", "--reference", "a", "--traffic", name, "--json").out)
        for name in ("new.parquet", "both.parquet")
    ]
    rows = load_artifact(workdir / "a").manifest["training"]["rows"]
    assert [one["recent_rows"] for one in told] == [600, 600 + rows["test"]]
    left = f"{rows['fit'] + rows['choose']} requests left out: the artifact was fitted or chosen on"
    assert [note.startswith(left) for note in told[1]["notes"]] == [True]
    drift = ("drift", "--reference", "a", "--traffic", "old.parquet")
    write_log(workdir / "old.parquet", old[: 2 * 800])
    call(capsys, *drift).refused("at least 100", "left out: the artifact was fitted or chosen on")


def test_the_order_of_the_rows_says_nothing(trained, workdir, capsys):
    rows = pd.DataFrame(make_rows(600, 7, session=3))
    rows["request_id"] = "new-" + rows["request_id"]
    write_log(workdir / "one.parquet", rows)
    write_log(workdir / "two.parquet", rows.sample(frac=1.0, random_state=0))
    one, two = (
        call(capsys, "drift", "--reference", "a", "--traffic", f"{name}.parquet", "--json")
        for name in ("one", "two")
    )
    assert json.loads(one.out) == json.loads(two.out)


def test_much_traffic_like_a_small_log_is_no_drift(workdir, capsys, monkeypatch):
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)
    rng, rows = np.random.default_rng(0), pd.DataFrame(make_rows(4000, session=1))
    words = np.array(["".join(rng.choice(list("aeioulnrst"), 6)) for _ in range(3000)])
    texts = [" ".join(rng.choice(words, 15)) for _ in range(4000)]
    rows["messages"] = [f"{texts[i // 2]} {old}" for i, old in enumerate(rows["messages"])]
    write_log(workdir / "log.parquet", rows[:1600])
    write_log(workdir / "same.parquet", rows[1600:])
    write_tiers(workdir)
    asked = ("--traffic", "log.parquet", "--tiers", "tiers.toml", "--out", "a")
    assert call(capsys, "train", *asked, "--split", "60/30/10").code == 0
    calm = call(capsys, "drift", "--reference", "a", "--traffic", "same.parquet")
    assert calm.code == 0, calm
    assert "told apart by a classifier" in calm.out


def test_prompts_that_cannot_be_compared_are_told(trained, workdir, capsys, monkeypatch):
    def fitted_on_all(artifact):
        known = fetch_baseline(artifact)
        return replace(known, tier=np.full(len(known), FITTED))

    monkeypatch.setattr(drift, "fetch_baseline", fitted_on_all)
    rows = pd.DataFrame(make_rows(600, 7, session=1))
    rows["request_id"] = "new-" + rows["request_id"]
    write_log(workdir / "same.parquet", rows)
    told = call(capsys, "drift", "--reference", "a", "--traffic", "same.parquet", "--json")
    found = json.loads(told.out)
    assert "prompts" not in {one["kind"] for one in found["findings"]}
    assert {one["kind"] for one in found["findings"]} <= {"labels", "calibration", "models"}
    for what in ("prompts are", "probabilities, mix and cost are"):
        assert any(f"{what} not compared: 0 requests" in note for note in found["notes"])


def test_long_sessions_count_once_and_too_few_are_told(trained, workdir, capsys):
    """Of 600 requests in 60 sessions 60 could be compared: that is no *nothing is due*."""
    for length, name in ((10, "few.parquet"), (5, "enough.parquet")):
        rows = pd.DataFrame(make_rows(600, 7, session=length))
        rows["request_id"] = "new-" + rows["request_id"]
        write_log(workdir / name, rows)
    drift = ("drift", "--reference", "a", "--traffic")
    call(capsys, *drift, "few.parquet").refused("60 requests, one of each session", "at least 100")
    told = call(capsys, *drift, "enough.parquet").out
    assert "120 recent requests" in told
    assert "one of each session" in told


def test_the_rows_of_both_later_parts_are_in_the_baseline(trained, workdir):
    artifact = load_artifact(workdir / "a")
    sizes = artifact.manifest["training"]["rows"]  # each request is a session of its own
    known = fetch_baseline(artifact)
    assert known.unfitted.sum() == known.decided.sum() == sizes["choose"] + sizes["test"]
    assert len(known) == sum(sizes.values())


def test_another_goal_on_the_same_log_is_another_baseline(trained, workdir, capsys):
    """The evidence is the same, what the operating points make of it is not."""
    first = load_artifact(workdir / "a")
    chosen = fetch_baseline(first).tier
    again = ("--traffic", "log.parquet", "--tiers", "tiers.toml", "--out", "b")
    assert call(capsys, "train", *again, "--policy", "min_quality=0.6").code == 0
    second = load_artifact(workdir / "b")
    assert second.manifest["evidence"] == first.manifest["evidence"]
    assert (fetch_baseline(second).tier != chosen).any()
    np.testing.assert_array_equal(fetch_baseline(first).tier, chosen)


def test_another_operating_point_has_a_baseline_too(trained, workdir, capsys):
    """After `policy`, `reprice` at the same prices, and `reprice` at others."""
    for name, seed in (("newer", 7), ("newest", 9)):
        rows = pd.DataFrame(make_rows(600, seed, session=1))
        rows["request_id"] = f"{name}-" + rows["request_id"]
        rows["session_id"] = f"{name}-" + rows["session_id"]
        write_log(workdir / f"{name}.parquet", rows)
    goal = ("--traffic", "newer.parquet", "--set", "min_quality=0.8", "--out", "b")
    assert call(capsys, "policy", "a", *goal).code == 0
    assert call(capsys, "reprice", "a", "--tiers", "tiers.toml", "--out", "c").code == 0
    text, price = (workdir / "tiers.toml").read_text(), "put_usd_per_mtok = "
    (workdir / "dearer.toml").write_text(text.replace(price, f"{price}2"))
    assert call(capsys, "reprice", "a", "--tiers", "dearer.toml", "--out", "d").code == 0
    kinds = {}
    for name in "abcd":
        told = call(capsys, "drift", "--reference", name, "--traffic", "newest.parquet", "--json")
        assert told.code == 0, (name, told)
        kinds[name] = {one["kind"] for one in json.loads(told.out)["findings"]}
    assert kinds["a"] == kinds["b"] == kinds["c"] >= {"mix", "cost", "probabilities", "labels"}
    assert kinds["a"] - kinds["d"] == {"mix", "cost", "probabilities"}  # of another price
