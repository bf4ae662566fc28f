"""Where a traffic table is written: a place that can hold one, and one writer at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import BadInput
from training.files import check_folder
from training.log.adapters.files import plain_name
from training.log.adapters.records import kind_of
from training.log.sources import SUFFIXES


def table_place(out: str | Path) -> tuple[Path, bool]:
    """The table that `--out` names, and whether it is a folder with a partition a day.

    Raises:
        BadInput: no name, a file's name where a folder is meant, the name of another kind of file,
            or a file that is there and is no Parquet.
        EnvironmentProblem: the folder may not be written.
    """
    path = Path(out)
    if not path.name:
        raise BadInput(f"--out {str(out)!r} names no table; give a file, or FOLDER/ for one by day")
    check_folder(path.parent)
    if path.is_dir():
        return path, True
    if str(out).endswith(("/", os.sep)):
        if path.exists():
            raise BadInput(f"{path}: is a file, not a folder of partitions; leave out the slash")
        return path, True
    better = f"e.g. --out {path.with_suffix('.parquet')}"
    if Path(plain_name(path)).suffix in SUFFIXES - {".parquet"}:
        raise BadInput(f"{path}: a traffic table is a Parquet file; name it so, {better}")
    if path.exists() and kind_of(path) != "Parquet":
        raise BadInput(f"{path}: is there, and no Parquet file; choose another name, {better}")
    return path, False


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Refuse to work on a table that another process is writing."""
    path = out.with_name(f".{out.name}.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{out}: another job is writing it; wait for its end") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
