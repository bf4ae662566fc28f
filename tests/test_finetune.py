"""Fine-tuning: through the command a user types, on a transformer small enough for a test."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from time import sleep

import numpy as np
import pytest
from tokenizers import models

from router import Router
from router.artifact import load_artifact
from router.onnx_embedder import OnnxEmbedder
from tests.tiny_bert import SPECIAL, framing_tokenizer, save_bert
from tests.traffic_makers import (
    EASY,
    HARD,
    PLACES,
    QUICK,
    TIERS_TOML,
    WORDS,
    call,
    make_rows,
    write_log,
)
from training.learn import finetune as job
from training.learn.finetune import Clock
from training.learn.tuner import Examples, Tuner
from training.measure.intervals import Interval
from training.measure.members import Worth

for package in ("torch", "onnx", "onnxruntime", "sentence_transformers"):
    pytest.importorskip(package, reason="the extra encoders is not installed")

N = 600


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A BERT of 32 dimensions that knows the words of the made-up logs, with random weights."""
    known = {word: i for i, word in enumerate([*SPECIAL, *EASY, *HARD, *PLACES, *WORDS])}
    tokenizer = framing_tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    return save_bert(tmp_path_factory.mktemp("model"), tokenizer, 256)


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("SUFFICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("training.learn.tuner.BODY_RATE", 3e-3)  # of two tiny layers
    monkeypatch.setattr("training.learn.tuner.HEAD_RATE", 3e-3)
    monkeypatch.setattr("training.train.STANDARD", QUICK)
    monkeypatch.setattr("training.learn.heads.MAX_ROUNDS", 30)
    monkeypatch.setattr("training.record.log_run", lambda *_: ("no run", "no store"))


@pytest.fixture
def command(workdir, model, monkeypatch):
    monkeypatch.setattr("training.learn.embedders._minilm", lambda: model)
    write_log(workdir / "log.parquet", make_rows(N, seed=3, hard=(0.05, 0.97)))
    (workdir / "tiers.toml").write_text(TIERS_TOML)
    words = ["train", "--traffic", "log.parquet", "--tiers", "tiers.toml", "--out", "artifact"]
    return [*words, "--finetune", "--policy", "min_quality=0.9"]


@pytest.fixture
def kept(monkeypatch):
    """On these logs n-grams know all there is to know: the encoder is kept whatever it adds."""
    adds = Interval(1.0, 1.0, 0.5, 1.5, 0.0)
    monkeypatch.setattr("training.fit.worth_of", lambda *_: (Worth("encoder", adds, None),))


@pytest.mark.usefixtures("kept")
def test_the_encoder_learns_is_served_and_is_made_once(workdir, command, monkeypatch, capsys):
    done = call(capsys, *command)
    assert done.code == 0, done.err
    assert "encoder fine-tuned on" in done.out and "then on all" in done.out
    artifact = load_artifact(workdir / "artifact")
    assert artifact.manifest["protocol"] == 4
    assert artifact.manifest["embedder"] == {"kind": "static"}
    predictor = artifact.predictor
    assert len(predictor.blend.level) == 4 and predictor.blend.gap[3] > 0.05
    router = Router.load(workdir / "artifact")
    easy = router.route("please explain the capital of france")
    hard = router.route("please explain the eigenvalue of france")
    assert easy.reason == hard.reason == "policy"
    assert easy.p_suffices["small"] > hard.p_suffices["small"] + 0.3
    told = call(capsys, "explain", "artifact", "the eigenvalue of france", "--json")
    assert told.code == 0 and "reading as a whole" in told.out

    first = (workdir / "artifact" / "heads.npz").read_bytes()
    kept = {file.name for file in (workdir / "cache").rglob("last/*")}
    assert kept == {"model.onnx", "tokenizer.json", "embedder.json"}  # not what torch wrote for it
    monkeypatch.setattr(Tuner, "epoch", None)  # who learns again, fails
    embed = OnnxEmbedder.embed
    monkeypatch.setattr(OnnxEmbedder, "embed", lambda *known: sleep(0.003) or embed(*known))
    done = call(capsys, *command)
    assert done.code == 0, done.err
    takes = re.search(r"encoder (\d+) µs", done.out)
    assert takes is not None and int(takes[1]) >= 3000  # as served, not as looked up
    assert (workdir / "artifact" / "heads.npz").read_bytes() == first


@pytest.mark.usefixtures("kept")
def test_beside_a_transformer_a_copy_of_it_is_fine_tuned(workdir, command, model, capsys):
    done = call(capsys, *command, "--embedder", model)
    assert done.code == 0, done.err
    artifact = load_artifact(workdir / "artifact")
    assert artifact.manifest["protocol"] == 5
    vectorizer = artifact.predictor.vectorizer
    assert (vectorizer.embedder.dim, vectorizer.encoder.dim) == (32, 2)
    router = Router.load(workdir / "artifact")
    easy, hard = (
        router.route(f"please explain the {w} of france") for w in ("capital", "eigenvalue")
    )
    assert easy.reason == hard.reason == "policy"
    assert easy.p_suffices["small"] > hard.p_suffices["small"] + 0.3
    told = call(capsys, "explain", "artifact", "the eigenvalue of france", "--json")
    assert told.code == 0 and "reading as a whole" in told.out
    assert call(capsys, "inspect", "artifact").code == 0


def test_an_encoder_that_adds_nothing_is_left_out(workdir, command, capsys):
    done = call(capsys, *command)
    assert done.code == 0, done.err
    assert "the fine-tuned encoder is left out: encoder adds -" in done.out
    assert load_artifact(workdir / "artifact").manifest["protocol"] == 1


def test_a_killed_job_goes_on_after_its_last_epoch(workdir, command, monkeypatch, capsys):
    epoch, ran = Tuner.epoch, []

    def counted(tuner, go_on):
        if len(ran) == 1:
            ran.append("killed")
            raise KeyboardInterrupt  # as Ctrl-C would
        ran.append((len(tuner.rows), tuner.done))
        epoch(tuner, go_on)

    monkeypatch.setattr(Tuner, "epoch", counted)
    assert call(capsys, *command).code != 0
    assert not (workdir / "artifact").exists()
    done = call(capsys, *command)
    assert done.code == 0, done.err
    assert ran[0][1] == 0 and ran[2] == (ran[0][0], 1)  # the second epoch of the same rows
    assert not list((workdir / "cache").rglob("*.pt"))


def test_a_limit_is_kept_and_said(workdir, command, monkeypatch, capsys):
    now = iter(range(0, 10**9, 20))
    monkeypatch.setattr(job, "monotonic", lambda: float(next(now)))
    done = call(capsys, *command, "--max-minutes", "10", "--json")
    assert done.code == 0, done.err
    told = " ".join(json.loads(done.out)["summary"])
    assert "--max-minutes left no time to fit it on all" in told
    assert Router.load(workdir / "artifact").route("the capital of peru").reason == "policy"


@pytest.fixture
def slow(monkeypatch):
    """Time passes in epochs alone, 100 s in each; {name of a part: seconds} says otherwise."""
    now, epoch, ran, takes = [0.0], Tuner.epoch, [], {}
    monkeypatch.setattr(job, "monotonic", lambda: now[0])

    def timed(tuner, go_on):
        whole = bool(ran) and len(tuner.rows) > len(ran[0].rows)
        ran.append(tuner)
        now[0] += takes.get("last" if whole else "first", 100.0)
        epoch(tuner, go_on)

    monkeypatch.setattr(Tuner, "epoch", timed)
    return ran, takes


@pytest.mark.usefixtures("kept")
def test_a_limit_holds_for_the_job_whatever_of_it_was_made_before(command, slow, capsys):
    """100 s for the first part and 143 for the second are more than 4 minutes, at any time."""
    ran, _ = slow
    for _ in range(2):
        done = call(capsys, *command, "--max-minutes", "4")
        assert done.code == 0, done.err
        assert "--max-minutes left no time to fit it on all" in done.out
        assert len(ran) == 1


@pytest.mark.usefixtures("kept")
def test_an_encoder_whose_time_ran_out_half_way_is_not_served(workdir, command, slow, capsys):
    ran, takes = slow
    takes["last"] = 1000.0  # the machine became slow
    done = call(capsys, *command, "--max-minutes", "5")
    assert done.code == 0, done.err
    assert len(ran) == 2
    assert "--max-minutes left no time to fit it on all" in done.out
    (measured,) = (workdir / "cache").rglob("first/model.onnx")
    served = workdir / "artifact" / "encoder" / "model.onnx"
    assert served.read_bytes() == measured.read_bytes()


def test_of_two_jobs_at_once_one_waits_for_the_other(model, tmp_path, monkeypatch, examples):
    """As two jobs of one log are, which differ in their goals."""
    epoch, ran = Tuner.epoch, []

    def counted(tuner, go_on):
        ran.append(tuner)
        epoch(tuner, go_on)

    monkeypatch.setattr(Tuner, "epoch", counted)
    out = tmp_path / "first"
    rows = (np.arange(500), 0, out, Clock(None), 1, np.arange(500, 600))
    learn = partial(job._learn, model, examples, *rows)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: job._made(out, learn), range(2)))
    assert made[0] == made[1] and len(ran) == 1


def test_what_cannot_be_tuned_is_refused_before_the_work(workdir, command, capsys):
    done = call(capsys, *command, "--split", "40/40/20")
    done.refused("300 fit rows")
    done = call(capsys, *[word for word in command if word != "--finetune"], "--max-minutes", "3")
    assert done.code == 2 and "--finetune" in done.err
    assert not (workdir / "artifact").exists()


def test_tiers_that_were_not_observed_teach_nothing(model):
    """A tier whose outcomes are hidden on half of the rows learns from the other half alone."""
    rng = np.random.default_rng(0)
    tokens = [np.array([2, 4 + int(i), 3]) for i in rng.integers(0, 30, 200)]
    score = rng.random((200, 2)).astype(np.float32)
    score[:100, 0] = np.nan
    weight = np.ones_like(score)
    margins = []
    for hidden in (0.0, 1.0):  # what stands behind the mask must not matter
        weight[:100, 0] = 1.0 + hidden
        tuner = Tuner(model, Examples(tokens, score, weight, alike(200)), np.arange(200), 1, seed=0)
        tuner.epoch(lambda batch, batches: True)
        margins.append(tuner.margins(np.arange(200)))
    np.testing.assert_array_equal(*margins)
    assert np.isfinite(margins[0]).all()


@pytest.fixture
def examples():
    rng = np.random.default_rng(1)
    tokens = [np.array([2, 4 + int(i), 3]) for i in rng.integers(0, 30, 600)]
    score = rng.random((600, 2)).astype(np.float32)
    return Examples(tokens, score, np.ones_like(score), alike(600))


def alike(rows):
    return np.zeros(rows, dtype=np.int64)


def test_rows_that_are_not_learned_from_have_no_part_in_what_kinds_teach(examples):
    """Of other rows neither the label changes, nor does it change what is learned."""
    kind = np.arange(600) % 3
    examples.score[kind == 1, 1] /= 4
    learned, others = np.arange(400), np.arange(400, 600)
    flipped = examples.score.copy()
    flipped[others] = 1 - flipped[others]
    one, other = (
        replace(examples, score=score, kind=kind).taught(learned).score
        for score in (examples.score, flipped)
    )
    np.testing.assert_array_equal(one[learned], other[learned])
    np.testing.assert_array_equal(one[others], examples.score[others])
    gap, was = one[learned, 0] - one[learned, 1], examples.score[:400, 0] - examples.score[:400, 1]
    assert gap.std() < 0.9 * was.std()
    assert gap[kind[:400] == 1].mean() == pytest.approx(was[kind[:400] == 1].mean(), abs=0.05)


def test_what_is_served_is_a_mean_over_the_last_weights(model, examples, monkeypatch):
    """The mean of an exponential memory over 0.3 of all steps, every fifth of which counts."""
    tuner, seen = Tuner(model, examples, np.arange(600), 2, seed=0), []
    update = tuner.mean.update_parameters

    def noted(learner):
        seen.append(learner[1].weight.detach().clone().numpy())
        update(learner)

    monkeypatch.setattr(tuner.mean, "update_parameters", noted)
    for _ in range(2):
        tuner.epoch(lambda batch, batches: True)
    assert len(seen) == 2 * 4  # of 19 batches an epoch
    kept, expected = 1.0 - 5 / (0.3 * 38), seen[0]
    for weights in seen[1:]:
        expected = kept * expected + (1.0 - kept) * weights
    served = tuner.mean.module[1].weight.detach().numpy()
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-6)
    rows = np.arange(20)
    by_mean = tuner.margins(rows)
    tuner.mean.module[1].weight.data.copy_(tuner.head.weight.data)
    assert np.abs(by_mean - tuner.margins(rows)).max() > 1e-4


def test_a_tuner_that_was_kept_goes_on_as_if_nothing_had_happened(model, examples, tmp_path):
    through, first = (Tuner(model, examples, np.arange(600), 2, seed=0) for _ in range(2))
    for _ in range(2):
        through.epoch(lambda batch, batches: True)
    first.epoch(lambda batch, batches: True)
    first.save(tmp_path / "kept.pt")
    second = Tuner(model, examples, np.arange(600), 2, seed=0)
    second.load(tmp_path / "kept.pt")
    second.epoch(lambda batch, batches: True)
    rows = np.arange(600)
    np.testing.assert_allclose(second.margins(rows), through.margins(rows), atol=1e-3)


def test_either_precision_teaches_the_same(model, examples, monkeypatch):
    """Which of them is quicker depends on the processor."""
    taught = []
    for halves in (False, True):
        monkeypatch.setattr("training.learn.tuner._halves_pay", lambda device, pay=halves: pay)
        tuner = Tuner(model, examples, np.arange(600), 1, seed=0)
        tuner.epoch(lambda batch, batches: True)
        taught.append(tuner.margins(np.arange(600)))
    apart = np.abs(taught[0] - taught[1]).max()
    assert 0 < apart < 0.1 * np.abs(taught[0]).max()


def test_a_clock_without_limit_allows_everything():
    assert Clock(None).allows(1e12)
    assert not Clock(0.1).allows(7.0)
