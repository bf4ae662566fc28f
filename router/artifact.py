"""The exported folder, verified before anything is built from it.

    manifest.json    what it is: tiers, feature spec, policy and promise, hashes of the rest
    manifest.sha256  of manifest.json
    heads.npz        arrays of heads, neighbours, n-grams and token models
    embedder/        tokenizer.json and vectors.npy (protocol 1), or model.onnx (protocol 2)
    second/          of two stages (protocol 3) the second's tokenizer.json and model.onnx
    encoder/         tokenizer.json and model.onnx of a fine-tuned encoder (protocol 4; 5 where the
                     embedder is a transformer, too)
    golden.jsonl     prompts and the probabilities that training computed for them
    CARD.md          the model card

Every file is read once, checked against its hash and size, and built from the bytes that were
checked. Nothing in it is a pickle.
"""

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

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
from router.prompt import Prompt
from router.rules import Rules
from router.rules_file import parse_rules
from router.tier import Tier, parse_tiers
from router.vectorizer import Vectorizer
from router.words import raise_panic

FILES: Final = (
    "heads.npz",
    "embedder/tokenizer.json",
    "embedder/vectors.npy",
    "golden.jsonl",
    "CARD.md",
)
SECOND_FILES: Final = ("second/tokenizer.json", "second/model.onnx")
SECOND: Final = "second."  # begins the names of the second stage's arrays in heads.npz
ENCODER_FILES: Final = ("encoder/tokenizer.json", "encoder/model.onnx")
# What the manifest calls an embedder, and its file of weights.
EMBEDDERS: Final = {"static": "vectors.npy", "onnx": "model.onnx"}
# Kinds of the embedder, of the second stage's and of the fine-tuned encoder → protocol.
_ENTRIES: Final = ("embedder", "second", "encoder")
PROTOCOLS: Final[dict[tuple[str | None, ...], int]] = {
    ("static", None, None): 1,
    ("onnx", None, None): 2,
    ("static", "onnx", None): 3,
    ("static", None, "onnx"): 4,
    ("onnx", None, "onnx"): 5,
}
MAX_DRIFT: Final = 0.05  # of a probability, on another processor than that of training
_TRIED: Final = 8  # golden prompts, some milliseconds each
MAX_BYTES: Final = 512 * 2**20
MAX_MANIFEST_BYTES: Final = 4 * 2**20


class ArtifactError(Exception):
    """The folder is not a whole, known and valid artifact; nothing was built from it."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified artifact.

    Attributes:
        path: the folder.
        version: first 12 hexadecimal digits of the manifest's sha256.
        manifest: the manifest, as read.
        predictor: probabilities and costs.
        policy: the operating point.
        golden: the golden prompts, as read: ``messages`` and ``p_suffices``.
        rules: what comes before the model; None where the training configuration has none.
    """

    path: Path
    version: str
    manifest: Mapping[str, Any]
    predictor: Predictor
    policy: Policy
    golden: tuple[Mapping[str, Any], ...]
    rules: Rules | None = None


def load_artifact(path: Path) -> Artifact:
    """Verify and read an artifact folder; see `read_artifact`."""
    return read_artifact(path)[0]


def read_artifact(path: Path) -> tuple[Artifact, Mapping[str, NDArray[Any]]]:
    """Verify and read an artifact folder.

    Returns:
        The artifact, and every array of heads.npz by its name: some are there for training only.

    Raises:
        ArtifactError: a file is missing, changed, too large or outside the folder, the protocol is
            unknown, or a value is not what it should be. The message names the file.
    """
    raw, digest = _read_manifest(path)
    manifest = _parse_manifest(path, raw)
    contents = {
        name: _read_checked(path, name, manifest["files"][name]) for name in files_of(manifest)
    }
    try:
        arrays = _read_arrays(contents["heads.npz"])
        tiers = parse_tiers(manifest["tiers"])
        policy = Policy.from_dict(manifest["policy"], len(tiers))
        predictor = _build(manifest, tiers, policy, contents, arrays)
        golden = _golden(contents["golden.jsonl"], [tier.name for tier in tiers], predictor)
        reader = predictor if predictor.second is None else predictor.second.predictor
        if not reader.vectorizer.static:
            _check_machine(reader, golden)
        stated = manifest.get("rules")
        rules = None if stated is None else parse_rules(stated, predictor.tiers)
    except KeyError as error:
        raise ArtifactError(f"{path}: {error} is missing in the manifest or heads.npz") from error
    except Exception as error:
        raise ArtifactError(f"{path}: {error}") from error
    return Artifact(path, digest[:12], manifest, predictor, policy, golden, rules), arrays


def _read_manifest(path: Path) -> tuple[bytes, str]:
    raw = _read(path, "manifest.json", MAX_MANIFEST_BYTES)
    stated = _read(path, "manifest.sha256", 200)
    digest = hashlib.sha256(raw).hexdigest()
    if stated != f"{digest}  manifest.json\n".encode():
        raise ArtifactError(f"{path}: manifest.json is not the file that manifest.sha256 names")
    return raw, digest


def _parse_manifest(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        manifest = _parse_json(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: manifest.json is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path}: manifest.json is not a JSON object")
    protocol = manifest.get("protocol")
    if type(protocol) is not int or protocol not in PROTOCOLS.values():
        known = ", ".join(map(str, PROTOCOLS.values()))
        raise ArtifactError(
            f"{path}: protocol {protocol!r} is unknown; this router reads {known}: update suffice, "
            "or export the artifact again"
        )
    for name, kind in (("tiers", list), ("features", dict), ("policy", dict), ("files", dict)):
        if not isinstance(manifest.get(name), kind):
            raise ArtifactError(f"{path}: manifest.json: {name} must be a {kind.__name__}")
    if protocol_of(manifest) != protocol:
        stated = {name: manifest.get(name) for name in _ENTRIES if name in manifest}
        raise ArtifactError(f"{path}: manifest.json: {stated} is not of this protocol")
    if set(manifest["files"]) != set(files_of(manifest)):
        raise ArtifactError(
            f"{path}: manifest.json must list exactly {', '.join(files_of(manifest))}"
        )
    return manifest


def protocol_of(manifest: Mapping[str, Any]) -> int | None:
    """The protocol of what a manifest says of embedders; None where no protocol has that."""
    stated = {"embedder": {"kind": "static"}} | dict(manifest)
    first, second, encoder = (_kind(stated[n]) if n in stated else None for n in _ENTRIES)
    return PROTOCOLS.get((first, second, encoder))


def _kind(entry: Any) -> str:
    named = entry.get("kind") if isinstance(entry, dict) else None
    return named if type(named) is str else ""


def files_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the files that a manifest of known protocol and embedder has to list."""
    weights = f"embedder/{EMBEDDERS[manifest.get('embedder', {'kind': 'static'})['kind']]}"
    first = tuple(weights if name == "embedder/vectors.npy" else name for name in FILES)
    more = {"second": SECOND_FILES, "encoder": ENCODER_FILES}
    return (*first, *(name for entry in more if entry in manifest for name in more[entry]))


def _read_checked(path: Path, name: str, stated: Any) -> bytes:
    raw = _read(path, name, MAX_BYTES)
    if not isinstance(stated, dict) or stated.get("size") != len(raw):
        raise ArtifactError(f"{path}: {name} has {len(raw)} bytes, not what the manifest states")
    if stated.get("sha256") != hashlib.sha256(raw).hexdigest():
        raise ArtifactError(f"{path}: {name} was changed after export (its sha256 differs)")
    return raw


def _read(path: Path, name: str, limit: int) -> bytes:
    file = path / name
    try:
        if not file.resolve().is_relative_to(path.resolve()):
            raise ArtifactError(f"{path}: {name} leads out of the folder")
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe would wait for ever
            raise ArtifactError(f"{path}: {name} is not a file")
        with file.open("rb") as stream:
            raw = stream.read(limit + 1)
    except (OSError, RuntimeError, ValueError) as error:  # also a ring of links, a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{path}: {name} cannot be read: {reason}") from error
    if len(raw) > limit:
        raise ArtifactError(f"{path}: {name} is larger than {limit} bytes")
    return raw


def _parse_json(text: str) -> Any:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not a number")

    return json.loads(text, parse_constant=refuse)


def _golden(raw: bytes, tiers: list[str], predictor: Predictor) -> tuple[Mapping[str, Any], ...]:
    lines = [_parse_json(line) for line in raw.decode("utf-8").split("\n") if line]
    stated = ("p_suffices",) if predictor.second is None else ("p_suffices", "second")
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or any(set(line.get(p) or ()) != set(tiers) for p in stated):
            raise ValueError(f"golden.jsonl: line {number} does not state a probability per tier")
    return tuple(lines)


def _check_machine(transformer: Predictor, golden: Sequence[Mapping[str, Any]]) -> None:
    """Hold this machine's int8 arithmetic to that of training: old processors saturate its sums.

    Of two stages the golden lines state what the second says of every prompt, asked or not.
    """
    names = [tier.name for tier in transformer.tiers]
    for line in golden[:_TRIED]:
        p, *_ = transformer.estimate_one(Prompt.of(line["messages"]))
        stated = line.get("second", line["p_suffices"])
        worst = max(abs(p[k] - stated[name]) for k, name in enumerate(names))
        if not worst <= MAX_DRIFT:
            raise ValueError(
                f"on this machine the encoder gives other vectors than in training: a golden "
                f"prompt's probability differs by {worst:.2g} (allowed: {MAX_DRIFT}); train on the "
                "kind of processor that serves"
            )


def _build(
    manifest: Mapping[str, Any],
    tiers: tuple[Tier, ...],
    policy: Policy,
    contents: Mapping[str, bytes],
    arrays: Mapping[str, NDArray[Any]],
) -> Predictor:
    spec = manifest["features"]
    stated = FeatureSpec(tuple(spec["names"]), spec["version"], spec["text_version"])
    if stated != CURRENT:
        raise ValueError(
            f"features {stated.version}/{stated.text_version} are not this router's "
            f"({CURRENT.version}/{CURRENT.text_version}): train again"
        )
    stated_first = manifest.get("embedder", {"kind": "static"})
    tuned = manifest.get("encoder")
    encoder = None if tuned is None else _embedder(tuned, "encoder", contents)
    first = _embedder(stated_first, "embedder", contents)
    predictor = _predictor(tiers, first, arrays, encoder)
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
        return Tokenizer.from_str(raw.decode("utf-8"))
    except BaseException as error:
        raise_panic(error)
        if isinstance(error, Exception):
            raise ValueError(f"{name}: {error}") from error
        raise


def _read_arrays(raw: bytes) -> dict[str, NDArray[Any]]:
    """Arrays of an uncompressed .npz, so that together they are no larger than the file itself."""
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
