"""The exported folder, verified before anything is built from it.

    manifest.json    what it is: tiers, feature spec, policy and promise, hashes of the rest
    manifest.sha256  of manifest.json
    heads.npz        arrays of heads, neighbours, n-grams and token models
    embedder/        tokenizer.json and vectors.npy (protocol 1), or model.onnx (protocol 2)
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
from dataclasses import dataclass
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
from router.head import Blend, Constant, Head, Linear
from router.neighbours import Neighbours
from router.ngrams import NGrams
from router.policy import Policy
from router.predictor import Predictor
from router.prompt import Prompt
from router.rules import Rules
from router.rules_file import parse_rules
from router.tier import parse_tiers
from router.vectorizer import Vectorizer
from router.words import raise_panic

FILES: Final = (
    "heads.npz",
    "embedder/tokenizer.json",
    "embedder/vectors.npy",
    "golden.jsonl",
    "CARD.md",
)
# What the manifest calls the embedder, its file of weights, and the first protocol that has it.
EMBEDDERS: Final = {"static": ("embedder/vectors.npy", 1), "onnx": ("embedder/model.onnx", 2)}
PROTOCOLS: Final = (1, 2)
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
        predictor = _build(manifest, contents, arrays)
        policy = Policy.from_dict(manifest["policy"], len(predictor.tiers))
        golden = _golden(contents["golden.jsonl"], [tier.name for tier in predictor.tiers])
        if not isinstance(predictor.vectorizer.embedder, StaticEmbedder):
            _check_machine(predictor, golden)
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
    if type(protocol) is not int or protocol not in PROTOCOLS:
        raise ArtifactError(
            f"{path}: protocol {protocol!r} is unknown; this router reads "
            f"{', '.join(map(str, PROTOCOLS))}: update suffice, or export the artifact again"
        )
    for name, kind in (("tiers", list), ("features", dict), ("policy", dict), ("files", dict)):
        if not isinstance(manifest.get(name), kind):
            raise ArtifactError(f"{path}: manifest.json: {name} must be a {kind.__name__}")
    entry = manifest.get("embedder", {"kind": "static"})
    named = entry.get("kind") if isinstance(entry, dict) else None
    if type(named) is not str or named not in EMBEDDERS or EMBEDDERS[named][1] != protocol:
        raise ArtifactError(f"{path}: manifest.json: embedder {entry!r} is not of this protocol")
    if set(manifest["files"]) != set(files_of(manifest)):
        raise ArtifactError(
            f"{path}: manifest.json must list exactly {', '.join(files_of(manifest))}"
        )
    return manifest


def files_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the files that a manifest of known protocol and embedder has to list."""
    weights, _ = EMBEDDERS[manifest.get("embedder", {"kind": "static"})["kind"]]
    return tuple(weights if name == "embedder/vectors.npy" else name for name in FILES)


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


def _golden(raw: bytes, tiers: list[str]) -> tuple[Mapping[str, Any], ...]:
    lines = [_parse_json(line) for line in raw.decode("utf-8").split("\n") if line]
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or set(line.get("p_suffices") or ()) != set(tiers):
            raise ValueError(f"golden.jsonl: line {number} does not state a probability per tier")
    return tuple(lines)


def _check_machine(predictor: Predictor, golden: Sequence[Mapping[str, Any]]) -> None:
    """Hold this machine's int8 arithmetic to that of training: old processors saturate its sums."""
    names = [tier.name for tier in predictor.tiers]
    for line in golden[:_TRIED]:
        p, _ = predictor.estimate_one(Prompt.of(line["messages"]))
        worst = max(abs(p[k] - line["p_suffices"][name]) for k, name in enumerate(names))
        if not worst <= MAX_DRIFT:
            raise ValueError(
                f"on this machine the encoder gives other vectors than in training: a golden "
                f"prompt's probability differs by {worst:.2g} (allowed: {MAX_DRIFT}); train on the "
                "kind of processor that serves"
            )


def _build(
    manifest: Mapping[str, Any], contents: Mapping[str, bytes], arrays: Mapping[str, NDArray[Any]]
) -> Predictor:
    spec = manifest["features"]
    stated = FeatureSpec(tuple(spec["names"]), spec["version"], spec["text_version"])
    if stated != CURRENT:
        raise ValueError(
            f"features {stated.version}/{stated.text_version} are not this router's "
            f"({CURRENT.version}/{CURRENT.text_version}): train again"
        )
    tiers = parse_tiers(manifest["tiers"])
    return Predictor(
        tiers=tiers,
        vectorizer=Vectorizer(
            _embedder(manifest.get("embedder"), contents),
            NGrams(arrays["ngrams.idf"], arrays["ngrams.projection"], arrays["ngrams.scale"]),
        ),
        neighbours=_neighbours(arrays),
        blend=Blend(*(_floats(arrays[f"blend.{part}"], np.float64) for part in ("level", "gap"))),
        heads=tuple(_head(arrays, f"{k}.") for k in range(len(tiers))),
        tokens=tuple(_tokens(arrays, f"{k}.tokens.") for k in range(len(tiers))),
    )


def _embedder(entry: Mapping[str, Any] | None, contents: Mapping[str, bytes]) -> Embedder:
    tokenizer = _tokenizer(contents["embedder/tokenizer.json"])
    if entry is not None and entry["kind"] == "onnx":
        from router.onnx_embedder import OnnxEmbedder  # a static artifact never needs it

        return OnnxEmbedder(tokenizer, contents["embedder/model.onnx"], entry["max_tokens"])
    try:
        table = np.load(io.BytesIO(contents["embedder/vectors.npy"]), allow_pickle=False)
    except Exception as error:
        raise ValueError(f"embedder/vectors.npy: {error}") from error
    return StaticEmbedder.from_table(tokenizer, table)


def _tokenizer(raw: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_str(raw.decode("utf-8"))
    except BaseException as error:
        raise_panic(error)
        if isinstance(error, Exception):
            raise ValueError(f"embedder/tokenizer.json: {error}") from error
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


def _floats(array: NDArray[Any], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    if array.dtype != dtype:
        raise ValueError(f"heads.npz: an array is {array.dtype}, expected {np.dtype(dtype)}")
    return array


def _number(array: NDArray[Any]) -> float:
    if array.shape != () or array.dtype != np.float64:
        raise ValueError(f"heads.npz: expected one float64, got {array.dtype}{array.shape}")
    return float(array)
