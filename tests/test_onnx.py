"""A transformer as the embedder: served by onnxruntime alone, refused where it is not plain."""

import json
import shutil
import subprocess
import sys
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import ArtifactError, Router
from router.artifact import load_artifact
from router.onnx_embedder import OnnxEmbedder
from router.onnx_graph import check_graph
from router.prompt import Prompt
from tests.builders import edit_manifest, make_artifact, reseal
from tests.traffic_makers import QUICK, TIERS, call, make_rows, prompt_texts, write_log
from training import record
from training import train as job
from training.config import Config
from training.decide.goals import MinQuality
from training.errors import BadInput, EnvironmentProblem
from training.evaluate import score
from training.golden import replay
from training.learn import heads
from training.learn.embedders import resolve_embedder
from training.learn.encoder import load_export
from training.learn.memory import Remembering

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
ENCODER = Path(__file__).parent / "encoder"
OLD = Path(__file__).parent / "artifacts" / "protocol-2"
MODEL = (ENCODER / "model.onnx").read_bytes()
TEXTS = ["the cat of the mat", "sum", "code code code", "cat sum the code of mat?", "x" * 40]


@pytest.fixture(scope="module")
def embedder() -> OnnxEmbedder:
    return load_export(ENCODER)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, embedder: OnnxEmbedder) -> Path:
    return make_artifact(tmp_path_factory.mktemp("onnx") / "artifact", embedder=embedder)


# Serving


def test_a_vector_has_length_one_and_is_the_texts_own(embedder: OnnxEmbedder) -> None:
    ids = [embedder.tokenize(text) for text in TEXTS]
    alone = np.stack([embedder.embed(row) for row in ids])
    assert alone.dtype == np.float32 and alone.shape == (len(TEXTS), embedder.dim)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1.0, atol=1e-5)
    assert len(np.unique(alone.round(4), axis=0)) == len(TEXTS)
    again = np.stack([embedder.embed(row) for row in reversed(ids)])[::-1]
    np.testing.assert_array_equal(alone, again)


def test_no_token_is_zeros(embedder: OnnxEmbedder) -> None:
    assert not embedder.embed(embedder.tokenize("")).any()


def test_of_a_long_text_head_and_tail_count(embedder: OnnxEmbedder) -> None:
    room = embedder.max_tokens - 2
    head, tail = (embedder.tokenize(f"{word} " * 100) for word in ("cat", "sum"))
    long = np.concatenate([head, tail])
    kept = np.concatenate([head[: room - room // 4], tail[: room // 4]])
    assert embedder.framed(long).shape == (1, embedder.max_tokens)
    np.testing.assert_array_equal(embedder.embed(long), embedder.embed(kept))


def test_an_artifact_serves_what_was_exported(original: Path) -> None:
    router = Router.load(original)
    manifest = router.artifact.manifest
    assert manifest["protocol"] == 2
    assert manifest["embedder"] == {"kind": "onnx", "max_tokens": 32}
    assert replay(router.artifact.predictor, router.artifact.golden) == 0.0
    batch = router.route_batch(TEXTS)
    for text, decision in zip(TEXTS, batch, strict=True):
        assert decision.reason == "policy"
        assert decision.p_suffices == router.route(text).p_suffices


def test_threads_get_the_same_answers(original: Path) -> None:
    router = Router.load(original)
    alone = [decision.p_suffices for decision in router.route_batch(TEXTS)]
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(lambda _: router.route_batch(TEXTS), range(12)):
            assert [decision.p_suffices for decision in found] == alone


def test_artifacts_of_protocol_2_stay_readable() -> None:
    """Committed with protocol 2, and never written again: what services have on disk.

    Another processor may round the sums of an int8 product apart, so the tolerance is wide.
    """
    artifact = load_artifact(OLD)
    assert artifact.manifest["protocol"] == 2
    assert replay(artifact.predictor, artifact.golden) < 0.02
    assert Router(artifact).route("What is the capital of France?").reason == "policy"


def test_a_failure_of_the_runtime_falls_back(original: Path) -> None:
    router = Router.load(original)
    embedder: Any = router.artifact.predictor.vectorizer.embedder

    class Failing:
        def run(self, *_: Any) -> Any:
            raise RuntimeError("out of memory")

    embedder._session = Failing()
    assert router.route("the cat").reason == "fallback:RuntimeError"


# What is refused


def test_without_onnxruntime_the_remedy_is_named(
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtifactError, match=r"pip install 'suffice\[onnx\]'"):
        Router.load(original)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'suffice\[onnx\]'"):
        load_export(ENCODER)
    done = call(capsys, "route", original, "hi")
    assert done.code == 3 and "pip install 'suffice[onnx]'" in done.err  # of the machine
    assert Router.load(make_artifact(tmp_path / "static")).route("hi").reason == "policy"


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"kind": "static"},
        {"kind": "other"},
        {"kind": ["onnx"]},
        {"kind": "onnx"},
        *({"kind": "onnx", "max_tokens": n} for n in (0, 2, -1, 513, True, "32", 32.0, None)),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(entry: Any, folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(embedder=entry))
    with pytest.raises(ArtifactError, match=r"embedder|max_tokens"):
        Router.load(folder)


def test_a_tokenizer_that_panics_is_refused(folder: Path) -> None:
    """A panic of Rust is no Exception: it went through `load`, and ended the watching thread."""
    file = folder / "embedder" / "tokenizer.json"
    charsmap = b64encode(bytes([4, 0, 0, 0]) + bytes(4)).decode()  # of one entry: none for the a
    panicking = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"normalizer": panicking}))
    reseal(folder)
    with pytest.raises(ArtifactError, match="index out of bounds"):
        Router.load(folder)


def test_a_transformer_is_no_part_of_protocol_1(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(protocol=1))
    with pytest.raises(ArtifactError, match="not of this protocol"):
        Router.load(folder)


def test_a_changed_model_is_refused_by_its_hash(folder: Path) -> None:
    file = folder / "embedder" / "model.onnx"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ArtifactError, match="changed after export"):
        Router.load(folder)


def test_a_machine_that_computes_otherwise_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = OnnxEmbedder.embed

    def saturated(self: OnnxEmbedder, ids: Any) -> Any:
        return np.roll(exact(self, ids), 7)

    monkeypatch.setattr(OnnxEmbedder, "embed", saturated)
    with pytest.raises(ArtifactError, match="train on the kind of processor that serves"):
        Router.load(folder)


def varint(number: int) -> bytes:
    more = [number >> shift & 127 for shift in range(0, 64, 7) if number >> shift or not shift]
    return bytes([part | 128 for part in more[:-1]] + more[-1:])


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    """The wire format of protocol buffers."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            raw = value.encode() if isinstance(value, str) else value
            parts.append(varint(number << 3 | 2) + varint(len(raw)) + raw)
    return b"".join(parts)


def graph_with(*fields: tuple[int, int | bytes | str]) -> bytes:
    """A model of one graph: one harmless node and the fields given."""
    node = message((1, "input_ids"), (2, "out"), (4, "Identity"))
    return message((1, 8), (7, message((1, node), *fields)))


TENSOR = message((1, 1), (2, 1), (8, "w"))
OUTSIDE = message((13, message((1, "location"), (2, "../../secret"))), (14, 1))
HOSTILE = {
    "custom operator": (graph_with((1, message((4, "Evil"), (7, "ai.custom")))), "ai.custom:Evil"),
    "known name, other domain": (graph_with((1, message((4, "Add"), (7, "evil")))), "evil:Add"),
    "loop": (graph_with((1, message((4, "Loop")))), ":Loop"),
    "no operator": (graph_with((1, b"")), "operator :"),
    "graph in a node": (graph_with((1, message((4, "Add"), (5, message((6, b"")))))), "inside"),
    "graphs in a node": (graph_with((1, message((4, "Add"), (5, message((11, b"")))))), "inside"),
    "weights outside": (graph_with((5, TENSOR + OUTSIDE)), "another file"),
    "weights outside, place only": (graph_with((5, TENSOR + message((14, 1)))), "another file"),
    "constant outside": (
        graph_with((1, message((4, "Constant"), (5, message((5, TENSOR + OUTSIDE)))))),
        "another file",
    ),
    "sparse": (graph_with((15, b"")), "sparse"),
    "function": (graph_with() + message((25, b"")), "functions"),
    "training": (graph_with() + message((20, b"")), "training"),
    "two graphs": (graph_with() * 2, "2 graphs"),
    "no graph": (message((1, 8)), "0 graphs"),
    "nothing": (b"", "0 graphs"),
    "cut": (MODEL[:-1], "ends too early"),
    "endless number": (b"\xff" * 12, "damaged"),
    "group": (b"\x0b", "damaged"),
    "graph as number": (message((7, 5)), "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_graph_that_is_not_plain_is_refused(name: str, folder: Path) -> None:
    raw, says = HOSTILE[name]
    with pytest.raises(ValueError, match=says):
        check_graph(raw)
    (folder / "embedder" / "model.onnx").write_bytes(raw)
    reseal(folder)
    with pytest.raises(ArtifactError, match=says):
        Router.load(folder)


def test_a_plain_graph_passes() -> None:
    check_graph(graph_with())
    check_graph(MODEL)


def test_a_plain_graph_of_another_shape_is_refused(folder: Path) -> None:
    (folder / "embedder" / "model.onnx").write_bytes(graph_with())
    reseal(folder)
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        Router.load(folder)


@settings(max_examples=300)
@given(at=st.integers(0, len(MODEL) - 1), byte=st.integers(0, 255), cut=st.integers(0, 20))
def test_the_reader_of_graphs_survives_any_damage(at: int, byte: int, cut: int) -> None:
    at = at if cut > 10 else at % 4000  # most of the structure lies before the weights
    damaged = MODEL[:at] + bytes([byte]) + MODEL[at + 1 : len(MODEL) - cut]
    for raw in (damaged, MODEL[at : at + 500]):
        try:
            check_graph(raw)
        except ValueError:
            continue


def test_a_damaged_export_is_refused(tmp_path: Path) -> None:
    for name in ("model.onnx", "embedder.json", "tokenizer.json", "original.npy"):
        for content in (b"{}", b""):
            broken = Path(shutil.copytree(ENCODER, tmp_path / f"{name}-{len(content)}"))
            (broken / name).write_bytes(content)
            with pytest.raises(BadInput, match=r"cannot be loaded: .*; delete the folder"):
                resolve_embedder(str(broken))


# Training


def test_a_router_is_trained_on_a_transformer_as_it_is_served(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "MAX_ROUNDS", 30)
    monkeypatch.setattr(job, "STANDARD", QUICK)
    monkeypatch.setattr(record, "log_run", lambda *_: ("no run", "no store"))
    traffic = write_log(workdir / "log.parquet", make_rows(300, seed=5))
    config = Config(policy=MinQuality(0.9))
    out = workdir / "artifact"
    trained = job.train(traffic, TIERS, out, config, (0.6, 0.3, 0.1), 0, str(ENCODER))
    artifact = load_artifact(out)
    assert isinstance(artifact.predictor.vectorizer.embedder, OnnxEmbedder)
    assert (out / "embedder" / "model.onnx").read_bytes() == MODEL
    assert any("int8 encoder against the original" in line for line in trained.summary)
    assert score(out, traffic, workdir / "scores.parquet") == 300
    assert Router(artifact).route("which theorem?").reason == "policy"


def test_what_is_remembered_is_what_the_session_gives(
    embedder: OnnxEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUFFICE_CACHE", str(tmp_path))
    texts = [*prompt_texts(np.arange(40) % 2 == 0, np.random.default_rng(0)), "", TEXTS[0]]
    first = Remembering(embedder)
    first.fill(texts)
    second = Remembering(embedder)
    monkeypatch.setattr(second, "embedder", None)  # whoever asks it now fails
    for text in texts:
        ids = embedder.tokenize(text)
        np.testing.assert_array_equal(second.embed(ids), embedder.embed(ids))
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*.sqlite"))
    assert b"please" not in stored


class Elsewhere(OnnxEmbedder):
    """The same model on another processor, or by another version of onnxruntime."""

    def embed(self, ids: Any) -> Any:
        return super().embed(ids) * np.float32(1.001)


def test_vectors_of_another_machine_are_not_taken_for_its_own(
    embedder: OnnxEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may be on a volume that jobs share, or from before an upgrade."""
    monkeypatch.setenv("SUFFICE_CACHE", str(tmp_path))
    Remembering(embedder).fill(TEXTS)
    here = Elsewhere(embedder._words.tokenizer, embedder.model, embedder.max_tokens)
    ids = embedder.tokenize(TEXTS[0])
    np.testing.assert_array_equal(Remembering(here).embed(ids), here.embed(ids))
    own = Remembering(embedder)
    monkeypatch.setattr(own, "embedder", None)  # whoever asks it now fails
    assert own.embed(ids).any()


@pytest.mark.parametrize("damage", ["garbage", "folder"])
def test_a_store_that_cannot_be_used_is_done_without(
    damage: str, embedder: OnnxEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUFFICE_CACHE", str(tmp_path))
    Remembering(embedder)
    (file,) = tmp_path.rglob("*.sqlite")
    file.unlink()
    file.write_bytes(b"garbage" * 999) if damage == "garbage" else file.mkdir()
    ids = embedder.tokenize("cat")
    np.testing.assert_array_equal(Remembering(embedder).embed(ids), embedder.embed(ids))


@pytest.mark.parametrize("trouble", ["full", "read-only", "damaged"])
def test_a_store_that_fails_while_it_is_used_costs_no_job(
    trouble: str,
    embedder: OnnxEmbedder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A full disk, a cache baked into an image, a page that was lost."""
    monkeypatch.setenv("SUFFICE_CACHE", str(tmp_path))
    many = [" ".join(words) for words in product(("cat", "dog", "runs", "red"), repeat=5)]
    texts, others = many[::2], many[1::2]
    store = Remembering(embedder)
    store.fill(texts)
    (file,) = tmp_path.rglob("*.sqlite")
    if trouble == "damaged":
        raw, page = file.read_bytes(), 4096
        assert len(raw) > 4 * page
        file.write_bytes(raw[:page] + b"\xff" * (len(raw) - page))
        store = Remembering(embedder)
    elif trouble == "read-only":
        store._store.execute("PRAGMA query_only = ON")
    else:
        pages = store._store.execute("PRAGMA page_count").fetchone()[0]
        store._store.execute(f"PRAGMA max_page_count = {pages}")
    store.fill(others)
    for text in (*texts, *others):
        ids = embedder.tokenize(text)
        np.testing.assert_array_equal(store.embed(ids), embedder.embed(ids))
    assert "not kept in" in capsys.readouterr().err
    if trouble != "damaged":  # what was known still is
        monkeypatch.setattr(store, "embedder", None)
        assert store.embed(embedder.tokenize(texts[0])).any()


def test_an_artifact_needs_no_onnx_package(original: Path) -> None:
    program = (
        "import sys; from router import Router; print(Router.load(sys.argv[1]).route('hi').reason);"
        "print(sorted({'onnx', 'torch', 'training', 'transformers'} & set(sys.modules)))"
    )
    call = [sys.executable, "-c", program, str(original)]
    root = Path(__file__).parents[1]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["policy", "[]"]
    assert done.stderr == ""


def test_the_golden_prompts_are_embedded_as_the_original_does() -> None:
    embedder = resolve_embedder(str(ENCODER))
    assert isinstance(embedder, Remembering) and embedder.original is not None
    found = load_artifact(OLD).golden
    texts = [Prompt.of(line["messages"]).text for line in found]
    ours = np.stack([embedder.embed(embedder.tokenize(text)) for text in texts])
    known = embedder.original.any(axis=1)
    assert (ours[known] * embedder.original[known]).sum(axis=1).mean() > 0.99


def test_the_committed_encoder_is_small_and_names_no_machine() -> None:
    assert sum(file.stat().st_size for file in ENCODER.iterdir()) < 200_000
    text = json.dumps(json.loads((ENCODER / "embedder.json").read_text(encoding="utf-8")))
    assert not any(mark in text for mark in ("/home", "/root", "/work", "/tmp"))
    for mark in (b"/home/", b"/root/", b"/work/", b"/tmp/", b"site-packages"):
        assert mark not in MODEL
