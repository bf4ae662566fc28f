"""Requests that a sample took more often than others teach; what is measured is of the traffic."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.traffic_makers import HARD, call, make_rows, one_sided, requests_of, write_log
from tests.traffic_makers import write_tiers as tiers_in
from training.ask.sampling import informative
from training.log.traffic import read_traffic
from training.measure.world import comparable, like_traffic, pick_world, valuable
from training.watch.two_sample import LEAST

EASY_CHANCE, HARD_CHANCE = 0.2, 0.8


def sampled(rows, seed=0):
    """The rows of requests that a sample took, hard ones four times as often."""
    rng = np.random.default_rng(seed)
    taken = {}
    for row in rows:
        name = row["request_id"]
        if name not in taken:
            hard = any(word in row["messages"] for word in HARD)
            chance = HARD_CHANCE if hard else EASY_CHANCE
            taken[name] = chance if rng.random() < chance else None
    kept = [row for row in rows if taken[row["request_id"]] is not None]
    return [row | {"sample_probability": taken[row["request_id"]]} for row in kept]


def fresh(n, seed):
    """A paired log, each request a session of its own, none of which other tests have seen."""
    rows = make_rows(n, seed, session=1)
    for row in rows:
        row["request_id"] = f"f{seed}-{row['request_id']}"
        row["session_id"] = f"f{seed}-{row['session_id']}"
    return rows


def test_what_is_measured_on_an_informative_sample_is_true_of_the_traffic(tmp_path):
    traffic = requests_of(make_rows(1500, session=1), tmp_path)
    small = traffic.score[:, 0]
    use = 0.02 + (1 - small) * np.linspace(0.5, 1.5, len(small))  # failures are taken most
    means, naive, shares = [], [], []
    for draw in range(300):
        sample = informative(use, 400, np.random.default_rng(draw))
        drawn = traffic.take(sample.rows)
        names = np.array([f"{draw}-{name}" for name in drawn.ids], dtype=object)
        drawn = replace(drawn, ids=names, sample_probability=sample.probability)
        kept = comparable(drawn)
        means.append(drawn.score[kept, 0].mean())
        naive.append(drawn.score[:, 0].mean())
        shares.append(kept.mean())
    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - small.mean()) < 4 * error
    assert np.mean(naive) < small.mean() - 0.1
    assert np.mean(shares) > 0.2  # the quarter that is drawn evenly, at least


def test_an_even_sample_is_used_whole_and_one_row_is_always_left(tmp_path):
    requests = requests_of(make_rows(60), tmp_path)
    even = replace(requests, sample_probability=np.full(60, 0.3))
    assert comparable(even).all()
    uneven = replace(requests, sample_probability=np.linspace(0.01, 1, 60))
    assert 1 <= comparable(uneven).sum() < 40
    assert (comparable(uneven) == comparable(uneven)).all()


def test_what_was_never_sampled_stays_beside_it(tmp_path):
    requests = requests_of(make_rows(60), tmp_path)
    chance = np.where(np.arange(60) < 30, np.nan, np.linspace(0.01, 1, 60))
    kept = comparable(replace(requests, sample_probability=chance))
    assert kept[:30].all() and not kept[30:].all()


def test_a_log_with_the_requests_that_the_sample_passed_over_is_whole(tmp_path):
    rows = one_sided(fresh(200, 7), 0.5)
    replays = [row | {"propensity": None} for row in sampled(fresh(200, 7))]
    known = {(row["request_id"], row["tier"]) for row in rows}
    replays = [row for row in replays if (row["request_id"], row["tier"]) not in known]
    requests = requests_of(rows + replays, tmp_path)
    assert requests.paired.sum() == len(replays)
    assert valuable(requests).all()
    assert like_traffic(requests, np.ones(200, bool)).all()
    assert comparable(requests).sum() < requests.paired.sum()
    world = pick_world(requests, 60)
    assert not world.paired and len(world.rows) == 200


def test_evaluate_measures_the_traffic_that_was_sampled(job, workdir, capsys):
    rows = sampled(fresh(3000, 11))
    log = write_log(workdir / "log.parquet", rows)
    made = call(capsys, "evaluate", job.artifact, "--traffic", log, "--json", workdir / "r.json")
    assert made.code == 0, made.err
    report = json.loads((workdir / "r.json").read_text())
    of_sample = pd.DataFrame(rows).query("tier == 'small'")["score"].mean()
    cheapest = report["methods"]["always cheapest"]["quality"]["value"]
    assert of_sample < 0.4
    assert cheapest == pytest.approx(0.55, abs=0.06)
    aside = len(rows) // 2 - report["rows"]
    assert f"{aside} more, which a sample took more often than others" in made.out


def test_training_learns_from_all_and_keeps_a_baseline_of_the_traffic(workdir, capsys):
    rows = sampled(fresh(2400, 12))
    write_log(workdir / "log.parquet", rows)
    tiers_in(workdir)
    train = ("--traffic", "log.parquet", "--tiers", "tiers.toml", "--out", "a")
    shares = ("--split", "50/40/10", "--policy", "min_quality=0.9")
    made = call(capsys, "train", *train, *shares)
    assert made.code == 0, made.err
    assert "which a sample took more often than others, are learned from only" in made.out
    training = json.loads((workdir / "a" / "manifest.json").read_text())["training"]
    assert training["rows"]["fit"] == pytest.approx(len(rows) / 4, rel=0.01)
    write_log(workdir / "newer.parquet", fresh(1000, 13))
    calm = call(capsys, "drift", "--reference", "a", "--traffic", "newer.parquet", "--json")
    assert calm.code == 0, calm.out
    told = json.loads(calm.out)
    assert {found["kind"] for found in told["findings"]} >= {"prompts"}
    assert LEAST < told["reference_rows"] < len(rows) / 2 * 0.6
    other = sampled(fresh(1500, 14))
    write_log(workdir / "again.parquet", other)
    assert call(capsys, "drift", "--reference", "a", "--traffic", "again.parquet").code == 0
    bare = pd.DataFrame(other).drop(columns="sample_probability")
    write_log(workdir / "again.parquet", bare)
    assert call(capsys, "drift", "--reference", "a", "--traffic", "again.parquet").code == 1


def test_ingest_keeps_the_chance_and_older_tables_have_none(workdir, capsys):
    rows = sampled(fresh(40, 15))
    write_log(workdir / "replayed.parquet", rows)
    bare = [{k: v for k, v in row.items() if k != "sample_probability"} for row in fresh(9, 16)]
    write_log(workdir / "old.parquet", bare)
    for source in ("old.parquet", "replayed.parquet"):
        more = ("--format", "table", "--out", "t.parquet")
        assert call(capsys, "ingest", source, *more).code == 0
    chance = read_traffic(workdir / "t.parquet").frame["sample_probability"]
    assert chance.isna().sum() == len(bare)
    assert set(chance.dropna()) == {EASY_CHANCE, HARD_CHANCE}
    told = call(capsys, "inspect", "t.parquet").out
    assert "a sample took requests with probabilities from 0.2 to 0.8" in told
    write_log(workdir / "bad.parquet", [row | {"sample_probability": 0.0} for row in rows])
    train = ("--traffic", "bad.parquet", "--tiers", tiers_in(workdir))
    refused = call(capsys, "train", *train, "--out", "a")
    refused.refused("sample_probability", "outside (0, 1]")
