"""Log files → the traffic table, in constant memory (24 bytes a row, the hashes of keys).

Rows stream through an adapter and `training.log.normalise` into a Parquet file beside the
target; duplicates are resolved at the end, in a second pass where there are any; then the file is
renamed over the target. A row that cannot be read goes to a quarantine file with its line and the
reason, and more than `max_bad` of them refuse the whole run: the target stays as it was.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from router.embedder import Embedder
from training.errors import BadInput, EnvironmentProblem
from training.log.adapters import Bad, Row, Skip, read_mapping
from training.log.adapters.files import RAW_LIMIT
from training.log.adapters.records import kind_of
from training.log.imprint import MadeBy, made_by
from training.log.imprinter import Imprinter, featured
from training.log.layout import SCHEMA, to_arrow
from training.log.ledger import COUNTS, FileReport, Ledger
from training.log.normalise import Problem, normalise
from training.log.partitions import Folder
from training.log.place import alone, table_place
from training.log.pseudonyms import Pseudonyms
from training.log.quarantine import Quarantine
from training.log.redact import mask_values
from training.log.sources import Group, Source, find_sources
from training.log.store import OneFile, labelled, read_label, stored_files

BATCH_ROWS, BATCH_CHARS = 4096, 2**23


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Counts per file, the rows that `out` now holds, and what people should know about them."""

    files: tuple[FileReport, ...]
    out: Path
    rows: int
    quarantine: Path | None
    notes: tuple[str, ...]

    @property
    def total(self) -> dict[str, int]:
        """The counts summed over the files."""
        return {name: sum(getattr(file, name) for file in self.files) for name in COUNTS}

    def as_json(self) -> dict[str, Any]:
        """{"files": [{path, format, read, …}], "total": {read, …}} for machines."""
        files = [{k: v for k, v in asdict(file).items() if k != "saw"} for file in self.files]
        return {"files": files, "total": self.total}


def ingest(
    sources: Sequence[str | Path],
    out: str | Path,
    format: str = "auto",
    map_file: str | Path | None = None,
    max_bad: float = 0.01,
    keep_ids: bool = False,
    redact: bool = False,
    features_by: Embedder | None = None,
) -> IngestReport:
    """Add the rows of log files to a traffic table, which is made if absent.

    The key of a row is its request_id and its tier (its model, where it has no tier). Of rows with
    the same key the last one counts; a row that is already there is not added again. Bad rows go to
    `<out>.quarantine.jsonl`, which replaces the one of the run before.

    Args:
        sources: files, folders and globs.
        out: a Parquet file, or a folder with a partition per day: a folder that exists, or a name
            that ends in a slash.
        format: `auto` or the name of a format.
        map_file: TOML that says which column of the log is which of the table.
        max_bad: share of bad rows above which nothing is written.
        keep_ids: keep user and session ids. Otherwise they become keyed hashes; the key is
            SUFFICE_KEY, else the file `<out>.key`, which is made with mode 0600.
        redact: mask e-mail addresses, phone and card numbers and keys in all texts, also in the
            quarantine (see `training.log.redact`).
        features_by: write no text, but the features that training needs, by this embedder (see
            `training.log.imprint`).

    Raises:
        BadInput: a source that cannot be read, or whose ids were hashed with another key; no rows,
            or more than the fraction `max_bad` of bad rows; `out` is left as it was.
        EnvironmentProblem: the disk does not take the files.
    """
    out, by_day = table_place(out)
    if not 0 <= max_bad <= 1:
        raise BadInput(f"--max-bad {max_bad} is no fraction between 0 and 1")
    mapping = read_mapping(Path(map_file) if map_file else None)
    beside = out.with_name(f"{out.name}.quarantine.jsonl")
    found, notes = find_sources(sources, format, mapping, (out, beside))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        bare = features_by is not None
        with _lean_memory(), alone(out), Quarantine(beside, redact, bare) as bad:
            ids = Pseudonyms(out, keep_ids, keyed=bare)
            imprinter = Imprinter(features_by, ids.key, ids.key_print) if features_by else None
            _check_same_kind(out, imprinter.made_by if imprinter else None)
            form = _Form(ids, imprinter, redact)
            return _run(found, out, form, bad, max_bad, notes, by_day)
    except OSError as error:
        raise EnvironmentProblem(f"{out}: cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True, slots=True)
class _Form:
    """How rows are written: with ids hashed or kept; with texts, masked texts or features."""

    ids: Pseudonyms
    imprinter: Imprinter | None
    redact: bool

    @property
    def schema(self) -> pa.Schema:
        return labelled(featured(SCHEMA) if self.imprinter else SCHEMA, self.ids.label)

    def masked(self, row: Row) -> Row:
        return replace(row, values=mask_values(row.values)) if self.redact else row

    def batch(self, frame: pd.DataFrame, place: str, label: str | None) -> pa.RecordBatch:
        batch = to_arrow(self.ids.replace(frame, place, label))
        return self.imprinter.without_text(batch) if self.imprinter else batch


def _run(
    found: list[Group],
    out: Path,
    form: _Form,
    bad: Quarantine,
    max_bad: float,
    notes: list[str],
    by_day: bool,
) -> IngestReport:
    ledger = Ledger()
    with Folder(out, form.schema) if by_day else OneFile(out, form.schema) as table:
        for batch in table.stored_keys():
            ledger.know(batch)
        existing = ledger.rows
        for group in found:
            _read(group, form, bad, table, ledger)
        bad.finish()
        _check_counts(ledger.files, max_bad, bad, found)
        if existing:
            needed = ledger.repeated(existing)
            ledger.fill(needed, table.stored_rows(needed))
        keep, told = ledger.settle()
        if not keep[:existing].all() or keep[existing:].any():
            form.ids.save()
            table.commit(keep, existing)
        elif not existing:
            why = f"; see {bad.path}" if bad.rows else f": {'; '.join(told)}"
            raise BadInput(f"no row of {_names(found)} could be read{why}")
    if bad.rows:
        notes = [*notes, f"{bad.rows} rows could not be read: {bad.path} says why"]
    return IngestReport(tuple(ledger.files), out, int(keep.sum()), bad.kept, (*notes, *told))


def _read(
    group: Group, form: _Form, bad: Quarantine, table: OneFile | Folder, ledger: Ledger
) -> None:
    """Stream files through normalisation into the table, in batches of bounded size."""
    reports = [ledger.begin(s.name, s.format, s.saw) for s in group.sources]
    labels = [_label(source) for source in group.sources]
    rows: list[Row] = []
    weight = current = 0

    def flush() -> None:
        report = reports[current]
        names = {name for row in rows for name in row.values}
        columns = {name: [row.values.get(name) for row in rows] for name in names}
        frame, problems = normalise(columns, len(rows))
        for problem in problems:
            bad.write(report.path, _as_bad(rows[problem.row], problem))
        report.quarantined += len(problems)
        if problems:
            frame = frame.drop(index=[problem.row for problem in problems])
        batch = form.batch(frame, report.path, labels[current])
        table.write(batch)
        ledger.add(batch, report)
        rows.clear()

    for number, record in group.records():
        reports[number].read += 1
        if isinstance(record, Row):
            if rows and (number != current or len(rows) >= BATCH_ROWS or weight > BATCH_CHARS):
                flush()
                weight = 0
            current = number
            rows.append(form.masked(record))
            weight += _weight(record.values)
        elif isinstance(record, Bad):
            bad.write(reports[number].path, record)
            reports[number].quarantined += 1
        elif isinstance(record, Skip):
            ledger.skip(reports[number], record.reason)
        else:
            reports[number].duplicate += 1
    if rows:
        flush()


def _label(source: Source) -> str | None:
    """How ids were replaced in a source that is a traffic table itself."""
    is_table = source.format == "table" and kind_of(source.path) == "Parquet"
    return read_label(source.path) if is_table else None


def _as_bad(row: Row, problem: Problem) -> Bad:
    raw = json.dumps(row.values, default=str)[:RAW_LIMIT]
    told, bare = (f"column {problem.column}: {r}" for r in (problem.reason, problem.bare))
    return Bad(row.line, told, raw, bare)


def _weight(value: Any) -> int:
    """About how many characters a value holds."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_weight, value.values()))
    return sum(map(_weight, value)) if isinstance(value, list) else 8


def _check_same_kind(out: Path, made: MadeBy | None) -> None:
    """Refuse to mix text and features, or features of two embedders or keys, in one table."""
    files = stored_files(out)
    if not files:
        return
    there = made_by(files[0])
    if there == made:
        return
    if there is None:
        told = "holds the text of prompts and answers; leave out --features-only"
    elif made is None:
        told = "holds features only; add --features-only"
    elif there.key != made.key:
        told = "its hashes were made with another key; set SUFFICE_KEY to it or bring back the file"
    else:
        told = (
            f"its embeddings are by another embedder ({there.embedder}, not {made.embedder}); give "
            "the --embedder that made it"
        )
    raise BadInput(f"{out}: {told}, or choose another --out")


def _check_counts(
    files: Sequence[FileReport], max_bad: float, bad: Quarantine, found: list[Group]
) -> None:
    read = sum(file.read for file in files)
    if not read:
        raise BadInput(f"an empty log: no rows in {_names(found)}")
    if bad.rows > max_bad * read:
        raise BadInput(
            f"{bad.rows} of {read} rows could not be read, more than --max-bad {max_bad:g} allows; "
            f"nothing was written. First: {bad.first}. All of them: {bad.path}"
        )


def _names(found: list[Group]) -> str:
    sources = [source for group in found for source in group.sources]
    more = f" and {len(sources) - 1} more files" if len(sources) > 1 else ""
    return f"{sources[0].name}{more}"


@contextmanager
def _lean_memory() -> Iterator[None]:
    """Arrow's default pool keeps freed pages: after a long run that is more than all the keys."""
    default = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(default)
