"""Watching a router that serves: `suffice drift` and `suffice monitor`."""

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import ArtifactPath, Json, Quiet, Traffic
from training.commands.output import tell_found
from training.console import step
from training.files import check_file


def drift(
    reference: Annotated[Path, typer.Option(help="Folder of the artifact in service.")],
    traffic: Traffic,
    out: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether recent traffic is still like the training traffic.

    Exit codes: 0 nothing is due, 1 retraining is due.

    Example: suffice drift --reference artifacts/current --traffic recent.parquet --out drift.html
    """
    from training.watch.drift import drift as run

    if out is not None:
        check_file(out, reference, traffic)
    with step("drift"):
        found = run(reference, traffic)
    if out is not None:
        from training.watch.page import write_page

        write_page(found, reference, traffic, out)
    tell_found(found, as_json)
    if found.due:
        raise typer.Exit(1)


def monitor(
    artifact: ArtifactPath,
    traffic: Traffic,
    state: Annotated[
        Path, typer.Option(help="JSON file that remembers earlier runs, of each artifact.")
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether live labels show the promise to be broken.

    However often it is run, the probability of a false alarm is at most 5 %. Each request counts
    once, in the first run in which it has a label. Exit codes: 0 no alarm, 1 alarm.

    Example: suffice monitor artifacts/current --traffic today.parquet --state monitor.json
    """
    from training.watch.monitor import monitor as run

    found = run(artifact, traffic, state)
    tell_found(found, as_json)
    if found.alarm:
        raise typer.Exit(1)
