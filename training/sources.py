"""Which files a call names, and in which format each is, judged by content."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.adapters import ADAPTERS, Mapping, Record
from training.errors import BadInput


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read; `saw` says what its content was seen to be."""

    path: Path
    format: str
    saw: str
    mapping: Mapping

    def rows(self) -> Iterator[Record]:
        """The file's records, streamed."""
        return ADAPTERS[self.format].rows(self.path, self.mapping)


def find_sources(
    given: Sequence[str | Path], format: str, mapping: Mapping, exclude: Iterable[Path]
) -> tuple[list[Source], list[str]]:
    """The readable files of the paths, folders and globs given, in order, and notes on the others.

    A file that is named must be readable: else BadInput with what was seen. In a folder, files that
    are no log of the format (a README, another table) are left out with a note.
    """
    if format != "auto" and format not in ADAPTERS:
        raise BadInput(f"--format {format} is not known; choose auto or {', '.join(ADAPTERS)}")
    names = list(ADAPTERS) if format == "auto" else [format]
    if format == "auto" and mapping != Mapping():
        names = ["table"]  # a mapping says that it is one
    own = {path.resolve() for path in exclude}
    found: list[Source] = []
    notes: list[str] = []
    for path, named in _files(given, names):
        if not named and (path.resolve() in own or path.name.endswith(".quarantine.jsonl")):
            continue
        source, why = _recognise(path, names, mapping)
        if source:
            found.append(source)
        elif named:
            raise BadInput(f"{path}: {why}")
        else:
            notes.append(f"{path} left out: {why}")
    if not found:
        told = "; ".join(notes[:3]) or "no file with a known ending"
        raise BadInput(f"nothing to read in {', '.join(map(str, given)) or 'no source'}: {told}")
    return found, _seen(found) + notes


def _recognise(path: Path, names: list[str], mapping: Mapping) -> tuple[Source | None, str]:
    why = ""
    for name in names:
        saw, why = ADAPTERS[name].recognise(path, mapping)
        if saw:
            return Source(path, name, saw, mapping), ""
    return None, why


def _seen(found: list[Source]) -> list[str]:
    """One note for all files that look alike."""
    by_kind: dict[tuple[str, str], list[Source]] = {}
    for source in found:
        by_kind.setdefault((source.format, source.saw), []).append(source)
    return [
        f"{group[0].path}{f' and {len(group) - 1} more' if len(group) > 1 else ''}: "
        f"{format} ({saw})"
        for (format, saw), group in by_kind.items()
    ]


def _files(given: Sequence[str | Path], names: list[str]) -> Iterator[tuple[Path, bool]]:
    """Files in order, and whether each was named (else it was found in a folder)."""
    suffixes = {suffix for name in names for suffix in ADAPTERS[name].suffixes}
    for text in given:
        path = Path(text)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                known = Path(file.name.removesuffix(".gz")).suffix in suffixes
                if known and not hidden and file.is_file():
                    yield file, False
        elif path.is_file():
            yield path, True
        elif matches := sorted(glob.glob(str(text), recursive=True)):  # noqa: PTH207 (also absolute)
            yield from ((Path(match), True) for match in matches if Path(match).is_file())
        else:
            raise BadInput(f"{path}: no such file or folder")
