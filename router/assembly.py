"""A predictor, built part by part from bytes and arrays whose hashes were checked.

Whatever is raised here, `router.artifact` makes an ArtifactError of it that names the folder.
"""

import io
import json
import zipfile
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any, Final
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.calibration import Calibration
from router.cost import TokenModel
from router.embedder import Embedder, StaticEmbedder
from router.features import CURRENT, FeatureSpec
from router.forest import Forest
from router.gate import Gate
from router.head import Blend, Constant, Head, Linear
from router.neighbours import Neighbours
from router.ngrams import NGrams
from router.policy import Policy
from router.predictor import Predictor, Second
from router.tier import Tier
from router.vectorizer import Vectorizer
from router.words import raise_panic

STATIC: Final = {"kind": "static"}  # the embedder where a manifest states none, as of protocol 1
SECOND: Final = "second."  # begins the names of the second stage's arrays in heads.npz
MAX_GROWTH: Final = 64  # times that a tokenizer may lengthen a text before it looks for tokens


def read_arrays(raw: bytes) -> dict[str, NDArray[Any]]:
    """Arrays of an uncompressed .npz, so that together they are no larger than the file itself.

    Raises:
        ValueError: one is compressed, would need a pickle or cannot be read, or together they claim
            to be larger than the file.
        zipfile.BadZipFile: it is no .npz.
    """
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        items = archive.infolist()
    for item in items:
        if item.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"heads.npz: {item.filename} is compressed")
    if sum(item.file_size for item in items) > len(raw):
        raise ValueError("heads.npz: its arrays claim to be larger than the file")
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:
        raise ValueError(f"heads.npz: {error}") from error


def build_predictor(
    manifest: Mapping[str, Any],
    tiers: tuple[Tier, ...],
    policy: Policy,
    contents: Mapping[str, bytes],
    arrays: Mapping[str, NDArray[Any]],
) -> Predictor:
    """The predictor that a manifest of known protocol describes, of two stages or of one.

    Args:
        manifest: the manifest, its entries of the right kinds.
        tiers: its tiers, parsed.
        policy: its policy, parsed: a gate opens by the policy's dial.
        contents: bytes of the folder's files by name, checked.
        arrays: every array of heads.npz by name.

    Raises:
        KeyError: an entry or an array is missing.
        ValueError: the features are not this router's, or a file or an array is not what it should
            be.
    """
    spec = manifest["features"]
    stated = FeatureSpec(tuple(spec["names"]), spec["version"], spec["text_version"])
    if stated != CURRENT:
        raise ValueError(
            f"features {stated.version}/{stated.text_version} are not this router's "
            f"({CURRENT.version}/{CURRENT.text_version}): train again"
        )
    tuned = manifest.get("encoder")
    encoder = None if tuned is None else _embedder(tuned, "encoder", contents)
    embedder = _embedder(manifest.get("embedder", STATIC), "embedder", contents)
    predictor = _predictor(tiers, embedder, arrays, encoder)
    if manifest.get("second") is None:
        return predictor
    own = {name.removeprefix(SECOND): arrays[name] for name in arrays if name.startswith(SECOND)}
    reader = _predictor(tiers, _embedder(manifest["second"], "second", contents), own)
    dial = None if policy.constant is not None else policy.mu
    return replace(predictor, second=Second(reader, _gate(arrays), dial))


def _predictor(
    tiers: tuple[Tier, ...],
    embedder: Embedder,
    arrays: Mapping[str, NDArray[Any]],
    encoder: Embedder | None = None,
) -> Predictor:
    return Predictor(
        tiers=tiers,
        vectorizer=Vectorizer(
            embedder,
            NGrams(arrays["ngrams.idf"], arrays["ngrams.projection"], arrays["ngrams.scale"]),
            encoder,
        ),
        neighbours=_neighbours(arrays),
        blend=Blend(*(_floats(arrays[f"blend.{part}"], np.float64) for part in ("level", "gap"))),
        heads=tuple(_head(arrays, f"{k}.") for k in range(len(tiers))),
        tokens=tuple(_tokens(arrays, f"{k}.tokens.") for k in range(len(tiers))),
    )


def _embedder(entry: Mapping[str, Any], folder: str, contents: Mapping[str, bytes]) -> Embedder:
    name = f"{folder}/tokenizer.json"
    tokenizer = _tokenizer(contents[name], name)
    if entry["kind"] == "onnx":
        from router.onnx_embedder import OnnxEmbedder  # a static artifact never needs it

        return OnnxEmbedder(tokenizer, contents[f"{folder}/model.onnx"], entry["max_tokens"])
    try:
        table = np.load(io.BytesIO(contents[f"{folder}/vectors.npy"]), allow_pickle=False)
    except Exception as error:
        raise ValueError(f"{folder}/vectors.npy: {error}") from error
    return StaticEmbedder.from_table(tokenizer, table)


def _tokenizer(raw: bytes, name: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(raw.decode("utf-8"))
        if not _growth(tokenizer) <= MAX_GROWTH:
            raise ValueError(f"it may make a text over {MAX_GROWTH} times as long")
        return tokenizer
    except BaseException as error:
        raise_panic(error)
        if isinstance(error, Exception):
            raise ValueError(f"{name}: {error}") from error
        raise


def _growth(tokenizer: Tokenizer) -> float:
    """How many times as long a tokenizer may make a text before it looks for tokens, at most.

    That is the product of the worst cases of its parts, because a later part may replace what an
    earlier one has put in. The parts are read from the library and not from the file, which may
    leave out a part's type, or spell a part as a list of its values.
    """
    steps = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    known = [json.loads(step.__getstate__()) for step in steps if step is not None]
    return prod(_longer(part) for step in known for part in _parts(step))


def _longer(part: Mapping[str, Any]) -> float:
    """How many times as long a part of a tokenizer may make a text, at most."""
    kind = part["type"]
    if kind == "BertNormalizer":
        return 3.0  # it puts blanks around an ideograph
    if kind == "ByteLevel":
        return 8.0  # four bytes become four letters; a later part may take each one's accent apart
    if kind == "Prepend":
        return 1.0 + _apart(part["prepend"])
    if kind == "Precompiled":
        return max(1.0, *map(_apart, _pieces(b64decode(part["precompiled_charsmap"]))))
    if kind == "Replace":
        pattern, put = part["pattern"].get("String"), _apart(part["content"])
        # An expression, or an empty text, may be found between any two characters.
        return max(1.0, put / len(pattern)) if pattern else 1.0 + put
    return 1.0


def _pieces(charsmap: bytes) -> list[str]:
    """The replacement texts of a map of characters, which follow its index."""
    texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :]
    return texts.decode("utf-8", "replace").split("\0")


def _apart(text: str) -> float:
    """Characters of a text after a later part took its ligatures and accents apart."""
    return float(len(normalize("NFKD", text)))


def _parts(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A normalizer's or pre-tokenizer's own parts, in order."""
    yield step
    for part in (*step.get("normalizers", ()), *step.get("pretokenizers", ())):
        yield from _parts(part)


def _neighbours(arrays: Mapping[str, NDArray[Any]]) -> Neighbours:
    return Neighbours(
        projection=_floats(arrays["neighbours.projection"], np.float32),
        offset=_floats(arrays["neighbours.offset"], np.float32),
        centroids=_floats(arrays["neighbours.centroids"], np.float32),
        rows=_floats(arrays["neighbours.rows"], np.float64),
        successes=_floats(arrays["neighbours.successes"], np.float64),
        mean=_floats(arrays["neighbours.mean"], np.float64),
        width=_number(arrays["neighbours.width"]),
        prior=_number(arrays["neighbours.prior"]),
    )


def _head(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Head | Constant:
    if f"{prefix}constant" in arrays:
        return Constant(_number(arrays[f"{prefix}constant"]))
    linear = Linear(
        weights=_floats(arrays[f"{prefix}linear.weights"], np.float64),
        terms=_floats(arrays[f"{prefix}linear.terms"], np.float32),
        bias=_number(arrays[f"{prefix}linear.bias"]),
        low=_floats(arrays[f"{prefix}linear.low"], np.float32),
        high=_floats(arrays[f"{prefix}linear.high"], np.float32),
    )
    names = ("feature", "threshold", "nan_right", "mask", "first_node", "first_leaf", "leaf")
    parts = {name: arrays[f"{prefix}forest.{name}"] for name in names}
    forest = Forest(**parts, bias=_number(arrays[f"{prefix}forest.bias"]))
    knots = (arrays[f"{prefix}calibration.margin"], arrays[f"{prefix}calibration.logit"])
    return Head(linear, forest, Calibration(*knots))


def _tokens(arrays: Mapping[str, NDArray[Any]], prefix: str) -> TokenModel:
    return TokenModel(
        input_base=_number(arrays[f"{prefix}input_base"]),
        input_slope=_number(arrays[f"{prefix}input_slope"]),
        weights=_floats(arrays[f"{prefix}weights"], np.float64),
        bias=_number(arrays[f"{prefix}bias"]),
        low=_number(arrays[f"{prefix}low"]),
        high=_number(arrays[f"{prefix}high"]),
    )


def _gate(arrays: Mapping[str, NDArray[Any]]) -> Gate:
    return Gate(
        weights=_floats(arrays["gate.weights"], np.float64),
        **{
            name: _number(arrays[f"gate.{name}"])
            for name in ("bias", "low", "high", "share", "limit")
        },
        dials=_floats(arrays["gate.dials"], np.float64),
        floors=_floats(arrays["gate.floors"], np.float64),
    )


def _floats(array: NDArray[Any], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    if array.dtype != dtype:
        raise ValueError(f"heads.npz: an array is {array.dtype}, expected {np.dtype(dtype)}")
    return array


def _number(array: NDArray[Any]) -> float:
    if array.shape != () or array.dtype != np.float64:
        raise ValueError(f"heads.npz: expected one float64, got {array.dtype}{array.shape}")
    return float(array)
