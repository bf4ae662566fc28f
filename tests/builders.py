"""Small, valid parts of a router, made without training.

`python -m tests.builders FOLDER [ENCODER]` writes an artifact as kept under tests/artifacts/:
protocol 1, or with a folder of an exported encoder (tests/encoder), protocol 2; with the word
``staged`` after it, both, protocol 3; with the word ``tuned`` instead of it, protocol 4, after it,
protocol 5.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from router.artifact import files_of
from router.calibration import Calibration
from router.cost import TokenModel
from router.embedder import Embedder, StaticEmbedder
from router.forest import Forest
from router.gate import Gate
from router.head import Blend, Constant, Head, Linear
from router.neighbours import Neighbours
from router.ngrams import BUCKETS, NGrams
from router.onnx_embedder import OnnxEmbedder
from router.policy import Policy, Promise
from router.predictor import Predictor, Second
from router.tier import Tier
from router.vectorizer import SURFACE, Vectorizer
from training.export import export
from training.golden import golden_lines, golden_prompts
from training.learn.encoder import load_export
from training.learn.flatten import flatten

DIM = 8
WORDS = "what is the capital of france write code solve sum hello please list prime".split()
TIERS = (
    Tier("small", "vendor/small-1", 0.1, 0.4, 8192, ("json",)),
    Tier("middle", "vendor/middle-1", 0.5, 1.5),
    Tier("large", "vendor/large-1", 5.0, 15.0, 128_000, ("tools", "vision", "json")),
)


def make_tokenizer() -> Tokenizer:
    """A word-piece tokenizer of letters, digits and a few words."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[UNK]", *letters, *(f"##{letter}" for letter in letters), *"?.,:+-=", *WORDS]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def make_embedder(dim: int = DIM, seed: int = 0) -> StaticEmbedder:
    """Random token vectors."""
    rng, tokenizer = np.random.default_rng(seed), make_tokenizer()
    size = tokenizer.get_vocab_size()
    vectors = rng.integers(-127, 128, (size, dim)).astype(np.int8)
    return StaticEmbedder(tokenizer, vectors, rng.integers(0, 256, size).astype(np.uint8))


def make_ngrams(dim: int = 1, seed: int = 0, known: int = 4000) -> NGrams:
    """Random weights for some of the buckets; the others are unknown."""
    rng = np.random.default_rng(seed)
    buckets = rng.choice(BUCKETS, known, replace=False)
    idf = np.zeros(BUCKETS, dtype=np.float32)
    idf[buckets] = rng.uniform(1, 8, known)
    projection = np.zeros((BUCKETS, dim), dtype=np.int8)
    projection[buckets] = rng.integers(-127, 128, (known, dim))
    return NGrams(idf, projection, rng.uniform(0.001, 0.01, dim).astype(np.float32))


def make_booster(x: NDArray[Any], y: NDArray[Any], rounds: int = 12, **more: Any) -> lgb.Booster:
    """A booster on the rows given; `more` are LightGBM's parameters."""
    parameters = {
        "objective": "cross_entropy",
        "min_data_in_leaf": 2,
        "min_data_in_bin": 1,
        "min_sum_hessian_in_leaf": 0.0,
        "num_leaves": 8,
        "num_threads": 1,
        "verbose": -1,
        "seed": 3,
    } | more
    return lgb.train(parameters, lgb.Dataset(x, y, params=parameters), rounds)


def make_forest(dim: int, seed: int = 0) -> Forest:
    """A forest on random rows in the range of real vectors."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, dim)).astype(np.float32)
    return flatten(make_booster(x, (x[:, 0] + x[:, 1] > 0).astype(float)))[0]


def make_neighbours(dim: int, tiers: int, seed: int = 0, small: int = 3) -> Neighbours:
    """Random prototypes; `small` 1 gives two of them, at −1 and 1, whose arithmetic is exact."""
    rng = np.random.default_rng(seed)
    prototypes = 2 if small == 1 else 6
    centroids = rng.normal(size=(prototypes, small))
    projection = rng.normal(size=(dim, small)) * (rng.random((dim, small)) < 0.3)
    if small == 1:
        centroids, projection = np.array([[1.0], [-1.0]]), np.eye(dim, 1, -SURFACE)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    rows = rng.integers(1, 40, (tiers, prototypes)).astype(float)
    return Neighbours(
        projection=projection.astype(np.float32),
        offset=np.zeros(small, dtype=np.float32),
        centroids=centroids.astype(np.float32),
        rows=rows,
        successes=rows * rng.random(rows.shape),
        mean=rng.uniform(0.2, 0.8, tiers),
        width=0.2,
        prior=10.0,
    )


def make_linear(dim: int, seed: int = 0) -> Linear:
    """Random weights."""
    rng = np.random.default_rng(seed)
    terms = rng.normal(size=BUCKETS).astype(np.float32) * (rng.random(BUCKETS) < 0.05)
    bound = np.full(dim, 4.0, dtype=np.float32)
    return Linear(rng.normal(size=dim) * 0.2, terms.astype(np.float32), 0.1, -bound, bound)


def make_calibration(seed: int = 0) -> Calibration:
    """Four rising knots."""
    rng = np.random.default_rng(seed)
    margin, logit = (np.cumsum(rng.uniform(0.3, 1.5, 4)) - 2.0 for _ in range(2))
    return Calibration(margin, logit)


def make_tokens(dim: int, seed: int = 0) -> TokenModel:
    """A token model of some ten to a few hundred output tokens."""
    weights = np.random.default_rng(seed).normal(size=dim) * 0.05
    return TokenModel(3.0, 1.1, weights, 3.5, 1.0, 900.0)


def make_encoder() -> OnnxEmbedder:
    """A stand-in for a fine-tuned encoder: margins of two learned tiers."""
    home = Path(__file__).parent / "encoder"
    tokenizer = Tokenizer.from_file(str(home / "tokenizer.json"))
    return OnnxEmbedder(tokenizer, (home / "tuned.onnx").read_bytes(), 32)


def make_predictor(
    tiers: tuple[Tier, ...] = TIERS,
    small: int = 3,
    embedder: Embedder | None = None,
    encoder: Embedder | None = None,
) -> Predictor:
    """A predictor whose top tier is a constant and whose other heads are learned."""
    vectorizer = Vectorizer(embedder or make_embedder(), make_ngrams(), encoder)
    dim, learned = vectorizer.dim, len(tiers) - 1
    heads = [
        Head(make_linear(dim, k), make_forest(dim, k), make_calibration(k)) for k in range(learned)
    ]
    return Predictor(
        tiers=tiers,
        vectorizer=vectorizer,
        neighbours=make_neighbours(dim, learned, small=small),
        heads=(*heads, Constant(0.95)),
        blend=Blend(LEVEL[: 3 + (encoder is not None)], GAP[: 3 + (encoder is not None)]),
        tokens=tuple(make_tokens(dim, k) for k in range(len(tiers))),
    )


LEVEL, GAP = np.array([0.4, 0.5, 0.1, 0.6]), np.array([0.3, 0.3, 0.4, 0.5])


def make_staged(policy: Policy, second: Embedder, small: int = 3) -> Predictor:
    """Two stages of random numbers, whose gate is open for some prompts and not for others."""
    first, other = (make_predictor(small=small, embedder=one) for one in (None, second))
    weights = np.random.default_rng(5).normal(size=first.vectorizer.dim) * 0.02
    dials, floors = np.array([0.0, 100.0, 400.0]), np.array([1e-3, 2e-3, 4e-3])
    gate = Gate(weights, -2.0, 0.01, 0.5, 0.75, 32.0, dials, floors)
    dial = None if policy.constant is not None else policy.mu
    return replace(first, second=Second(other, gate, dial))


POLICY = Policy(200.0, None, Promise("min_quality", 0.99, 0.95, 500, 0.995, 0.991, True), "built")


def make_artifact(
    out: Path,
    policy: Policy = POLICY,
    small: int = 3,
    embedder: Embedder | None = None,
    second: Embedder | None = None,
    encoder: Embedder | None = None,
) -> Path:
    """Write an artifact by the training job's own export; of two stages with a `second`."""
    embedder = embedder or make_embedder()
    predictor = make_predictor(small=small, embedder=embedder, encoder=encoder)
    stated, other = predictor.estimate(golden_prompts()).p, None
    if second is not None:
        predictor = make_staged(policy, second, small)
        assert predictor.second is not None
        other = predictor.second.predictor.estimate(golden_prompts()).p
    lines = golden_lines(stated, [tier.name for tier in predictor.tiers], other)
    card = "# Built by tests/builders.py\n\nOf random numbers; it knows nothing of any traffic.\n"
    fitted = np.arange(3, dtype=np.uint64)
    facts = {"label": {"threshold": 0.5}}
    export(out, predictor, policy, lines, card, fitted, facts)
    return out


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest (in place, or to what `change` returns) and make its hash right again."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    returned = change(manifest)
    seal_manifest(folder, json.dumps(manifest if returned is None else returned))


def seal_manifest(folder: Path, text: str) -> None:
    """Write a manifest and its hash."""
    raw = text.encode()
    (folder / "manifest.json").write_bytes(raw)
    digest = hashlib.sha256(raw).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n", encoding="ascii")


def reseal(folder: Path) -> None:
    """Make all hashes right again, so that only the content of a file can be wrong."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    raws = {name: (folder / name).read_bytes() for name in files_of(manifest)}
    files = {
        name: {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
        for name, raw in raws.items()
    }
    edit_manifest(folder, lambda manifest: manifest.update(files=files))


def edit_arrays(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the arrays of heads.npz in place, and make the hashes right again."""
    with np.load(folder / "heads.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(folder / "heads.npz", **arrays)
    reseal(folder)


if __name__ == "__main__":
    out, *asked = sys.argv[1:]
    named = [word for word in asked if word not in ("staged", "tuned")]
    made = load_export(Path(named[0])) if named else None
    stages = (None, made) if "staged" in asked else (made, None)
    encoder = make_encoder() if "tuned" in asked else None
    make_artifact(Path(out), small=1, embedder=stages[0], second=stages[1], encoder=encoder)
