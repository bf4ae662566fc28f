"""Writing an artifact: beside, verified through `router`, then renamed into place."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import (
    Artifact,
    files_of,
    load_artifact,
    protocol_of,
    read_artifact,
)
from router.assembly import SECOND
from router.embedder import Embedder
from router.features import CURRENT
from router.head import Constant
from router.policy import Policy
from router.predictor import Predictor
from router.tier import Tier
from training.errors import BadInput, SufficeError
from training.files import check_folder, write_arrays
from training.golden import TOLERANCE, replay
from training.learn.seen import added, id_hashes
from training.learn.stages import Stages
from training.log.requests import Requests


class ParityError(SufficeError):
    """The exported predictor does not repeat what training computed; nothing was put in place."""

    exit_code = 3


def export(
    out: Path,
    predictor: Predictor,
    policy: Policy,
    golden: str,
    card: str,
    fitted: NDArray[np.uint64],
    facts: Mapping[str, Any],
    references: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> Artifact:
    """Write the artifact folder `out`, replacing an older artifact there.

    Args:
        predictor: of one stage or of two, its embedders with it.
        policy: the operating point.
        golden: JSON lines, see `training.golden`.
        card: the model card, Markdown.
        fitted: uint64[·], hashes of the request ids used for fitting and choosing.
        references: arrays for explanations, see `training.learn.reference`.
        facts: the rest of the manifest: label rule, training window, counts, metrics, libraries.

    Returns:
        The artifact, as `router` reads it.

    Raises:
        BadInput: `out` exists and is not an artifact.
        ParityError: a golden probability differs by more than 1e-6.
    """
    with _beside(out) as folder:
        arrays = arrays_of(predictor) | dict(references) | {"fitted": np.sort(fitted)}
        write_arrays(folder / "heads.npz", arrays)
        embedders = _embedders(predictor)
        for name, embedder in embedders.items():
            (folder / name).mkdir()
            embedder.save(folder / name)
        (folder / "golden.jsonl").write_text(golden, encoding="utf-8")
        (folder / "CARD.md").write_text(card, encoding="utf-8")
        _write_manifest(folder, predictor.tiers, policy, facts, embedders)
        artifact = _verified(folder)
    return replace(artifact, path=out)


def reissue(
    source: Artifact,
    out: Path,
    tiers: Sequence[Tier],
    policy: Policy,
    card: str,
    chosen: Requests | None,
    facts: Mapping[str, Any],
    stages: Stages | None,
) -> Artifact:
    """Write an artifact with the same heads and embedder under another policy or other prices.

    Args:
        source: a verified artifact; `out` may be its own folder.
        tiers: the same tiers, maybe at other prices.
        chosen: the requests used for choosing now, if any.
        facts: the rest of the manifest.
        stages: whose dials and floors the gate between two stages gets; None: it keeps its own.

    Returns:
        The new artifact, as `router` reads it.

    Raises:
        BadInput: `out` exists and is not an artifact.
        ParityError: a golden probability differs by more than 1e-6.
    """
    with _beside(out) as folder:
        for name in files_of(source.manifest):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source.path / name, folder / name)
        arrays = dict(read_artifact(source.path)[1])
        if chosen is not None:
            arrays["fitted"] = np.union1d(arrays["fitted"], id_hashes(chosen.ids))
            embedder = source.predictor.vectorizer.embedder
            if "seen" in arrays:
                arrays["seen"] = added(arrays["seen"], embedder, list(chosen.prompts))
        if stages is not None:
            arrays |= {"gate.dials": stages.dials, "gate.floors": stages.floors}
        write_arrays(folder / "heads.npz", arrays)
        (folder / "CARD.md").write_text(card, encoding="utf-8")
        _write_manifest(folder, tiers, policy, facts, _embedders(source.predictor))
        artifact = _verified(folder)
    return replace(artifact, path=out)


def place(source: Path, out: Path) -> str:
    """Copy an artifact folder to `out`, replacing an older artifact there; returns its version.

    Raises:
        BadInput: `out` exists and is not an artifact.
        ArtifactError: the source is refused.
    """
    with placing(source, out) as version:
        return version


@contextmanager
def placing(source: Path, out: Path) -> Iterator[str]:
    """As `place`, around a body: the copy is made and verified before it, and put in place after.

    What may fail (the disk is full) fails before the body's work, and a body that fails leaves
    `out` as it was.
    """
    with _beside(out) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        yield _verified(folder).version


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, put in its place if all goes well and removed if not."""
    out = out.resolve()  # of a link, the folder it names is replaced, not the link
    check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)
        _swap(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _verified(folder: Path) -> Artifact:
    """The artifact in `folder`, loaded through `router` and replayed."""
    artifact = load_artifact(folder)
    difference = replay(artifact.predictor, artifact.golden)
    if not difference <= TOLERANCE:  # NaN is no parity either
        raise ParityError(
            f"the exported heads differ from training by {difference:.2g} on a golden prompt "
            f"(allowed: {TOLERANCE:g}); please report this with the library versions"
        )
    return artifact


def check_out(out: Path) -> None:
    """Raise BadInput where `out` is something else than an artifact, which export would replace.

    EnvironmentProblem where nothing can be written there.
    """
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not (out / "manifest.json").is_file():
        raise BadInput(f"{out} exists and is not an artifact; choose another folder or remove it")
    check_folder(out.parent)


def arrays_of(predictor: Predictor) -> dict[str, NDArray[Any]]:
    """The predictor's arrays under the names that `router.artifact` reads."""
    ngrams, near = predictor.vectorizer.ngrams, predictor.neighbours
    arrays: dict[str, Any] = {
        f"ngrams.{name}": getattr(ngrams, name) for name in ("idf", "projection", "scale")
    }
    for name in (
        "projection",
        "offset",
        "centroids",
        "rows",
        "successes",
        "mean",
        "width",
        "prior",
    ):
        arrays[f"neighbours.{name}"] = getattr(near, name)
    arrays |= {"blend.level": predictor.blend.level, "blend.gap": predictor.blend.gap}
    for k, head in enumerate(predictor.heads):
        if isinstance(head, Constant):
            arrays[f"{k}.constant"] = head.probability
            continue
        for name in ("weights", "terms", "bias", "low", "high"):
            arrays[f"{k}.linear.{name}"] = getattr(head.linear, name)
        for name in head.forest.__dataclass_fields__:
            arrays[f"{k}.forest.{name}"] = getattr(head.forest, name)
        arrays[f"{k}.calibration.margin"] = head.calibration.margin
        arrays[f"{k}.calibration.logit"] = head.calibration.logit
    for k, tokens in enumerate(predictor.tokens):
        for name in tokens.__dataclass_fields__:
            arrays[f"{k}.tokens.{name}"] = getattr(tokens, name)
    if predictor.second is not None:
        own = arrays_of(predictor.second.predictor)
        arrays |= {f"{SECOND}{name}": array for name, array in own.items()}
        gate = predictor.second.gate
        arrays |= {f"gate.{name}": getattr(gate, name) for name in gate.__dataclass_fields__}
    return {name: np.asarray(value) for name, value in arrays.items()}


def _embedders(predictor: Predictor) -> dict[str, Embedder]:
    """The embedders of a predictor by the folder, and the manifest's entry, of each."""
    found = {"embedder": predictor.vectorizer.embedder}
    if predictor.second is not None:
        found["second"] = predictor.second.predictor.vectorizer.embedder
    if predictor.vectorizer.encoder is not None:
        found["encoder"] = predictor.vectorizer.encoder
    return found


def _write_manifest(
    folder: Path,
    tiers: Sequence[Tier],
    policy: Policy,
    facts: Mapping[str, Any],
    embedders: Mapping[str, Embedder],
) -> None:
    entries = {name: embedder.entry for name, embedder in embedders.items()}
    manifest = {
        "protocol": protocol_of(entries),
        "tiers": [tier.to_dict() for tier in tiers],
        "features": {
            "names": list(CURRENT.names),
            "version": CURRENT.version,
            "text_version": CURRENT.text_version,
        },
        "policy": policy.to_dict(),
        **entries,
        **facts,
    }
    manifest["files"] = {name: _described(folder / name) for name in files_of(manifest)}
    raw = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    (folder / "manifest.json").write_bytes(raw)
    digest = hashlib.sha256(raw).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n", encoding="ascii")


def _described(file: Path) -> dict[str, Any]:
    raw = file.read_bytes()
    return {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}


def _swap(new: Path, out: Path) -> None:
    """Put `new` where `out` is; for the instant between two renames a reader finds neither."""
    if not out.exists():
        new.rename(out)
        return
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)
