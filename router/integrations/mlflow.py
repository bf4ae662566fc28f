"""Artifacts from an MLflow model registry, with local copies that outlast an outage.

`Router.load("models:/support@champion")` and `Router.load("models:/support/7")` come here.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from router.artifact import ArtifactError, load_artifact
from router.lines import age
from router.origin import REGISTRY
from router.watch import Mark, mark

KEEP: Final = 3  # copies of each model, beside those that aliases last led to
_URI: Final = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_VERSION: Final = re.compile(r"at-v[0-9]+\.")  # a pointer of a version, see `_pointer`
# A service that starts while the registry is down must not wait for minutes.
_PATIENCE: Final[Mapping[str, str]] = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_WHOLE: Final[set[Mark | None]] = set()  # marks of copies that this process has found valid
_logger = logging.getLogger("suffice")


def fetch(uri: str) -> Path:
    """The local copy of a registered artifact, fetched if the registry has a newer one.

    Copies lie in SUFFICE_CACHE, by default ``~/.cache/suffice``. If the registry cannot be reached,
    the copy that this URI last led to is served. A version's copy may have been fetched by an
    alias.

    Raises:
        ArtifactError: the URI names no model, or the registry cannot be reached and there is no
            copy, or what it holds is no valid artifact.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        raise ArtifactError(f"{uri}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    folder = _cache() / _plain(match["name"])
    asked = _plain(match["alias"] or f"v{match['version']}")  # no alias is a v and a number
    try:
        copy = _fetch(match, folder)
    except ArtifactError:
        raise
    except Exception as error:
        kept = _pointed(folder, asked)
        if kept is None:
            raise ArtifactError(f"{uri}: {_why(error)}; there is no local copy") from error
        _logger.warning("suffice: %s: %s; serving the local copy %s", uri, _why(error), kept.name)
        return kept
    try:
        for name in {asked, copy.partition("-")[0]}:
            if _pointed(folder, name) != folder / copy:
                _point(_pointer(folder, name), copy)
    except OSError as error:  # a full disk, or a read-only one
        _logger.warning(
            "suffice: %s: its copy cannot be noted, nor found in an outage: %s", uri, error
        )
    return folder / copy


def _fetch(match: "re.Match[str]", folder: Path) -> str:
    """The name of the copy of the version asked for, downloaded unless it is there."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    import mlflow

    client = mlflow.MlflowClient()
    version: Any = (
        client.get_model_version_by_alias(match["name"], match["alias"])
        if match["alias"]
        else client.get_model_version(match["name"], match["version"])
    )
    # Another registry, or one made anew, has other models under the same names and numbers.
    made = _digest(f"{version.source} {version.creation_timestamp}")
    name = f"v{_plain(str(version.version))}-{made}"
    if not _is_kept(folder / name):
        for part in (_cache(), folder):  # each by itself: `parents` have no mode
            part.mkdir(parents=True, exist_ok=True, mode=0o700)
        _download(match, str(version.version), folder / name)
        _sweep(folder)
    return name


def _is_kept(copy: Path) -> bool:
    """Whether a valid copy is there, which is then marked as used. A damaged one is removed."""
    if not copy.is_dir():
        return False
    if not _whole(copy):
        _logger.warning("suffice: the local copy %s was damaged; fetching it anew", copy)
        shutil.rmtree(copy, ignore_errors=True)  # another process may do the same
        return False
    with suppress(OSError):  # it may be read-only
        os.utime(copy)
    return True


def _download(match: "re.Match[str]", version: str, copy: Path) -> None:
    """Fetch a version beside `copy`, check it, and put it in place."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".") as scratch:
        got = download_artifacts(f"{REGISTRY}{match['name']}/{version}", dst_path=scratch)
        found = sorted(Path(got).rglob("manifest.sha256"), key=lambda file: len(file.parts))
        if not found:
            raise ArtifactError(f"{match[0]}: version {version} holds no artifact")
        fetched = found[0].parent
        try:
            load_artifact(fetched)  # a bad one is never kept
        except ArtifactError as error:
            told = str(error).replace(str(fetched), f"version {version}")
            raise ArtifactError(f"{match[0]}: {told}") from error
        try:
            fetched.rename(copy)
        except OSError:  # another process was quicker
            if not copy.is_dir():
                raise


def _sweep(folder: Path) -> None:
    """Remove all copies but the `KEEP` used last and those that aliases last led to."""
    for old in {*sorted(folder.glob("v*"), key=age)[:-KEEP]} - _led_to(folder):
        shutil.rmtree(old, ignore_errors=True)


def _led_to(folder: Path) -> set[Path]:
    """The copies that aliases last led to, and that serve these aliases during an outage."""
    aliases = (file for file in folder.glob("at-*") if not _VERSION.match(file.name))
    return {folder / name for file in aliases if (name := _read(file))}


def _whole(copy: Path) -> bool:
    """Whether a copy is a valid artifact; not read again while its files look unchanged."""
    seen = mark(copy)
    if seen in _WHOLE:
        return True
    try:
        load_artifact(copy)
    except ArtifactError:
        return False
    _WHOLE.add(seen)
    return True


def _cache() -> Path:
    named = os.environ.get("SUFFICE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "suffice"


def _registry() -> str:
    """The registry's URI, empty where none is set (MLflow writes it to these variables, too)."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI") or ""


def _pointer(folder: Path, name: str) -> Path:
    """The file that says which copy an alias or a version of this registry last led to."""
    return folder / f"at-{name}.{_digest(_registry())}"


def _point(pointer: Path, copy: str) -> None:
    beside = pointer.with_name(f".{pointer.name}.{token_hex(4)}")
    beside.write_text(copy, encoding="ascii")
    beside.replace(pointer)


def _pointed(folder: Path, name: str) -> Path | None:
    kept = folder / _read(_pointer(folder, name))
    return kept if kept.parent == folder and kept.is_dir() else None


def _read(pointer: Path) -> str:
    """The name of a copy; empty where the pointer is not there, or damaged."""
    try:
        return pointer.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


def _plain(name: str) -> str:
    """A name as a safe file name, so that none leads out of the cache."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda odd: f"%{ord(odd[0]):x}", name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _why(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "a registry needs mlflow (pip install 'suffice[mlflow]')"
    unset = "" if _registry() else " (MLFLOW_TRACKING_URI is not set)"
    return f"{type(error).__name__}: {str(error)[:300]}{unset}"
