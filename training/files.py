"""Files that jobs write: refused before the work where they cannot be, and there whole or not."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from training.errors import BadInput, EnvironmentProblem


def check_file(out: Path, *read: Path | None) -> None:
    """Refuse a place that no file can have, or that holds what the job reads.

    Args:
        out: where the job will write.
        read: files and folders that it reads; None is passed over.

    Raises:
        BadInput: a folder, under a file, or (in) something that is read.
        EnvironmentProblem: the folder may not be written.
    """
    if out.is_dir():  # so are "" and "."
        raise BadInput(f"{out}: is a folder; name a file in it, e.g. results/new.json")
    check_folder(out.parent)
    place = out.resolve()
    for source in read:
        if source is None or not place.is_relative_to(source.resolve()):
            continue
        what = "a file" if place == source.resolve() else f"in {source}"
        raise BadInput(f"{out}: is {what}, which this job reads; write to another place")


def check_folder(folder: Path) -> None:
    """BadInput or EnvironmentProblem where a folder cannot be made, or nothing be made in it."""
    whole = folder.absolute()
    there = next(place for place in (whole, *whole.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise BadInput(f"{folder}: {there} is a file, not a folder; write to another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentProblem(f"{folder}: the folder {there} may not be written by this account")
    try:
        with TemporaryFile(dir=there):  # some places take no files from anybody, as /proc
            pass
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder}: nothing can be made in {there} ({error.strerror}); write to another place"
        ) from error


def write_arrays(
    out: Path | BytesIO, arrays: Mapping[str, NDArray[Any]], packed: bool = False
) -> None:
    """Write named arrays as .npz, of which none is pickled.

    Raises:
        TypeError: one holds Python objects.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"{name}: an array of objects, which only pickle writes")
    # By no argument: numpy 2.0 and 2.1 write allow_pickle as an array of that name.
    (np.savez_compressed if packed else np.savez)(out, **cast(Any, arrays))


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A file beside `out` to write; it takes its place at the end, and is removed on failure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.part")
    try:
        yield beside
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)


def write_text(out: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(out) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(out: Path, values: Mapping[str, Any]) -> None:
    """Write values as a JSON file, whole or not at all."""
    write_text(out, json.dumps(values, indent=2))
