"""One job at a time for each serving folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from training.errors import EnvironmentProblem


@contextmanager
def serving_lock(folder: Path, wait_seconds: float) -> Iterator[None]:
    """Hold the lock of a serving folder; it is freed when the process ends, however it ends.

    Raises:
        EnvironmentProblem: another job holds it for longer than `wait_seconds`.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock", timeout=wait_seconds)
    try:
        lock.acquire()
    except Timeout:
        raise EnvironmentProblem(
            f"another job works on {folder} ({lock.lock_file} is held): run this one later, or "
            "give it [serve] wait_seconds"
        ) from None
    try:
        yield
    finally:
        lock.release()
