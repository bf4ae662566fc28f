"""The table embedder, the bundled table, and what `--embedder` may name."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from router.embedder import StaticEmbedder
from training.errors import BadInput
from training.learn.embedders import STATIC, resolve_embedder
from training.learn.quantise import quantise, row_cosines
from training.learn.tensors import read_tensors

NEW_STATIC = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
OLD_STATIC = "sentence_transformers.models.StaticEmbedding"
DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64"}


def words(count: int) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(count)}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def safetensors_bytes(tensors: dict[str, NDArray[Any]]) -> bytes:
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.tobytes()
        offsets = [len(data), len(data) + len(raw)]
        kind = DTYPES[values.dtype.name]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def static_folder(
    root: Path,
    tensors: dict[str, NDArray[Any]],
    count: int,
    kinds: tuple[str, ...] = (NEW_STATIC,),
    path: str = "",
) -> Path:
    home = root / path
    home.mkdir(parents=True, exist_ok=True)
    modules = [{"idx": i, "name": str(i), "path": path, "type": k} for i, k in enumerate(kinds)]
    (root / "modules.json").write_text(json.dumps(modules))
    (home / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    words(count).save(str(home / "tokenizer.json"))
    return root


@pytest.fixture(scope="module")
def bundled() -> StaticEmbedder:
    return resolve_embedder("static")


@given(data=st.data())
def test_embedding_does_not_depend_on_the_order_of_summation(
    bundled: StaticEmbedder, data: st.DataObject
) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, 30521), max_size=512)), dtype=np.int64)
    seed = data.draw(st.integers(0, 2**32 - 1))
    shuffled = np.random.default_rng(seed).permutation(ids)
    assert bundled.embed(ids).tobytes() == bundled.embed(shuffled).tobytes()


@given(
    vectors=arrays(np.int8, (4, 3), elements=st.sampled_from([-127, -1, 0, 1, 126, 127])),
    weights=arrays(np.uint8, 4, elements=st.sampled_from([0, 1, 254, 255])),
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=512),
)
def test_partial_sums_are_exact_at_the_extremes(
    vectors: NDArray[np.int8], weights: NDArray[np.uint8], ids: list[int]
) -> None:
    got = StaticEmbedder(words(4), vectors, weights).embed(np.array(ids))
    exact = (weights[ids, None].astype(np.int64) * vectors[ids]).sum(axis=0)
    length = np.sqrt(float(exact @ exact)) or 1.0
    np.testing.assert_array_equal(got, (exact / length).astype(np.float32))


@given(seed=st.integers(0, 2**32 - 1))
def test_the_length_of_the_longest_prompts_is_exact(seed: int) -> None:
    """512 tokens of the largest weights: the squares' sum is beyond what float64 counts exactly."""
    rng = np.random.default_rng(seed)
    vectors = rng.choice(np.array([-127, 126, 127], np.int8), (2, 4096))
    embedder = StaticEmbedder(words(2), vectors, np.array([255, 254], np.uint8))
    got = embedder.embed(np.array([0] * 511 + [1]))
    sums = [511 * 255 * int(a) + 254 * int(b) for a, b in vectors.T]
    squares = sum(value * value for value in sums)
    assert squares > 2**53
    np.testing.assert_array_equal(got, (np.array(sums) / np.sqrt(float(squares))).astype("f4"))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_an_embedding_has_length_one_or_is_zero(bundled: StaticEmbedder, text: str) -> None:
    ids = bundled.tokenize(text)
    length = float(np.linalg.norm(bundled.embed(ids)))
    assert length == pytest.approx(1.0, abs=1e-5) if len(ids) else length == 0.0


def test_the_empty_text_is_zeros(bundled: StaticEmbedder) -> None:
    vector = bundled.embed(bundled.tokenize(""))
    assert vector.shape == (256,) and vector.dtype == np.float32 and not vector.any()


@pytest.mark.parametrize("unit", ["word ", "x", "😀", "\x00", "سلام ", "東"])
def test_a_text_of_300_000_characters_is_fine(bundled: StaticEmbedder, unit: str) -> None:
    text = unit * (300_000 // len(unit))
    vector = bundled.embed(bundled.tokenize(text))
    assert np.isfinite(vector).all()


def test_nothing_but_the_head_and_tail_of_a_long_text_counts(bundled: StaticEmbedder) -> None:
    head, tail = bundled.tokenize("good " * 384), bundled.tokenize("bad " * 128)
    middle = bundled.tokenize("ugly " * 1000)
    long, short = np.concatenate([head, middle, tail]), np.concatenate([head, tail])
    np.testing.assert_array_equal(bundled.embed(long), bundled.embed(short))
    assert not np.array_equal(bundled.embed(long), bundled.embed(middle))


def test_the_bundled_table_is_the_one_its_provenance_describes(bundled: StaticEmbedder) -> None:
    facts = json.loads((STATIC / "PROVENANCE.json").read_text(encoding="utf-8"))
    assert set(facts["files"]) == {"vectors.npy", "tokenizer.json"}
    for name, made in facts["files"].items():
        content = (STATIC / name).read_bytes()
        assert (sha256(content).hexdigest(), len(content)) == (made["sha256"], made["bytes"])
    assert facts["source"]["sha256"].startswith("53aa51172d14")
    assert facts["source"]["licence"] == "Apache-2.0"
    assert facts["quantisation_cosine"] >= 0.99
    assert bundled.dim == facts["dim"] == 256


def test_the_bundled_table_is_small_and_names_no_machine() -> None:
    assert (STATIC / "vectors.npy").stat().st_size <= 8_000_000
    tokenizer = json.loads((STATIC / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["truncation"] is None and tokenizer["padding"] is None
    text = (STATIC / "PROVENANCE.json").read_text(encoding="utf-8")
    assert not any(mark in text for mark in ("/home", "/root", "/work", "/tmp", "site-packages"))


def test_the_bundled_table_knows_what_words_mean(bundled: StaticEmbedder) -> None:
    pairs = [
        ("What is the capital of France?", "Name Germany's main city."),
        ("Integrate x squared from zero to one.", "Find the derivative of this function."),
        ("Write a Python program that sorts a list", "Debug my Java code"),
        ("My stomach hurts after dinner", "Which medicine helps against pain?"),
    ]
    found = np.stack([bundled.embed(bundled.tokenize(text)) for pair in pairs for text in pair])
    cosines = found @ found.T
    topic = np.arange(len(found)) // 2
    same = (topic[:, None] == topic) & ~np.eye(len(found), dtype=bool)
    # On average only: short questions share function words, which a table cannot tell from topics.
    assert cosines[same].mean() > cosines[topic[:, None] != topic].mean() + 0.1


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.integers(8, 40)),
        elements=st.floats(0.125, 3, width=32).map(lambda x: x if int(x * 64) % 2 else -x),
    )
)
def test_quantising_keeps_directions_and_relative_lengths(rows: NDArray[np.float32]) -> None:
    vectors, weights = quantise(rows)
    assert vectors.dtype == np.int8 and weights.dtype == np.uint8 and vectors.min() >= -127
    assert row_cosines(rows, vectors).min() >= 0.99
    kept = np.linalg.norm(vectors * weights[:, None].astype(float), axis=1)
    exact = np.linalg.norm(rows.astype(float), axis=1)
    np.testing.assert_allclose(kept / kept.max(), exact / exact.max(), rtol=0.25, atol=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_quantising_refuses_what_is_no_number(bad: float) -> None:
    rows = np.ones((3, 2), dtype=np.float32)
    rows[1, 0] = bad
    with pytest.raises(ValueError, match="row 1 "):
        quantise(rows)


def test_a_folder_with_a_table_is_loaded(tmp_path: Path, bundled: StaticEmbedder) -> None:
    bundled.save(tmp_path)
    ids = bundled.tokenize("the same table")
    np.testing.assert_array_equal(resolve_embedder(str(tmp_path)).embed(ids), bundled.embed(ids))


def test_a_damaged_table_is_refused(tmp_path: Path, bundled: StaticEmbedder) -> None:
    bundled.save(tmp_path)
    table = (tmp_path / "vectors.npy").read_bytes()
    for name, content in (
        ("vectors.npy", table[:1000]),
        ("vectors.npy", b""),
        ("tokenizer.json", b"{}"),
    ):
        bundled.save(tmp_path)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match="cannot be loaded"):
            resolve_embedder(str(tmp_path))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("kinds", "path"),
    [
        ((NEW_STATIC,), ""),
        ((OLD_STATIC,), "0_StaticEmbedding"),
        ((NEW_STATIC, "sentence_transformers.models.Normalize"), ""),
    ],
)
def test_a_static_model_becomes_a_table(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dtype: type,
    kinds: tuple[str, ...],
    path: str,
) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 64)).astype(dtype)
    folder = static_folder(tmp_path / "m", {"embedding.weight": rows}, 50, kinds, path)
    embedder = resolve_embedder(str(folder))
    assert embedder.dim == 64
    ids = embedder.tokenize("w3 w7 w7 w11")
    mean = rows[[3, 7, 7, 11]].astype(float).mean(axis=0)
    assert embedder.embed(ids) @ (mean / np.linalg.norm(mean)) >= 0.99
    assert re.search(r"mean cosine to the original (0\.99|1\.0)", capsys.readouterr().err)


def test_a_model2vec_table_is_unfolded(tmp_path: Path) -> None:
    rows = np.random.default_rng(2).normal(size=(5, 16)).astype(np.float32)
    mapping, weights = np.array([4, 0, 0, 2, 1, 3]), np.array([1, 2, 1, 5, 1, 1.0])
    tensors = {"embeddings": rows, "mapping": mapping, "weights": weights}
    embedder = resolve_embedder(str(static_folder(tmp_path, tensors, 6)))
    mean = 2 * rows[0] + 5 * rows[2]
    assert embedder.embed(embedder.tokenize("w1 w3")) @ (mean / np.linalg.norm(mean)) >= 0.99


def test_static_models_that_make_no_table_are_refused(tmp_path: Path) -> None:
    good = np.random.default_rng(3).normal(size=(6, 8)).astype(np.float32)
    spread = good * np.array([1e6, 1, 1, 1, 1, 1], dtype=np.float32)[:, None]
    nan = np.where(np.arange(8) == 2, np.nan, good).astype(np.float32)
    dense = (NEW_STATIC, "sentence_transformers.models.Dense")
    wide = np.ones((6, 1025), dtype=np.float32)
    for number, (tensors, count, kinds, says) in enumerate(
        [
            ({"embedding.weight": good}, 7, (NEW_STATIC,), "ids up to 6"),
            ({"embedding.weight": spread}, 6, (NEW_STATIC,), "mean cosine"),
            ({"embedding.weight": np.zeros_like(good)}, 6, (NEW_STATIC,), "all are zero"),
            ({"embedding.weight": nan}, 6, (NEW_STATIC,), "NaN"),
            ({"embedding.weight": wide}, 6, (NEW_STATIC,), "1025 dimensions"),
            ({"other": good}, 6, (NEW_STATIC,), "no table named"),
            ({"embeddings": good, "mapping": np.array([9])}, 1, (NEW_STATIC,), "cannot be read"),
            ({"embedding.weight": good}, 6, dense, "StaticEmbedding, Dense"),
        ]
    ):
        folder = static_folder(tmp_path / str(number), tensors, count, kinds)
        with pytest.raises(BadInput, match=says):
            resolve_embedder(str(folder))


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '[{"type": "x"}]', "[1]"])
def test_a_broken_modules_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(BadInput, match=r"modules\.json"):
        resolve_embedder(str(tmp_path))


def test_anything_else_is_told_what_was_looked_for(tmp_path: Path) -> None:
    for name in ("statik", str(tmp_path / "absent"), str(tmp_path), ""):
        with pytest.raises(BadInput, match=r"looked for .*static.*minilm.*vectors\.npy.*modules"):
            resolve_embedder(name)


@given(st.binary(max_size=200), st.integers(0, 120))
def test_the_tensor_reader_survives_any_damage(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, cut: int
) -> None:
    whole = safetensors_bytes({"a": np.arange(6, dtype=np.float32)})
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    for content in (noise, whole[:cut], whole[:cut] + noise + whole[cut + len(noise) :]):
        path.write_bytes(content)
        try:
            tensors = read_tensors(path)
        except ValueError:
            continue
        assert all(isinstance(values, np.ndarray) for values in tensors.values())


def test_the_tensor_reader_agrees_with_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(4)
    tensors = {k: rng.normal(size=(3, 4)).astype(k) for k in ("float64", "float32", "float16")}
    tensors["ids"] = np.arange(5)
    library.save_file(tensors, tmp_path / "t.safetensors", metadata={"format": "pt"})
    read = read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(read[name], values)
        assert read[name].dtype == values.dtype


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 0.15625], dtype=np.float32)  # exact in bfloat16
    raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    text = json.dumps({"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    (tmp_path / "b").write_bytes(len(text).to_bytes(8, "little") + text + raw)
    np.testing.assert_array_equal(read_tensors(tmp_path / "b")["a"], values)
