"""`suffice forget`: take people's rows out of a data set, and say which artifacts saw them.

What is beside the data set goes first (bad rows in quarantine, answers in a replay's journal), then
the rows, in one step: a kill at any point leaves the data set as it was or as it should be, and the
same command again does the rest. What artifacts saw is told before anything is removed.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from router.artifact import ArtifactError, read_artifact
from training.ask.journal import FAILED
from training.ask.run import journal_path
from training.errors import BadInput, EnvironmentProblem
from training.learn.seen import id_hashes
from training.log.partitions import commit, recover
from training.log.place import alone
from training.log.pseudonyms import PLAIN, Pseudonyms
from training.log.store import read_label, stored_files
from training.tracking import run_files

BATCH_ROWS = 4096
HEADS = (  # of a run: where the ids' hashes are, as `train` and as `retrain` keep an artifact
    "artifact/heads.npz",
    "model/data/artifact/heads.npz",
)


@dataclass(frozen=True, slots=True)
class Saw:
    """An artifact (folder or MLflow run) that was fitted or chosen on requests of these people."""

    place: str
    version: str
    requests: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed: rows and requests of the data set, lines beside it; and who saw them.

    `unknown` are the ids, as given, that no row had.
    """

    dataset: Path
    rows: int
    requests: int
    quarantined: int
    answers: int
    saw: tuple[Saw, ...]
    looked: bool
    unknown: tuple[str, ...] = ()

    @property
    def artifacts(self) -> int:
        """How many artifacts saw them: a folder and its runs hold the same."""
        return len({one.version or one.place for one in self.saw})

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self) | {"dataset": str(self.dataset)}

    def as_text(self) -> list[str]:
        """For people."""
        removed = f"{self.dataset}: {self.rows} rows of {self.requests} requests removed"
        if self.unknown:
            removed += "; no such user_id is in it, as given or under this table's key: "
            removed += ", ".join(map(repr, self.unknown))
        beside = f"beside it {self.quarantined} bad rows and {self.answers} replayed answers"
        saw = "which artifacts saw them was not asked (--artifacts, --mlflow)"
        if self.looked:
            saw = f"{self.artifacts} artifacts saw them"
            saw += ": train again without them" if self.saw else ""
        return [f"{removed}; {beside}; {saw}"]


def forget(
    dataset: Path,
    users: Sequence[str],
    artifacts: Sequence[Path] = (),
    runs: bool = False,
    tell: Callable[[Sequence[Saw]], None] = lambda _: None,
) -> Forgotten:
    """Remove the rows of `users`, ids as they are in the log or as they are in the table.

    Args:
        dataset: a Parquet file, or a folder of partitions.
        users: whose `user_id`; the key that hashed them is found as `ingest` finds it.
        artifacts: artifact folders, or folders that hold some, to look through.
        runs: look through the runs in MLflow, too.
        tell: called with what artifacts saw, before anything is removed.

    Raises:
        BadInput: no such data set, or it is no Parquet; the key is not there; an artifact cannot be
            read; another process is writing. Nothing was removed.
        EnvironmentProblem: MLflow is out of reach, or the disk does not take the files.
    """
    if not dataset.exists():
        journal = journal_path(dataset)
        holds = f", but {journal} holds answers: run its job to the end, or remove the file"
        raise BadInput(f"{dataset}: no such data set{holds * journal.exists()}")
    if not all(users):
        raise BadInput("--user: an empty id is nobody's")
    try:
        with alone(dataset):
            return _forget(dataset, users, artifacts, runs, tell)
    except OSError as error:
        raise EnvironmentProblem(
            f"{dataset}: cannot be written ({error.strerror or error})"
        ) from error


def _forget(
    dataset: Path,
    users: Sequence[str],
    artifacts: Sequence[Path],
    runs: bool,
    tell: Callable[[Sequence[Saw]], None],
) -> Forgotten:
    if dataset.is_dir():
        recover(dataset)
    else:
        for stray in dataset.parent.glob(f".{dataset.name}.*.part"):
            stray.unlink()  # of an ingest that was killed: it may hold rows
    files = stored_files(dataset)
    if not files:
        raise BadInput(f"{dataset}: holds no Parquet file")
    known_as = _names(dataset, users)
    everyone = set().union(*known_as.values())
    names = pa.array(sorted(everyone))
    found = {path: theirs for path in files if (theirs := _theirs(path, names))}
    ids = {request for each in found.values() for request, _ in each}
    seen = {user for each in found.values() for _, user in each}
    unknown = tuple(user for user, named in known_as.items() if not named & seen)
    saw = tuple(_who_saw(ids, artifacts, runs))
    tell(saw)
    quarantined = _clear_quarantine(dataset.with_name(f"{dataset.name}.quarantine.jsonl"), users)
    answers = _clear_journal(journal_path(dataset), ids, everyone)
    _remove(dataset, list(found), names)
    rows = sum(len(each) for each in found.values())
    looked = bool(artifacts) or runs
    return Forgotten(dataset, rows, len(ids), quarantined, answers, saw, looked, unknown)


def _names(dataset: Path, users: Sequence[str]) -> dict[str, set[str]]:
    """As what the table may name each user: as given, and hashed where it holds hashes."""
    label = read_label(dataset)
    if label in (None, PLAIN):
        return {user: {user} for user in users}
    hashed = Pseudonyms(dataset, keep=False).of
    return {user: {user, hashed(user)} for user in users}


def _matches(batch: pa.RecordBatch, names: pa.Array) -> pa.Array:
    users = pc.cast(batch.column("user_id"), pa.string())
    return pc.fill_null(pc.is_in(users, value_set=names), False)


def _theirs(path: Path, names: pa.Array) -> list[tuple[str, str]]:
    """request_id and user_id of each row of the people, in one file."""
    try:
        with pq.ParquetFile(path) as file:
            if missing := {"user_id", "request_id"} - set(file.schema_arrow.names):
                raise BadInput(f"{path}: no column {', '.join(sorted(missing))}")
            batches = file.iter_batches(BATCH_ROWS, columns=["request_id", "user_id"])
            return [
                (str(row["request_id"]), str(row["user_id"]))
                for batch in batches
                for row in batch.filter(_matches(batch, names)).to_pylist()
            ]
    except pa.ArrowException as error:
        raise BadInput(f"{path}: not a whole Parquet file ({error})") from None


def _remove(dataset: Path, files: Sequence[Path], names: pa.Array) -> None:
    """Rewrite the files without the people's rows, then put them all in their places at once."""
    moves: list[tuple[Path, Path]] = []
    gone: list[Path] = []
    for path in files:
        beside = path.with_name(f".{path.name}.forget.part")
        if _copy_others(path, beside, names) or path == dataset:
            moves.append((beside, path))
        else:
            beside.unlink()
            gone.append(path)
    if dataset.is_dir():
        if files:
            commit(dataset, moves, gone)
        return
    for beside, path in moves:
        beside.replace(path)


def _copy_others(path: Path, beside: Path, names: pa.Array) -> int:
    """Write what is not theirs, every column as it is; how many rows that is."""
    rows = 0
    with (
        pq.ParquetFile(path) as file,
        pq.ParquetWriter(beside, file.schema_arrow, compression="zstd") as writer,
    ):
        for batch in file.iter_batches(BATCH_ROWS):
            kept = batch.filter(pc.invert(_matches(batch, names)))
            rows += len(kept)
            writer.write_batch(kept)
    with beside.open("rb") as written:
        os.fsync(written.fileno())
    return rows


def _clear_quarantine(path: Path, users: Sequence[str]) -> int:
    """Drop the bad rows in whose raw text one of the ids stands; how many."""
    spelled = {text for user in users for text in (user, json.dumps(user)[1:-1])}
    theirs = re.compile("|".join(rf"(?<![\w@]){re.escape(s)}(?![\w@])" for s in sorted(spelled)))

    def without(record: dict[str, Any]) -> dict[str, Any] | None:
        return None if theirs.search(f"{record.get('raw')}\n{record.get('reason')}") else record

    return _rewrite(path, without)


def _clear_journal(path: Path, requests: set[str], users: set[str]) -> int:
    """Make failures of the answers to the people's requests; how many.

    What they cost stays counted, and no later run takes an emptied answer for what a model said.
    Also of requests without a row: where a judge's reply held no verdict, and where the people's
    rows were taken out of the log between two runs.
    """
    keys: set[str] = set()

    def without(record: dict[str, Any]) -> dict[str, Any]:
        if record.get("request_id") in requests or record.get("user_id") in users:
            keys.add(str(record.get("key")))
        known = record.get("key") in keys and record.get("text")
        return record | {"kind": FAILED, "text": None, "error": "forgotten"} if known else record

    return _rewrite(path, without)


def _rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> int:
    """Change the JSON lines of a file that may not be there; how many were changed."""
    try:
        file = path.open("r+", encoding="utf-8")
    except FileNotFoundError:
        return 0
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{path}: a run is writing it; wait for its end") from None
        lines = [line for line in file if line.endswith("\n")]
        changed = [_changed(line, change) for line in lines]
        count = sum(old != new for old, new in zip(lines, changed, strict=True))
        if count:
            beside = path.with_name(f".{path.name}.forget.part")
            with os.fdopen(
                os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w"
            ) as to:
                to.writelines(changed)
            beside.replace(path)
    return count


def _changed(line: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return line
    kept = change(record)
    if kept is record:
        return line
    return "" if kept is None else json.dumps(kept, ensure_ascii=False) + "\n"


def _who_saw(ids: set[str], artifacts: Sequence[Path], runs: bool) -> Iterator[Saw]:
    hashes = id_hashes(np.array(sorted(ids), dtype=object)) if ids else np.zeros(0, np.uint64)
    for folder in _artifact_folders(artifacts):
        try:
            artifact, arrays = read_artifact(folder)
        except ArtifactError as error:
            raise BadInput(f"{folder}: {error}") from error
        if count := _common(hashes, arrays.get("fitted")):
            yield Saw(str(folder), artifact.version, count)
    for run, version, path in run_files(HEADS) if runs else ():
        try:
            with np.load(path, allow_pickle=False) as arrays:
                fitted = arrays["fitted"]
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise BadInput(f"MLflow run {run}: {path.name} cannot be read ({error})") from error
        if count := _common(hashes, fitted):
            yield Saw(f"MLflow run {run}", version, count)


def _artifact_folders(given: Iterable[Path]) -> Iterator[Path]:
    for folder in given:
        found = sorted(path.parent for path in folder.rglob("manifest.json"))
        if not found:
            raise BadInput(f"--artifacts {folder}: no artifact (manifest.json) in it")
        yield from found


def _common(hashes: NDArray[np.uint64], fitted: NDArray[np.uint64] | None) -> int:
    return 0 if fitted is None else int(np.isin(hashes, fitted).sum())
