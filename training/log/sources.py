"""Which files a call names, and in which format each is, judged by content."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import BadInput
from training.log.adapters import Adapter, FileFormat, Mapping, Record, adapters, mlflow, table
from training.log.adapters.files import plain_name
from training.log.adapters.records import UNREADABLE, applied, kind_of, records, sample
from training.log.traffic import check_whole

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"})


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read (or a tracked experiment).

    `saw` says what its content was seen to be, `left` what of it is not read, if anything.
    """

    name: str
    format: str
    saw: str
    left: str = ""

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.name)


@dataclass(frozen=True, slots=True)
class Group:
    """Sources that are read together: one file, or all of a format whose files belong together."""

    sources: tuple[Source, ...]
    mapping: Mapping

    def records(self) -> Iterator[tuple[int, Record]]:
        """The records, each with the number of the source it is from, streamed."""
        first = self.sources[0]
        reader = adapters()[first.format]
        if isinstance(reader, FileFormat):
            yield from ((0, record) for record in reader.rows(first.path, self.mapping))
        elif reader.join:
            yield from reader.join([(source.path, source.saw) for source in self.sources])
        elif reader.rows:
            live = mlflow.is_tracked(first.name)
            found = mlflow.tracked(first.name) if live else records(first.path)
            yield from ((0, record) for record in applied(reader.rows, found))


def find_sources(
    given: Sequence[str | Path], format: str, mapping: Mapping, exclude: Iterable[Path]
) -> tuple[list[Group], list[str]]:
    """The log files among the paths, folders and globs given, in order, and notes on other files.

    Files of a folder that are no log of the format (a README, another table) are left out with a
    note; a file that is named must be one.

    Args:
        given: paths, folders and globs; `mlflow+URI#EXPERIMENT` names a tracked experiment.
        format: `auto` or the name of a format.
        mapping: which column is which; an empty one for none.
        exclude: files that ingest itself writes.

    Raises:
        BadInput: an unknown format, a mapping for a format that takes none, a named file that is no
            log of the format, a folder whose append is not finished, or no log at all.
    """
    known = adapters()
    if format != "auto" and format not in known:
        raise BadInput(f"--format {format} is not known; choose auto or {', '.join(known)}")
    names = list(known) if format == "auto" else [format]
    if mapping != Mapping():
        if format not in ("auto", "table"):
            raise BadInput(f"--map is for the table format; the fields of {format} are known")
        names = ["table"]
    own = {path.resolve() for path in exclude}
    found: list[Source] = []
    notes: list[str] = []
    others: list[Path] = []
    for name, named in _files(given, names, others):
        if not named and _is_own(Path(name), own):
            continue
        source, why = _recognise(name, names, mapping)
        if source:
            found.append(source)
        elif named:
            raise BadInput(f"{name}: {why}")
        else:
            notes.append(f"{name} left out: {why}")
    if others := [path for path in others if not _is_own(path, own)]:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        notes.append(f"{others[0]}{more} left out: no ending of a log; name it to read it")
    if not found:
        told = "; ".join(notes[:3]) or "no file with a known ending"
        raise BadInput(f"nothing to read in {', '.join(map(str, given)) or 'no source'}: {told}")
    notes += table.unseen([source.path for source in found if source.format == "table"], mapping)
    return _grouped(found, mapping), _seen(found) + notes


def _grouped(found: list[Source], mapping: Mapping) -> list[Group]:
    """Each source for itself, but those of a joining format together, where the first stands."""
    groups: dict[str, list[Source]] = {}
    for number, source in enumerate(found):
        reader = adapters()[source.format]
        joins = isinstance(reader, Adapter) and reader.join is not None
        groups.setdefault(source.format if joins else str(number), []).append(source)
    return [Group(tuple(sources), mapping) for sources in groups.values()]


def _recognise(file: str, names: list[str], mapping: Mapping) -> tuple[Source | None, str]:
    if mlflow.is_tracked(file):
        return Source(file, "mlflow", "a tracking server"), ""
    path, why = Path(file), ""
    of_records = any(isinstance(adapters()[name], Adapter) for name in names)
    if of_records and kind_of(path) == "empty":
        return None, "the file is empty"
    first = sample(path) if of_records else []
    for name in names:
        reader = adapters()[name]
        if isinstance(reader, FileFormat):
            saw, why = reader.recognise(path, mapping)
            if saw:
                return Source(file, name, saw, why), ""
        elif saw := next((seen for record in first if (seen := _asked(reader, record))), None):
            return Source(file, name, saw), ""
        else:
            columns = ", ".join(list(first[0])[:30]) if first else "none that could be read"
            why = f"no log of the format {name} (fields seen: {columns})"
    return None, why


def _asked(reader: Adapter, record: dict[str, Any]) -> str | None:
    try:
        return reader.saw(record)
    except UNREADABLE:
        return None


def _seen(found: list[Source]) -> list[str]:
    """One note for all files that look alike, and one for those of which the same is not read."""
    alike: dict[str, list[Source]] = {}
    for source in found:
        for told in (f"{source.format} ({source.saw})", source.left):
            if told:
                alike.setdefault(told, []).append(source)
    return [
        f"{group[0].name}{f' and {len(group) - 1} more' if len(group) > 1 else ''}: {told}"
        for told, group in alike.items()
    ]


def _is_own(path: Path, own: set[Path]) -> bool:
    """What ingest itself has written: the table, its partitions, its quarantine."""
    if path.name.endswith((".quarantine.jsonl", ".key")):
        return True
    return not own.isdisjoint([path.resolve(), *path.resolve().parents])


def _files(
    given: Sequence[str | Path], names: list[str], others: list[Path]
) -> Iterator[tuple[str, bool]]:
    """Files in order, and whether each was named (else it was found in a folder).

    To `others` go the files of folders that have no ending of a log.
    """
    suffixes = {".csv"} if names == ["routellm"] else SUFFIXES
    for text in given:
        path = Path(text)
        if path.is_dir():
            check_whole(path)
            for file in sorted(path.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                if hidden or not file.is_file():
                    continue
                if Path(plain_name(file)).suffix.lower() in suffixes:
                    yield str(file), False
                else:
                    others.append(file)
        elif path.is_file() or mlflow.is_tracked(str(text)):
            yield str(text), True
        elif matches := sorted(glob.glob(str(text), recursive=True)):  # noqa: PTH207 (absolute too)
            yield from ((match, True) for match in matches if Path(match).is_file())
        else:
            raise BadInput(f"{path}: no such file or folder")
