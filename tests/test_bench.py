"""`suffice bench`: the same rows for all, peers at their best, verdicts that can be lost."""

import json
import sys

import numpy as np
import pytest

from router.prompt import Prompt
from router.tier import Tier
from tests.traffic_makers import TIERS, call, make_rows, one_sided, write_log, write_tiers
from training.bench import bench, game
from training.bench.factorisation import fit_factorisation
from training.bench.peers import PEERS, FittedPeer, Peer, fit_peer
from training.learn import heads
from training.learn.embedders import resolve_embedder
from training.log.requests import gather
from training.log.traffic import read_traffic
from training.measure.compare import ALONG_CURVE, Comparison
from training.measure.curve import order_walk
from training.measure.intervals import Interval, bootstrap, values
from training.measure.metrics import curve_metrics

BY_NAME = {peer.name: peer for peer in PEERS}


def apgr(order, quality):
    paid = np.tile([1.0, 2.0], (len(quality), 1))
    return float(values(curve_metrics(order_walk(order), quality, paid), len(quality))["apgr"])


@pytest.fixture(scope="module")
def learnable():
    """800 embeddings; the large tier gains where their first coordinate is above 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 12)).astype(np.float32)
    gains = x[:, 0] > 0
    chance = np.stack([np.where(gains, 0.2, 0.9), np.full(800, 0.92)], axis=1)
    return x, (rng.random((800, 2)) < chance).astype(float), gains


@pytest.mark.parametrize("name", BY_NAME)
def test_every_peer_learns_what_is_there(name, learnable):
    x, score, _ = learnable
    peer = BY_NAME[name]
    fewer = Peer(peer.name, peer.source, peer.fit, peer.settings[-2:], {"trees": 20})
    fitted = fit_peer(fewer, x[:600], score[:600], np.arange(600), 0)
    worth = fitted.worth(x[600:])
    assert worth.shape == (200, 2)
    assert fitted.settings in fewer.settings
    assert apgr(worth[:, 1] - worth[:, 0], score[600:]) > 0.65
    one = fitted.worth(x[600:601])
    np.testing.assert_allclose(one[0, 1] - one[0, 0], worth[0, 1] - worth[0, 0], rtol=1e-3)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_tier_that_never_fails_is_no_obstacle(name, learnable):
    x, score, gains = learnable
    sure = np.column_stack([score[:, 0], np.ones(800)])
    peer = BY_NAME[name]
    settings = {**peer.settings[2], "trees": 20}
    worth = peer.fit(x, sure, settings, 0)(x)
    assert np.isfinite(worth).all()
    gain = worth[:, 1] - worth[:, 0]
    assert gain[gains].mean() > gain[~gains].mean() + 0.05


def test_tuning_takes_what_other_rows_favour(learnable):
    x, score, _ = learnable
    asked: list[int] = []

    def fit(embedding, outcome, settings, seed):
        asked.append(len(embedding))
        known = np.arange(2.0)  # a worth that is right on average, or off by a lot
        return lambda rows: np.tile(known * settings["gap"], (len(rows), 1))

    right = float((score[:, 1] - score[:, 0]).mean())
    peer = Peer("fixed", "", fit, ({"gap": -1.0}, {"gap": right}, {"gap": 2.0}))
    assert fit_peer(peer, x, score, np.arange(800), 0).settings == {"gap": right}
    assert max(asked[:-1]) < 800  # no candidate was judged on rows it was fitted on
    assert asked[-1] == 800


def test_groups_stay_in_one_fold(learnable):
    x, score, _ = learnable
    group = np.arange(800) // 40

    def fit(embedding, outcome, settings, seed):
        seen = {int(np.flatnonzero((x == row).all(axis=1))[0]) // 40 for row in embedding}

        def worth(rows):
            for row in rows:
                assert int(np.flatnonzero((x == row).all(axis=1))[0]) // 40 not in seen
            return np.zeros((len(rows), 2))

        return worth

    fit_peer(Peer("checks", "", fit, ({"a": 1}, {"a": 2})), x, score, group, 0)


def test_factorisation_gives_expected_differences_of_many_tiers():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 5)).astype(np.float32)
    chance = np.stack([np.full(4000, 0.3), np.where(x[:, 1] > 0, 0.8, 0.2), np.full(4000, 0.9)], 1)
    score = (rng.random((4000, 3)) < chance).astype(float)
    worth = fit_factorisation(x, score, 1.0, 0)(x)
    np.testing.assert_array_equal(worth[:, 2], 0.0)
    high = x[:, 1] > 1
    low = x[:, 1] < -1
    assert worth[high, 1].mean() == pytest.approx(-0.1, abs=0.1)
    assert worth[low, 1].mean() == pytest.approx(-0.7, abs=0.12)
    assert worth[:, 0].mean() == pytest.approx(-0.6, abs=0.05)


def test_the_same_rows_in_two_seeds_are_no_more_evidence_than_once():
    rng = np.random.default_rng(2)
    quality = (rng.random((300, 2)) < [0.5, 0.8]).astype(float)
    part = curve_metrics(order_walk(rng.random(300)), quality, np.tile([1.0, 2.0], (300, 1)))
    every = np.arange(300)
    found = bootstrap({"once": part, "twice": bench._mean([part, part], [every, every])}, 300)
    assert found.interval("twice", "apgr") == found.interval("once", "apgr")


@pytest.fixture
def quick(monkeypatch):
    """Little trees, two peers, lengths for LiteLLM's rules: what is tested is the comparison."""
    monkeypatch.setattr(heads, "MAX_ROUNDS", 10)
    monkeypatch.setattr(game, "PEERS", (BY_NAME["linear"], BY_NAME["matrix factorisation"]))
    monkeypatch.setattr(game, "TIMED", 3)
    monkeypatch.setattr(bench, "complexity", lambda: lambda prompt: float(len(prompt.text)))


def prepared(folder, rows):
    return "--traffic", write_log(folder / "log.parquet", rows), "--tiers", write_tiers(folder)


def test_one_run_gives_table_figures_and_json(workdir, capsys, quick):
    log = prepared(workdir, make_rows(500, seed=3, session=2, timed=False))
    asked = ("--seeds", 2, "--out", "bench", "--json", "bench.json")
    done = call(capsys, "bench", *log, *asked)
    assert done.code == 0, done
    for step in ("seed 0: Suffice, static", "seed 1: linear", "intervals"):
        assert step in done.err
    for word in ("Suffice, static", "linear", "matched random", "oracle", "against the best peer"):
        assert word in done.out
    told = json.loads((workdir / "bench.json").read_text())
    assert told["requests"] == 500
    assert told["trained"] + told["tested"] == 500
    assert told["headline"] == "apgr"
    methods = told["methods"]
    assert methods["matched random"]["metrics"]["apgr"]["value"] == 0.5
    oracle = methods["oracle"]["metrics"]["apgr"]["value"]
    peers = ("linear", "matrix factorisation")
    for name in ("Suffice, static", *peers):
        found = methods[name]
        assert found["microseconds"] > 0
        seeds = [seed["apgr"] for seed in found["seeds"]]
        assert found["metrics"]["apgr"]["value"] == pytest.approx(np.mean(seeds))
        assert 0.6 < found["metrics"]["apgr"]["value"] < oracle
    assert told["best_peer"] == max(peers, key=lambda n: methods[n]["metrics"]["apgr"]["value"])
    for other in (*peers, "matched random", "oracle"):
        gap = told["suffice_minus"]["Suffice, static"][other]["apgr"]
        ours, theirs = (methods[n]["metrics"]["apgr"]["value"] for n in ("Suffice, static", other))
        assert gap["value"] == pytest.approx(ours - theirs)
        assert gap["low"] <= gap["value"] <= gap["high"]
    assert all("c" in chosen for chosen in methods["linear"]["settings"])
    assert (workdir / "bench" / "table.md").read_text().count("\n| ") == 2 + 6
    for figure in ("cost_quality.png", "apgr.png"):
        assert (workdir / "bench" / figure).read_bytes()[:4] == b"\x89PNG"


def test_a_prompt_that_is_asked_again_is_no_more_evidence(workdir, capsys, quick, monkeypatch):
    rows = make_rows(250, seed=3, session=1, timed=False)
    again = [row | {"request_id": f"x{row['request_id']}", "session_id": None} for row in rows]
    seen = {}

    def watched(estimators, n, *, groups, resamples):
        seen.update(rows=n, units=len(np.unique(groups)))
        return bootstrap(estimators, n, groups=groups, resamples=resamples)

    monkeypatch.setattr(bench, "bootstrap", watched)
    done = call(capsys, "bench", *prepared(workdir, [*rows, *again]), "--seeds", 1)
    assert done.code == 0, done
    assert 0 < seen["units"] <= seen["rows"] / 2


def test_an_uneven_sample_teaches_whole_and_is_tested_in_part(workdir, capsys, quick):
    rows = make_rows(500, seed=4, session=1, timed=False)
    for number, row in enumerate(rows):
        row["sample_probability"] = 0.9 if number // 2 % 2 else 0.3
    asked = ("--seeds", 1, "--json", "bench.json")
    done = call(capsys, "bench", *prepared(workdir, rows), *asked)
    assert done.code == 0, done
    tested = json.loads((workdir / "bench.json").read_text())["tested"]
    assert tested == pytest.approx(150 * 2 / 3, abs=25)  # of the odd ones a third


def test_limits_that_nobody_knows_are_not_numbers():
    found = Comparison("kNN", ALONG_CURVE["apgr"], Interval(0.02, 0.02, np.nan, np.nan, 0.3))
    assert found.shown == ("+0.020", "unknown")
    assert found.answer == "not shown"
    gone = Comparison("kNN", ALONG_CURVE["apgr"], Interval(np.nan, np.nan, np.nan, np.nan, 1.0))
    assert gone.shown == ("–", "unknown")
    assert gone.answer == "does not exist"


def test_a_better_peer_is_shown_to_be_better(workdir, capsys, quick, monkeypatch):
    log = prepared(workdir, make_rows(500, seed=4, session=1, timed=False))
    requests = gather(read_traffic(log[1]).frame, TIERS)
    embedder = resolve_embedder("static")
    known = {
        embedder.embed(embedder.tokenize(prompt.text)).tobytes(): score
        for prompt, score in zip(requests.prompts, requests.score, strict=True)
    }

    def clairvoyant(embedding, score, settings, seed):
        return lambda asked: np.array([known[row.tobytes()] for row in asked])

    peers = (Peer("clairvoyant", "", clairvoyant, ({},)), BY_NAME["linear"])
    monkeypatch.setattr(game, "PEERS", peers)
    done = call(capsys, "bench", *log, "--seeds", 1, "--json", "bench.json")
    assert done.code == 0, done
    told = json.loads((workdir / "bench.json").read_text())
    assert told["best_peer"] == "clairvoyant"
    assert told["better_than_best_peer"] == {"Suffice, static": "no"}
    assert told["suffice_minus"]["Suffice, static"]["clairvoyant"]["apgr"]["high"] < 0
    assert "clairvoyant: APGR -" in done.out and ": worse" in done.out


def test_peers_never_see_a_test_row(workdir, capsys, quick, monkeypatch):
    log = prepared(workdir, make_rows(400, seed=5, session=1, timed=False))
    fitted_on, asked_of = [], []

    def watched(peer, embedding, score, group, seed):
        fitted_on.append({row.tobytes() for row in embedding})

        def worth(asked):
            asked_of.append({row.tobytes() for row in asked})
            return np.zeros((len(asked), 2))

        return FittedPeer(worth, {})

    monkeypatch.setattr(game, "fit_peer", watched)
    assert call(capsys, "bench", *log, "--seeds", 1).code == 0
    assert len(fitted_on) == 2
    assert max(len(rows) for rows in asked_of) > 100
    assert not set.union(*fitted_on) & set.union(*asked_of)


def test_beside_a_top_tier_that_never_scores_nothing_is_printed_as_inf(workdir, capsys, quick):
    rows = make_rows(400, 6, easy=(0.9, 0.0), hard=(0.3, 0.0), session=1, timed=False)
    asked = ("--seeds", 1, "--out", "bench", "--json", "bench.json")
    done = call(capsys, "bench", *prepared(workdir, rows), *asked)
    assert done.code == 0, done
    assert "– of the top tier’s quality" in " ".join(done.out.split())
    assert not {"inf", "inf%", "nan", "nan%"} & set(done.out.split())


def test_a_top_tier_that_is_worse_is_compared_by_aiq(workdir, capsys, quick):
    """There is no gap to recover, so no APGR; the first peer was called the best one by it."""
    rows = make_rows(400, 7, easy=(0.9, 0.3), hard=(0.4, 0.6), session=1, timed=False)
    done = call(capsys, "bench", *prepared(workdir, rows), "--seeds", 1, "--json", "bench.json")
    assert done.code == 0, done
    told = json.loads((workdir / "bench.json").read_text())
    assert told["headline"] == "aiq"
    assert told["better_than_best_peer"]["Suffice, static"] in ("yes", "no", "not shown")
    peers = ("linear", "matrix factorisation")
    value = {name: told["methods"][name]["metrics"]["aiq"]["value"] for name in peers}
    assert told["best_peer"] == max(peers, key=value.__getitem__)


def test_more_than_two_tiers_are_compared_by_aiq(workdir, capsys, quick):
    three = (*TIERS[:1], Tier("middle", "vendor/m-1", 1.0, 3.0), *TIERS[1:])
    chances = {"easy": (0.95, 0.95, 0.97), "hard": (0.1, 0.5, 0.95)}
    rows = make_rows(400, 6, tiers=three, session=1, timed=False, **chances)
    middle = '[[tier]]\nname = "middle"\nmodel = "vendor/m-1"\ninput_usd_per_mtok = 1.0\n'
    head, top = write_tiers(workdir).read_text().rsplit("[[tier]]", 1)
    tiers = write_tiers(workdir, f"{head}{middle}output_usd_per_mtok = 3.0\n[[tier]]{top}")
    log = ("--traffic", write_log(workdir / "log.parquet", rows), "--tiers", tiers)
    done = call(capsys, "bench", *log, "--seeds", 1, "--out", "bench", "--json", "bench.json")
    assert done.code == 0, done
    told = json.loads((workdir / "bench.json").read_text())
    assert told["headline"] == "aiq"
    assert told["methods"]["linear"]["metrics"]["apgr"]["value"] is None
    assert "APGR by cost" in done.out and " APGR │" not in done.out
    assert told["methods"]["Suffice, static"]["metrics"]["aiq"]["value"] > 0
    assert any("two tiers" in note for note in told["notes"])
    assert (workdir / "bench" / "aiq.png").is_file()


def test_without_litellm_it_is_said_to_be_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    for name in [name for name in sys.modules if name.startswith("litellm.")]:
        monkeypatch.delitem(sys.modules, name)
    rules, notes = bench._rules(2)
    assert rules is None
    assert "left out" in notes[0]
    assert "suffice[litellm]" in notes[0]


def test_litellm_finds_proofs_more_complex_than_greetings():
    pytest.importorskip("litellm.router_strategy.complexity_router")
    rules, notes = bench._rules(2)
    assert notes == ()
    hard = "Prove the theorem step by step, then analyse the complexity of the algorithm in Python."
    assert rules(Prompt.of(hard)) > rules(Prompt.of("Hello, how are you?"))


def test_one_sided_traffic_is_refused(workdir, capsys):
    rows = one_sided(make_rows(400, seed=8), 0.2)
    done = call(capsys, "bench", *prepared(workdir, rows))
    done.refused("0 of 400", "every tier's score", "suffice replay")


def test_without_test_rows_it_is_refused(workdir, capsys):
    done = call(capsys, "bench", *prepared(workdir, make_rows(300)), "--split", "85/15/0")
    done.refused("--split")
