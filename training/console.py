"""Progress and words for people, on stderr, so that stdout stays for results.

A terminal gets a spinner and styled lines; a file, a pipe or a scheduler's log gets plain lines.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from shutil import get_terminal_size
from time import perf_counter

from rich.console import Console
from rich.table import Table

WIDTH = 150  # of tables, in columns, where no terminal says how wide it is

_console = Console(stderr=True, highlight=False, soft_wrap=True)


def set_quiet(quiet: bool) -> None:
    """Say nothing but errors (`--quiet`)."""
    _console.quiet = quiet


def say(line: str) -> None:
    """Print one line of progress; `line` is text, never markup."""
    _console.print(line, markup=False)


@contextmanager
def quieted(quiet: bool = True) -> Iterator[None]:
    """Within the block print errors only or, with `quiet` false, everything."""
    was, _console.quiet = _console.quiet, quiet
    try:
        yield
    finally:
        _console.quiet = was


def complain(line: str) -> None:
    """Print an error, also under `--quiet`."""
    with quieted(False):
        _console.print(line, style="red", markup=False)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Show that `name` is under way and, at its end, how many seconds it took."""
    started = perf_counter()
    if _console.is_terminal and not _console.quiet:
        with _console.status(name):
            yield
    else:
        yield
    say(f"{name}  {perf_counter() - started:.1f} s")


def render(table: Table) -> str:
    """A table as plain text, as wide as the terminal, or WIDTH where stdout is none.

    Cells are text, never markup: tiers, sources and models may be called anything. What is too
    long for its column is folded, never cut: two names may differ in their ends only.
    """
    for column in table.columns:
        column.overflow = "fold"
    width = get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    page = Console(file=StringIO(), width=width, no_color=True, markup=False, emoji=False)
    page.print(table)
    assert isinstance(page.file, StringIO)
    return page.file.getvalue().rstrip()
