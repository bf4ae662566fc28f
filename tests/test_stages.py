"""Two stages: a table reads every prompt, a transformer those of which it is not sure."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import ArtifactError, Policy, Router
from router.artifact import load_artifact
from router.gate import Gate, both, gain
from router.prompt import Prompt
from tests.builders import (
    POLICY,
    edit_arrays,
    edit_manifest,
    make_artifact,
    make_embedder,
    make_staged,
    reseal,
)
from tests.fuzz import Fuzz
from tests.traffic_makers import QUICK, TIERS, make_rows, write_log
from training import record
from training import train as job
from training.config import Config
from training.decide.evidence import load_evidence, save_evidence
from training.decide.goals import MinQuality, TopShare, Value
from training.errors import BadInput
from training.evaluate import evaluate, score
from training.golden import golden_prompts, replay
from training.learn import heads
from training.learn.embedders import resolve_stages
from training.learn.encoder import load_export
from training.learn.stages import BUDGET, Stages, averaged, fit_gate, with_floors
from training.resolve import reprice, resolve
from training.show.explain import explain
from training.show.explain_json import as_json
from training.show.inspect import describe
from training.watch import drift as watching
from training.watch.baseline import Sample

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
ENCODER = Path(__file__).parent / "encoder"
OLD = Path(__file__).parent / "artifacts" / "protocol-3"
PROMPTS = golden_prompts()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("staged") / "artifact"
    return make_artifact(out, second=load_export(ENCODER))


# The gate


@given(lead=st.floats(0.0, 1.0), spread=st.floats(0.005, 0.5))
def test_the_gain_is_the_mean_of_what_a_logistic_error_leaves(lead: float, spread: float) -> None:
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    error = spread * np.log(quantiles / (1 - quantiles))
    assert gain(lead, spread) == pytest.approx(np.maximum(error - lead, 0).mean(), abs=1e-4)


def test_the_gate_opens_where_the_gain_per_token_is_above_the_floor() -> None:
    dials, floors = np.array([0.0, 10.0]), np.full(2, 1e-3)
    gate = Gate(np.zeros(2), np.log(0.1), 0.01, 1.0, 0.5, 50.0, dials, floors)
    dense = np.zeros(2, dtype=np.float32)
    assert gate.opens([0.5, 0.5], dense, 60.0, gate.floor(5.0))  # 0.069 for 50 tokens
    assert not gate.opens([0.5, 0.9], dense, 60.0, gate.floor(5.0))
    assert gate.opens([0.5, 0.9], dense, 1.0, gate.floor(5.0))
    assert gate.opens([0.1, 0.5, 0.5], dense, 60.0, 1e-3)  # the runner-up counts
    assert not gate.opens([0.5, 0.5], dense, 60.0, 2e-3)


@dataclass(frozen=True)
class Rows:
    """Two stages' probabilities of made-up prompts; where column 0 is high they differ by more."""

    first: Any
    second: Any
    score: Any
    dense: Any
    tokens: Any
    usd: Any
    gate: Gate
    stages: Stages

    @property
    def read(self) -> Any:
        """The lead of tier 1 at dial 100 by the first stage, and by both."""
        leads = (p - 100.0 * self.usd for p in (self.first, self.stages.p))
        return [lead[:, 1] - lead[:, 0] for lead in leads]


@pytest.fixture(scope="module")
def rows() -> Rows:
    rng = np.random.default_rng(2)
    dense = rng.normal(size=(800, 3)).astype(np.float32)
    odds = 0.4 + 0.6 * rng.normal(size=(800, 2))
    truth = odds + 0.5 * np.exp(0.8 * dense[:, :1]) * rng.normal(size=(800, 2))
    first, second = (1 / (1 + np.exp(-z)) for z in (odds, truth))
    score = (rng.random((800, 2)) < second).astype(float)
    tokens = rng.integers(5, 200, 800).astype(float)
    usd = np.column_stack([np.full(800, 1e-4), rng.uniform(1e-3, 2e-3, 800)])
    gate = fit_gate(first, second, score, np.ones((800, 2)), dense, 256.0)
    spread = np.array([gate.spread(row) for row in dense])
    dials = np.array([1.0, 30.0, 100.0, 300.0])
    gate = with_floors(gate, first, usd, spread, tokens, dials)
    both = averaged(first, second, gate.share)
    stages = Stages(both, spread, tokens, gate.dials, gate.floors)
    return Rows(first, second, score, dense, tokens, usd, gate, stages)


def test_floors_keep_to_the_budget_at_every_dial(rows: Rows) -> None:
    gate = rows.gate
    gate.check(3)
    for mu in gate.dials:
        asked = rows.stages.asked(rows.first, rows.usd, mu)
        read = rows.tokens[asked].sum() / rows.tokens.sum()
        assert 0.9 * BUDGET < read <= BUDGET
        given = zip(rows.first, rows.usd, rows.dense, rows.tokens, strict=True)
        one_by_one = [
            gate.opens(list(p - mu * usd), dense, tokens, gate.floor(mu))
            for p, usd, dense, tokens in given
        ]
        assert (asked == one_by_one).all()


def test_the_better_stage_counts_for_more(rows: Rows) -> None:
    assert rows.gate.share >= 0.75
    worse = fit_gate(rows.second, rows.first, rows.score, np.ones((800, 2)), rows.dense, 256.0)
    assert worse.share <= 0.375


@given(p=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=4), share=st.floats(0.1, 1.0))
def test_both_lie_between_the_two(p: list[float], share: float) -> None:
    other = p[::-1]
    found = both(p, other, share)
    np.testing.assert_allclose(found, averaged(np.array(p), np.array(other), share), atol=1e-9)
    for one, mixed, another in zip(p, found, other, strict=True):
        assert min(one, another) - 1e-9 <= mixed <= max(one, another) + 1e-9


def test_the_spread_finds_where_the_stages_differ(rows: Rows) -> None:
    spread, moved = rows.stages.spread, np.diff(rows.stages.p - rows.first, axis=1)[:, 0]
    change, high = np.abs(moved), spread > np.median(spread)
    assert change[high].mean() > 1.5 * change[~high].mean()
    np.testing.assert_allclose(2 * np.log(2) * spread.mean(), change.mean(), rtol=0.2)


def test_asking_by_gain_beats_asking_the_nearest(rows: Rows) -> None:
    """What is won over the first stage alone, were both right together, at the same cost."""
    alone, changed = rows.read
    won = np.abs(changed) * (np.sign(alone) != np.sign(changed))
    nearest = np.argsort(np.abs(alone))
    near = nearest[np.cumsum(rows.tokens[nearest]) <= BUDGET * rows.tokens.sum()]
    assert won[rows.stages.asked(rows.first, rows.usd, 100.0)].sum() > 1.1 * won[near].sum()


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.zeros(2)},
        {"weights": np.array([0.0, 0.0, np.nan])},
        {"bias": np.inf},
        {"low": 0.0},
        {"low": 2.0},
        {"limit": 0.0},
        {"share": 0.0},
        {"share": 1.5},
        {"share": np.nan},
        {"dials": np.array([1.0, 1.0])},
        {"dials": np.zeros(0), "floors": np.zeros(0)},
        {"floors": np.array([0.1])},
        {"floors": np.array([0.1, -0.1])},
        {"floors": np.array([0.1, np.nan])},
    ],
)
def test_a_gate_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    dials, floors = np.array([0.0, 1.0]), np.array([0.1, 0.2])
    right = Gate(np.zeros(3), 0.0, 0.1, 1.0, 0.5, 256.0, dials, floors)
    right.check(3)
    with pytest.raises(ValueError, match="gate"):
        replace(right, **change).check(3)


# The artifact


def test_an_artifact_serves_both_stages(original: Path) -> None:
    router, built = Router.load(original), make_staged(POLICY, load_export(ENCODER))
    manifest, predictor = router.artifact.manifest, router.artifact.predictor
    assert manifest["protocol"] == 3
    assert manifest["embedder"] == {"kind": "static"}
    assert manifest["second"] == {"kind": "onnx", "max_tokens": 32}
    ours, theirs = predictor.estimate(PROMPTS), built.estimate(PROMPTS)
    assert ours.stage is not None and set(ours.stage) == {1, 2}
    np.testing.assert_array_equal(ours.stage, theirs.stage)
    np.testing.assert_array_equal(ours.p, theirs.p)
    assert replay(predictor, router.artifact.golden) == 0.0


def test_the_decision_says_which_stage_decided(original: Path) -> None:
    router = Router.load(original)
    second = router.artifact.predictor.second
    assert second is not None
    found = {router.route(prompt.text).stage for prompt in PROMPTS}
    assert found == {1, 2}
    for prompt in PROMPTS:
        decision = router.route(prompt.text)
        stages = (router.artifact.predictor, second.predictor)
        read = Prompt.of(prompt.text)
        p = [one.probabilities(one.vectorizer.vector(read)) for one in stages]
        expected = p[0] if decision.stage == 1 else both(p[0], p[1], second.gate.share)
        assert list(decision.p_suffices.values()) == expected


def test_the_second_stage_is_not_asked_in_vain(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    constant = make_artifact(tmp_path / "c", Policy(0.0, constant=1), second=load_export(ENCODER))
    for path, most in ((original, len(PROMPTS) - 1), (constant, 0)):
        router = Router.load(path)
        second = router.artifact.predictor.second
        assert second is not None
        embedder: Any = second.predictor.vectorizer.embedder
        real = embedder._session

        class Counting:
            def run(self, *given: Any, real: Any = real) -> Any:
                asked.append(1)
                return real.run(*given)

        monkeypatch.setattr(embedder, "_session", Counting())
        asked.clear()
        stages = [router.route(prompt.text).stage for prompt in PROMPTS]
        assert len(asked) <= stages.count(2) <= most


def test_a_failure_of_the_second_stage_falls_back(original: Path) -> None:
    router = Router.load(original)
    second = router.artifact.predictor.second
    assert second is not None
    embedder: Any = second.predictor.vectorizer.embedder
    embedder._session = None
    reasons = {router.route(prompt.text).reason for prompt in PROMPTS}
    assert reasons == {"policy", "fallback:AttributeError"}


def test_artifacts_of_protocol_3_stay_readable() -> None:
    """Committed with protocol 3, and never written again: what services have on disk."""
    artifact = load_artifact(OLD)
    assert artifact.manifest["protocol"] == 3
    assert replay(artifact.predictor, artifact.golden) < 0.02
    stages = artifact.predictor.estimate(PROMPTS).stage
    assert stages is not None and set(stages) == {1, 2}
    assert Router(artifact).route("What is the capital of France?").reason == "policy"


def test_without_onnxruntime_the_remedy_is_named(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtifactError, match=r"pip install 'suffice\[onnx\]'"):
        Router.load(original)


@pytest.mark.parametrize("name", ["second/model.onnx", "second/tokenizer.json", "heads.npz"])
def test_a_changed_byte_is_refused(name: str, folder: Path) -> None:
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(ArtifactError, match="changed after export"):
        Router.load(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        Router.load(folder)


def test_no_damaged_artifact_loads(folder: Path) -> None:
    fuzz, known = Fuzz(6), {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for _ in range(100):
        restore = fuzz.damage(folder)
        if not all(file.is_file() and file.read_bytes() == raw for file, raw in known.items()):
            with pytest.raises(ArtifactError):
                Router.load(folder)
        restore()
    assert Router.load(folder).route("x").reason == "policy"


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": 1},
        {"protocol": 2},
        {"embedder": {"kind": "onnx", "max_tokens": 32}},
        {"second": {"kind": "static"}},
        {"second": {"kind": "onnx"}},
        {"second": {"kind": "onnx", "max_tokens": True}},
        *({"second": entry} for entry in (None, [], {}, "onnx", {"kind": ["onnx"]})),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(change: dict[str, Any], folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(change))
    with pytest.raises(ArtifactError, match=r"of this protocol|max_tokens"):
        Router.load(folder)


def test_a_second_stage_is_no_part_of_a_static_artifact(tmp_path: Path) -> None:
    static = make_artifact(tmp_path / "static")
    entry = {"kind": "onnx", "max_tokens": 32}
    edit_manifest(static, lambda manifest: manifest.update(second=entry))
    with pytest.raises(ArtifactError, match="not of this protocol"):
        Router.load(static)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("gate.floors", None, "is missing"),
        ("gate.floors", np.array([1e-3, np.nan, 4e-3]), "gate"),
        ("gate.weights", np.zeros(3), "gate"),
        ("gate.limit", np.float32(32), "float64"),
        ("gate.dials", np.array([3.0, 2.0, 1.0]), "gate"),
        ("second.0.linear.weights", np.zeros(3), "linear"),
        ("second.blend.gap", None, "is missing"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, value: Any, says: str, folder: Path) -> None:
    edit_arrays(folder, lambda a: a.pop(name) if value is None else a.update({name: value}))
    with pytest.raises(ArtifactError, match=says):
        Router.load(folder)


def test_golden_lines_must_state_the_second_stage(folder: Path) -> None:
    lines = (folder / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    without = [json.loads(line) | {"second": {}} for line in lines]
    text = "\n".join(json.dumps(line) for line in without)
    (folder / "golden.jsonl").write_text(text, encoding="utf-8")
    reseal(folder)
    with pytest.raises(ArtifactError, match="golden"):
        Router.load(folder)


def test_a_machine_that_computes_other_vectors_is_refused(folder: Path) -> None:
    def shift(arrays: dict[str, Any]) -> None:
        arrays["second.0.linear.bias"] = arrays["second.0.linear.bias"] + 3.0

    edit_arrays(folder, shift)
    with pytest.raises(ArtifactError, match="on this machine the encoder gives other vectors"):
        Router.load(folder)


# Training


@pytest.mark.parametrize(
    "name", ["static+static", f"{ENCODER}+static", f"static+{ENCODER}+static", "static+", "+"]
)
def test_stages_that_make_no_pair_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="--embedder"):
        resolve_stages(name)


def test_a_folder_may_have_a_plus_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a+b"
    folder.mkdir()
    make_embedder().save(folder)
    assert len(resolve_stages(str(folder))) == 1


@dataclass(frozen=True)
class Staged:
    """A finished job of two stages; what it logged to MLflow is in `folders`."""

    artifact: Path
    traffic: Path
    fresh: Path
    trained: job.Trained
    kept: Path


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staged]:
    folder = tmp_path_factory.mktemp("staged-job")
    rows = make_rows(520, seed=5, session=1, hard=(0.3, 0.95))
    traffic = write_log(folder / "log.parquet", rows[:840])
    fresh = write_log(folder / "fresh.parquet", rows[840:])

    def log_run(
        name: str, told: Any, measured: Any, tags: Any, folders: Any, safe: str
    ) -> tuple[str, str]:
        if "evidence" in folders:
            shutil.copytree(folders["evidence"], folder / "kept", dirs_exist_ok=True)
        assert measured.get("stages.asked") is not None
        return "no run", "no store"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "MAX_ROUNDS", 30)
        patch.setattr(job, "STANDARD", QUICK)
        patch.setattr(record, "log_run", log_run)
        shares = (0.45, 0.4, 0.15)
        config, name = Config(policy=Value(0.00002)), f"static+{ENCODER}"
        out = folder / "artifact"
        trained = job.train(traffic, TIERS, out, config, shares, 0, name)
        yield Staged(out, traffic, fresh, trained, folder / "kept")


def test_training_exports_what_is_served(staged: Staged, tmp_path: Path) -> None:
    artifact = load_artifact(staged.artifact)
    assert artifact.manifest["protocol"] == 3
    assert artifact.manifest["training"]["embedder"] == "custom"
    told = artifact.manifest["stages"]
    assert 0 < told["asked"] < 0.6
    assert told["mean_us"] < told["second_alone_us"] + told["first_us"]
    assert any("int8 encoder" in line for line in staged.trained.summary)
    assert score(staged.artifact, staged.traffic, tmp_path / "scores.parquet") == 420


def test_what_was_chosen_by_is_what_is_served(staged: Staged) -> None:
    """The operating point is of both stages: its evidence repeats the artifact's decisions."""
    artifact = load_artifact(staged.artifact)
    sha256 = artifact.manifest["evidence"]
    evidence, basis = load_evidence(staged.kept / "evidence.npz", sha256)
    assert evidence.stages is not None and basis.stages is not None
    asked = evidence.stages.asked(evidence.p, evidence.usd, artifact.policy.mu)
    assert asked.mean() == artifact.manifest["stages"]["asked"]
    served = artifact.predictor.second
    assert served is not None
    np.testing.assert_array_equal(served.gate.floors, evidence.stages.floors)
    again = save_evidence(staged.kept / "again.npz", evidence, basis)
    assert load_evidence(staged.kept / "again.npz", again)[0].stages is not None


def test_words_for_people(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [line for line in describe(staged.artifact) if line.startswith("two stages: ")]
    assert len(told) == 1 and "ms a prompt on average" in told[0]
    assert "Two stages: " in (staged.artifact / "CARD.md").read_text(encoding="utf-8")
    monkeypatch.setattr("training.evaluate.log_run", lambda *_: ("no run", "no store"))
    report, _ = evaluate(staged.artifact, staged.fresh, None, None)
    assert [note for note in report.notes if note.startswith("two stages: ")]


def test_drift_compares_what_is_served(
    staged: Staged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recent rows as both stages see them: of the first alone they would be unlike the baseline."""
    with np.load(staged.kept / "baseline.npz") as arrays:
        baseline = Sample(**arrays)
    looks: list[Sample] = []
    monkeypatch.setattr(watching, "fetch_baseline", lambda _: baseline)
    monkeypatch.setattr(watching, "compare", lambda _, recent, names: looks.append(recent) or ())
    rows = pd.read_parquet(staged.traffic)
    recent = rows.assign(request_id="new-" + rows["request_id"])  # the known ones are left out
    recent.to_parquet(tmp_path / "recent.parquet")
    watching.drift(staged.artifact, tmp_path / "recent.parquet")
    prompts = rows.drop_duplicates("request_id")["messages"]
    decisions = Router.load(staged.artifact).route_batch([json.loads(text) for text in prompts])
    assert {decision.stage for decision in decisions} == {1, 2}
    served = sorted(tuple(decision.p_suffices.values()) for decision in decisions)
    np.testing.assert_allclose(sorted(map(tuple, looks[0].p)), served, atol=1e-9)


def test_an_explanation_is_of_the_stage_that_decided(original: Path) -> None:
    router = Router.load(original)
    stages = {}
    for prompt in PROMPTS:
        found = explain(original, prompt.text)
        decision = router.route(prompt.text)
        assert found.stage == as_json(found)["stage"] == decision.stage
        assert found.p.tolist() == list(decision.p_suffices.values())
        stages[decision.stage] = found.contributions
    assert stages.keys() == {1, 2}


def test_another_goal_and_other_prices(
    staged: Staged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "log_run", lambda *_: ("no run", "no store"))
    file = staged.kept / "evidence.npz"
    monkeypatch.setattr("training.resolve.fetch_file", lambda *_: file)
    for goal in (MinQuality(0.8), TopShare(0.3)):
        resolve(staged.artifact, staged.fresh, goal, tmp_path / "new")
        artifact = load_artifact(tmp_path / "new")
        second = artifact.predictor.second
        assert second is not None
        assert second.dial == (None if artifact.policy.constant is not None else artifact.policy.mu)
    dearer = (replace(TIERS[0], input_usd_per_mtok=2.0, output_usd_per_mtok=8.0), TIERS[1])
    reprice(staged.artifact, dearer, tmp_path / "repriced")
    old, new = (load_artifact(path) for path in (staged.artifact, tmp_path / "repriced"))
    assert old.predictor.second is not None and new.predictor.second is not None
    gates = [one.predictor.second.gate for one in (old, new)]  # type: ignore[union-attr]
    assert not np.array_equal(gates[0].dials, gates[1].dials)
    np.testing.assert_array_equal(gates[0].weights, gates[1].weights)
