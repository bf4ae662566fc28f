"""Options that several commands share."""

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


Quiet = Annotated[
    bool, typer.Option("--quiet", help="No progress: results and errors only.", callback=_quieten)
]
