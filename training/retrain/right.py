"""What a killed job, or a change by hand, left half done, and how the next job puts it right."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from router.artifact import ArtifactError, load_artifact
from training.export import place
from training.retrain.registry import CHAMPION, Registry, Version, end_orphans
from training.retrain.settings import Settings

JOB = "suffice.retrain.folder"  # tag of a job's runs: where it serves


def served(folder: Path) -> str | None:
    """The version of the artifact in the serving folder; None where there is no valid one."""
    try:
        return load_artifact(folder).version
    except (ArtifactError, OSError):
        return None


def amiss(settings: Settings, champion: Version | None, now: str | None) -> Iterator[str]:
    """What `put_right` would do to the folder or the registry, for a dry run.

    now: the version that the folder serves.
    """
    if champion is None and now is not None:
        yield f"adopt {now}, which {settings.folder} serves, as the champion"
    elif champion is not None and now != champion.artifact:
        yield (
            f"put the champion, {champion.artifact} (version {champion.number}), back into "
            f"{settings.folder}, which serves {now or 'nothing'}"
        )


def put_right(settings: Settings, registry: Registry) -> Iterator[str]:
    """Put right runs, the serving folder and the registry; yields what was done."""
    orphans = end_orphans(registry.mlflow, JOB, str(settings.folder.resolve()))
    if orphans:
        yield f"runs of a job that was killed, now marked as such: {orphans}"
    champion, now = registry.of(CHAMPION), served(settings.folder)
    if champion is None and now is not None:
        with registry.mlflow.start_run(
            run_name=f"adopt {now}", tags={JOB: str(settings.folder.resolve())}
        ):
            told = f"Adopted: {settings.folder} served it without a champion in the registry."
            adopted = registry.register(settings.folder, now, {"gate": "adopted"}, told)
        registry.promote(adopted)
        yield (
            f"{settings.folder} serves {now}, but model {settings.model!r} has no champion: it "
            f"is registered as version {adopted.number} and is the champion now"
        )
    elif champion is not None and now != champion.artifact:
        with tempfile.TemporaryDirectory() as scratch:
            place(registry.fetch(champion, Path(scratch)), settings.folder)
        yield (
            f"{settings.folder} served {now or 'nothing'}; the champion is "
            f"{champion.artifact} (version {champion.number}): it was put there"
        )
