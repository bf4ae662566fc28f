"""Retraining, and which registered version serves as the champion."""

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Json, Quiet, Traffic
from training.commands.output import tell_found
from training.console import step

Model = Annotated[str, typer.Option(help="Name in the MLflow registry.")]


def retrain(
    config: Annotated[Path, typer.Option(help="The job's TOML file, see data/README.md.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train challengers; promote the best if it passes the gate.

    Exit codes: 0 promoted, nothing new, or nothing shown to be better; 1 the gate refused.

    Example: suffice retrain --config retrain.toml
    """
    from training.retrain.job import REFUSED
    from training.retrain.job import retrain as run

    done = run(config, dry_run)
    tell_found(done, as_json)
    if done.status == REFUSED:
        raise typer.Exit(1)


def backtest(
    config: Annotated[Path, typer.Option(help="The TOML file of `suffice retrain`.")],
    every: Annotated[float, typer.Option(help="Days between retrainings.", min=0.01)] = 7.0,
    plot: Annotated[Path | None, typer.Option(help="PNG file to write.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Simulate retraining over a past log: would it have paid?

    Example: suffice backtest --config retrain.toml --every 7 --plot backtest.png
    """
    from training.retrain.backtest import backtest as run

    found = run(config, every, plot)
    tell_found(found, as_json)


def promote(
    version: Annotated[str, typer.Argument(help="Number or alias of a registered version.")],
    folder: Annotated[Path, typer.Option(help="Artifact folder that the service loads.")],
    model: Model = "suffice",
    quiet: Quiet = False,
) -> None:
    """Make a registered version the champion, by hand.

    Example: suffice promote 7 --folder artifacts/current
    """
    from training.retrain.serve import promote as run

    typer.echo(run(model, version, folder))


def rollback(
    folder: Annotated[Path, typer.Option(help="Artifact folder that the service loads.")],
    model: Model = "suffice",
    quiet: Quiet = False,
) -> None:
    """Make the previous version the champion again.

    Example: suffice rollback --folder artifacts/current
    """
    from training.retrain.serve import rollback as run

    typer.echo(run(model, folder))


def compare(
    first: Annotated[str, typer.Argument(help="Folder, run, version or alias.", metavar="RUN")],
    second: Annotated[str, typer.Argument(help="The other router, likewise.", metavar="RUN")],
    traffic: Traffic,
    model: Model = "suffice",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two routers on the same traffic, new to both.

    Example: suffice compare champion challenger --traffic recent.parquet
    """
    from training.retrain.versus import compare as run

    with step("compare"):
        found = run(first, second, traffic, model)
    tell_found(found, as_json)
