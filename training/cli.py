"""The command line: thin, lazy, and the only place that turns errors into exit codes."""

import sys
from traceback import print_exc

import typer

from training.commands.artifacts import demo, distill, policy, reprice, train
from training.commands.labels import judge, label, replay
from training.commands.log import forget, ingest, init, inspect
from training.commands.options import Quiet, Version
from training.commands.retraining import backtest, compare, promote, retrain, rollback
from training.commands.review import bench, evaluate, explain, report, route, score
from training.commands.watch import drift, monitor
from training.console import complain
from training.errors import SufficeError

app = typer.Typer(
    name="suffice",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn from your own LLM logs which prompts a small model answers well enough.\n\n"
    "Exit codes: 0 ok, 1 the job's answer is no, 2 usage or bad input, 3 environment.",
)

COMMANDS = (  # in the order of `suffice --help`
    ingest,
    forget,
    label,
    train,
    policy,
    reprice,
    score,
    evaluate,
    report,
    route,
    explain,
    inspect,
    init,
    replay,
    judge,
    retrain,
    backtest,
    promote,
    rollback,
    compare,
    bench,
    drift,
    monitor,
    distill,
    demo,
)


@app.callback()
def _common(quiet: Quiet = False, version: Version = False) -> None:
    """Take --quiet before the command as well as after it."""


for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line; every error becomes a sentence and an exit code."""
    from router import ArtifactError

    try:
        app()
    except SufficeError as error:
        complain(f"error: {error}")
        sys.exit(error.exit_code)
    except ArtifactError as error:
        complain(f"error: {error}")  # of an artifact that is damaged, or for want of onnxruntime
        sys.exit(3 if isinstance(error.__cause__, ImportError) else 2)
    except OSError as error:
        complain(f"error: {error}")
        sys.exit(3)
    except ModuleNotFoundError as error:
        complain(f"error: {error.name} is not installed; pip install 'suffice[train]'")
        sys.exit(3)
    except Exception:  # Python's own exit code would be 1, and a scheduler take it for the job's no
        print_exc()
        complain("error: a fault in suffice itself; please report it with the lines above")
        sys.exit(3)
