"""Logs in: the traffic table, people taken out of it, and what is in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Json, Quiet
from training.commands.output import print_json, tell_found
from training.console import say, step
from training.errors import BadInput


def ingest(
    sources: Annotated[
        list[str], typer.Argument(help="Log files, folders or globs.", metavar="SRC...")
    ],
    out: Annotated[
        str,
        typer.Option(help="Traffic table to write or add to: a file, or FOLDER/ (split by day)."),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="auto, suffice, litellm, openai, mlflow, otel, langfuse, table, routellm."
        ),
    ] = "auto",
    map: Annotated[
        Path | None, typer.Option(help="TOML file that maps your columns to the table's.")
    ] = None,
    max_bad: Annotated[
        float, typer.Option(help="Fail above this share of bad rows (0.01 is 1 %).")
    ] = 0.01,
    keep_ids: Annotated[bool, typer.Option(help="Keep user and session ids as they are.")] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Mask e-mail, phone, card numbers and keys in texts.")
    ] = False,
    features_only: Annotated[
        bool, typer.Option("--features-only", help="Store features of the prompts and no text.")
    ] = False,
    embedder: Annotated[
        str | None, typer.Option(help="For --features-only: static, minilm or a folder.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read logs into the traffic table.

    Example: suffice ingest llm_requests.csv --out traffic.parquet --map columns.toml
    """
    from training.log.ingest import ingest as run

    if embedder is not None and not features_only:
        raise BadInput("--embedder goes with --features-only; a table with text fits any embedder")
    by = None
    if features_only:
        from training.learn.embedders import resolve_embedder

        by = resolve_embedder(embedder or "static")
    with step("ingest"):
        report = run(sources, out, format, map, max_bad, keep_ids, redact=redact, features_by=by)
    for note in report.notes:
        say(note)
    if as_json:
        print_json(report.as_json())
    else:
        counts = ", ".join(f"{count} {name}" for name, count in report.total.items())
        typer.echo(f"{report.out}: {report.rows} rows ({counts})")


def forget(
    dataset: Annotated[
        Path,
        typer.Argument(help="Traffic table: file, or folder by day.", metavar="TRAFFIC"),
    ],
    user: Annotated[list[str], typer.Option(help="Id, as in the log or the table; repeatable.")],
    artifacts: Annotated[
        list[Path] | None,
        typer.Option(help="Artifact to check, or a folder that holds some; repeatable."),
    ] = None,
    runs: Annotated[bool, typer.Option("--mlflow", help="Check MLflow's runs, too.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove people's rows, and say which artifacts saw them.

    Example: suffice forget --user ann@example.org traffic.parquet --artifacts artifacts
    """
    from training.forget import Saw
    from training.forget import forget as run

    def tell(saw: Sequence[Saw]) -> None:
        for one in saw:
            say(f"{one.place} ({one.version}): fitted or chosen on {one.requests} of the requests")

    with step("forget"):
        done = run(dataset, user, artifacts or [], runs, tell)
    tell_found(done, as_json)


def inspect(
    path: Annotated[
        Path,
        typer.Argument(help="Artifact folder or traffic table.", metavar="ARTIFACT|TRAFFIC"),
    ],
    quiet: Quiet = False,
) -> None:
    """Say in words what is in an artifact or a traffic table.

    Example: suffice inspect artifacts/current
    """
    from training.show.inspect import describe

    for line in describe(path):
        typer.echo(line)


def init(
    traffic: Annotated[Path, typer.Argument(help="Traffic table, Parquet.", metavar="TRAFFIC")],
    out: Annotated[Path, typer.Option(help="Tiers file to write.")] = Path("tiers.toml"),
    quiet: Quiet = False,
) -> None:
    """Write a tiers file from the models and prices seen in a log.

    Example: suffice init traffic.parquet --out tiers.toml
    """
    from training.tiers_file import write_tiers

    for line in write_tiers(traffic, out):
        typer.echo(line)
