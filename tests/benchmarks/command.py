"""The command as a user runs it, timed."""

import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter


def suffice(
    *arguments: str | Path | float, folder: Path
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run the command in a process of its own, with a store there; how it ended, and seconds."""
    started = perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "training", "--quiet", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, perf_counter() - started
