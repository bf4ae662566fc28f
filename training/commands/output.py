"""How commands print what they found, for a machine or for people."""

import json
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Print a result for a machine."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def tell_found(found: Any, as_json: bool) -> None:
    """Print what has `as_json` and `as_text`."""
    if as_json:
        print_json(found.as_json())
        return
    for line in found.as_text():
        typer.echo(line)


def show_report(report: Any) -> None:
    """Print the tables of a report."""
    from training.show.tables import report_tables

    for table in report_tables(report):
        typer.echo(table)
