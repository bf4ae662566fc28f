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
checked (router.assembly). Nothing in it is a pickle.
"""

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from router.assembly import STATIC, build_predictor, read_arrays
from router.policy import Policy
from router.predictor import Predictor
from router.prompt import Prompt
from router.rules import Rules
from router.rules_file import stated_rules
from router.tier import parse_tiers

FILES: Final = (
    "heads.npz",
    "embedder/tokenizer.json",
    "embedder/vectors.npy",
    "golden.jsonl",
    "CARD.md",
)
SECOND_FILES: Final = ("second/tokenizer.json", "second/model.onnx")
ENCODER_FILES: Final = ("encoder/tokenizer.json", "encoder/model.onnx")
# What the manifest calls an embedder, and its file of weights.
EMBEDDERS: Final = {"static": "vectors.npy", "onnx": "model.onnx"}
ALL_FILES: Final = (*FILES, "embedder/model.onnx", *SECOND_FILES, *ENCODER_FILES)  # of any protocol
_ENTRIES: Final = ("embedder", "second", "encoder")  # of the manifest; each states a kind
# Kinds of the three entries, None where there is none → protocol.
PROTOCOLS: Final[dict[tuple[str | None, ...], int]] = {
    ("static", None, None): 1,
    ("onnx", None, None): 2,
    ("static", "onnx", None): 3,
    ("static", None, "onnx"): 4,
    ("onnx", None, "onnx"): 5,
}
MAX_DRIFT: Final = 0.05  # by which a probability may differ on another processor than training's
_TRIED: Final = 8  # golden prompts that are compared for it; each takes some milliseconds
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
        rules: applied before the model; None where the training configuration has none.
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
        arrays = read_arrays(contents["heads.npz"])
        tiers = parse_tiers(manifest["tiers"])
        policy = Policy.from_dict(manifest["policy"], len(tiers))
        predictor = build_predictor(manifest, tiers, policy, contents, arrays)
        golden = _golden(contents["golden.jsonl"], [tier.name for tier in tiers], predictor)
        reader = predictor if predictor.second is None else predictor.second.predictor
        if not reader.vectorizer.static:
            _check_machine(reader, golden)
        rules = stated_rules(manifest.get("rules"), predictor.tiers)
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
    """The protocol for the kinds of embedders that a manifest states; None if there is none."""
    stated = {"embedder": STATIC} | dict(manifest)
    first, second, encoder = (_kind(stated[n]) if n in stated else None for n in _ENTRIES)
    return PROTOCOLS.get((first, second, encoder))


def _kind(entry: Any) -> str:
    named = entry.get("kind") if isinstance(entry, dict) else None
    return named if type(named) is str else ""


def files_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the files that a manifest of known protocol and embedder has to list."""
    weights = f"embedder/{EMBEDDERS[manifest.get('embedder', STATIC)['kind']]}"
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
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not path.is_dir():
            raise ArtifactError(
                f"{path}: no artifact folder (with a {name}); `suffice train` makes one"
            ) from error
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
    """Compare this machine's int8 arithmetic with training's; they differ only by rounding.

    With two stages, golden lines state the second's probabilities of every prompt, even of those
    that the gate keeps from it.
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
