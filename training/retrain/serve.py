"""By hand: another version of the registered model becomes the champion and is served."""

import tempfile
from pathlib import Path

from training.export import placing
from training.retrain.lock import serving_lock
from training.retrain.registry import PREVIOUS, SERVES, Registry, Version
from training.tracking import connected


def promote(model: str, number: str, folder: Path) -> str:
    """Make a version (its number or alias) the champion and put its artifact into `folder`.

    Raises:
        BadInput: there is no such version.
        EnvironmentProblem: the registry failed, or a job is under way.
    """
    with (
        serving_lock(folder, 0.0),
        connected("did not promote", SERVES, making=False) as (mlflow, _),
    ):
        registry = Registry(mlflow, model)
        version = registry.version(number)
        with tempfile.TemporaryDirectory() as scratch:
            artifact = registry.fetch(version, Path(scratch))
            with placing(artifact, folder):
                old = registry.promote(version)
    return _told(version, old, folder)


def rollback(model: str, folder: Path) -> str:
    """Give the champion's place back to the previous version; errors as `promote`."""
    return promote(model, PREVIOUS, folder)


def _told(version: Version, old: Version | None, folder: Path) -> str:
    was = f", was version {old.number} ({old.artifact})" if old else ""
    return f"champion: version {version.number} ({version.artifact}){was}; served from {folder}"
