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
    """Print what a report comes to, and its tables."""
    from training.show.answer import answer_lines
    from training.show.tables import report_tables

    for line in (*answer_lines(report), *report_tables(report)):
        typer.echo(line)
