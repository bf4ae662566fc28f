"""Options that several commands share."""

from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from training.console import set_quiet

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Traffic = Annotated[Path, typer.Option(help="Traffic table, Parquet.")]
ArtifactPath = Annotated[Path, typer.Argument(help="Artifact folder.", metavar="ARTIFACT")]
Estimated = Annotated[
    bool, typer.Option(help="Estimate propensities that the log lacks; every output says so.")
]


def _quieten(quiet: bool) -> None:
    if quiet:
        set_quiet(True)


def _tell_version(version: bool) -> None:
    if version:
        typer.echo(f"suffice {version_of('suffice')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", help="Say which version this is.", callback=_tell_version, is_eager=True
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="No progress: results and errors only.", callback=_quieten)
]
