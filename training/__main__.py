"""The command `suffice`, also `python -m training`: a serving install is told what jobs need."""

import sys


def main() -> None:
    """Run the command line, or name the extra that it needs."""
    try:
        from training.cli import main as run
    except ModuleNotFoundError as missing:
        told = f"error: {missing.name} is not installed, and jobs need it: pip install"
        sys.stderr.write(f"{told} 'suffice[train]'\n")
        sys.exit(3)
    run()


if __name__ == "__main__":
    main()
