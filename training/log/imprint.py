"""What a features-only table keeps of a prompt in place of its text.

It is what training reads of a prompt before anything is learned (`router.vectorizer.Reading`), its
size, and two things by which splits keep equal and nearly equal prompts together: a keyed hash of
the text and keyed 5-character shingles. The shingles' key permutes their 32-bit hashes, so that
sets of them have exactly the similarity that the texts have. data/README.md says what somebody who
gets hold of all this can find out.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from router.embedder import Embedder
from router.features import VERSION
from router.ngrams import frequency_of
from router.prompt import TEXT_VERSION, Prompt
from router.vectorizer import SURFACE, Reading
from training.errors import BadInput

LAYOUT: Final = 1  # of the columns below, and of what is hashed how
TEXTS: Final = ("messages", "response", "reference", "error")  # columns that are not kept
MADE_BY, TEXT_HASH, RESPONSE_CHARS = "features_made_by", "text_hash", "response_chars"
COLUMNS: Final = (
    (MADE_BY, pa.string()),
    (TEXT_HASH, pa.binary()),  # of all TEXTS: whether a row that comes again is the same
    (RESPONSE_CHARS, pa.int64()),
    ("prompt_hash", pa.binary()),
    ("prompt_shingles", pa.list_(pa.uint32())),
    ("prompt_chars", pa.int64()),
    ("prompt_turns", pa.int64()),
    ("prompt_tokens", pa.float64()),
    ("surface", pa.list_(pa.float32())),
    ("embedding", pa.list_(pa.float32())),
    ("ngrams", pa.list_(pa.uint16())),
    ("ngram_counts", pa.list_(pa.uint16())),
)
SHINGLE = 5


@dataclass(frozen=True, slots=True)
class MadeBy:
    """What made the features of a table: columns of two kinds of these do not mix.

    Attributes:
        layout, surface, text: versions of the columns, the surface features, the prompt's text.
        embedder: kind and fingerprint of the embedder.
        key: fingerprint of the key of hash and shingles.
    """

    layout: int
    surface: int
    text: int
    embedder: str
    key: str

    def as_text(self) -> str:
        """As the column `MADE_BY` holds it."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str, path: Path) -> Self:
        """What `as_text` wrote; BadInput where it is that of another version, or none."""
        try:
            made = cls(**json.loads(text))
        except (ValueError, TypeError):
            raise BadInput(f"{path}: column {MADE_BY} is not as ingest writes it") from None
        if (made.layout, made.surface, made.text) != (LAYOUT, VERSION, TEXT_VERSION):
            raise BadInput(
                f"{path}: its features were made by another version of Suffice; ingest the log "
                "again with --features-only"
            )
        return made


@dataclass(frozen=True, slots=True)
class Imprint:
    """A prompt of a features-only table, or what a job read of one that comes with its text.

    Attributes:
        embedder: kind and fingerprint of the embedder that made it; None: the job's own.
        chars, turns: as `Prompt` has them.
        tokens: input tokens of the whole request.
        surface, embedding: float32[·], as `Reading` has them.
        ngrams, counts: uint16[m], buckets ascending, and how often each comes.
        same: keyed hash of the text after normalising.
        shingles: uint32[·], distinct and ascending.
    """

    embedder: str | None
    chars: int
    turns: int
    tokens: float
    surface: NDArray[np.float32]
    embedding: NDArray[np.float32]
    ngrams: NDArray[np.uint16]
    counts: NDArray[np.uint16]
    same: bytes
    shingles: NDArray[np.uint32]

    @classmethod
    def of(cls, prompt: Prompt, read: Reading) -> Self:
        """A prompt of a table with text, for the memory of one job: nothing in it is keyed."""
        text = plain(prompt.text)
        return cls(
            None,
            prompt.chars,
            prompt.turns,
            read.tokens,
            read.surface,
            read.embedding,
            read.buckets.astype(np.uint16),
            counts_of(read),
            text.encode(),
            shingles(text).astype(np.uint32),
        )

    @property
    def reading(self) -> Reading:
        """To the bit what `Reading.of` made of the text."""
        frequency = frequency_of(self.counts.astype(np.int64))
        buckets = self.ngrams.astype(np.int64)
        return Reading(self.surface, self.embedding, buckets, frequency, self.tokens)


def is_featured(names: Sequence[str]) -> bool:
    """Whether a table with these columns holds features only."""
    return MADE_BY in names and "messages" not in names


def needs_text(path: Path, what: str) -> BadInput:
    """The refusal of a features-only table by `what`."""
    return BadInput(
        f"{path}: holds features only, and {what} needs the text of prompts and answers: give it a "
        "table ingested without --features-only, then ingest what comes out with --features-only"
    )


def made_by(path: Path) -> MadeBy | None:
    """What made the features of a Parquet file; None where it holds text or no row."""
    try:
        with pq.ParquetFile(path) as file:
            if not is_featured(file.schema_arrow.names):
                return None
            first = next(file.iter_batches(1, columns=[MADE_BY]), None)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a whole Parquet file ({error})") from None
    return MadeBy.read(str(first.column(0)[0].as_py()), path) if first is not None else None


def imprints(table: pa.Table, path: Path) -> list[Imprint]:
    """The prompts of a features-only table.

    Raises:
        BadInput: the columns are not as ingest writes them, or of several embedders or keys.
    """
    makers = table.column(MADE_BY).unique().to_pylist()
    if len(makers) != 1:
        raise BadInput(
            f"{path}: column {MADE_BY} names {len(makers)} makers: features of several embedders, "
            "keys or versions do not mix; ingest the logs together"
        )
    made = MadeBy.read(str(makers[0]), path)
    found = {name: _column(table, name, kind, path) for name, kind in COLUMNS[3:]}
    for name, width in (("surface", SURFACE), ("embedding", None)):
        lengths = {len(row) for row in found[name]}
        if len(lengths) != 1 or (width and lengths != {width}):
            raise BadInput(f"{path}: column {name} holds lists of {sorted(lengths)} numbers")
    if [len(row) for row in found["ngrams"]] != [len(row) for row in found["ngram_counts"]]:
        raise BadInput(f"{path}: columns ngrams and ngram_counts do not fit each other")
    names = ("prompt_chars", "prompt_turns", "prompt_tokens", "surface", "embedding", "ngrams",
             "ngram_counts", "prompt_hash", "prompt_shingles")  # fmt: skip
    rows = zip(*(found[name] for name in names), strict=True)
    return [Imprint(made.embedder, *row) for row in rows]


def response_chars(table: pa.Table, path: Path) -> NDArray[np.float64]:
    """float64[n], characters of each answer; NaN where there is none. BadInput as `imprints`."""
    lengths = _cast(table, RESPONSE_CHARS, pa.float64(), path)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype=np.float64)


def _cast(table: pa.Table, name: str, kind: pa.DataType, path: Path) -> Any:
    try:
        column = table.column(name).cast(kind).combine_chunks()
    except (KeyError, pa.ArrowException) as error:
        raise BadInput(f"{path}: column {name} is not as ingest writes it ({error})") from None
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _column(table: pa.Table, name: str, kind: pa.DataType, path: Path) -> list[Any]:
    """The values of a column, lists as arrays."""
    column = _cast(table, name, kind, path)
    if column.null_count:
        raise BadInput(f"{path}: column {name} has {column.null_count} rows without a value")
    if not pa.types.is_list(kind):
        return list(column.to_pylist())
    values = column.values.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadInput(f"{path}: column {name} holds a number that is not finite")
    ends = column.offsets.to_numpy()
    return [values[start:end] for start, end in pairwise(ends)]


def embedder_fingerprint(embedder: Embedder) -> str:
    """The embedder's kind and a hash of all its files: the same embeds the same."""
    told = hashlib.sha256(json.dumps(embedder.entry, sort_keys=True).encode())
    with tempfile.TemporaryDirectory() as scratch:
        embedder.save(Path(scratch))
        for file in sorted(Path(scratch).rglob("*")):
            told.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return f"{embedder.entry['kind']} {told.hexdigest()[:24]}"


def plain(text: str) -> str:
    """The text without what near-duplicates may differ in: case and white space."""
    return " ".join(text.lower().split())


def shingles(text: str) -> NDArray[np.uint64]:
    """Sorted 32-bit hashes of the text's distinct 5-character windows, uint64[m]."""
    codes = np.frombuffer(text.ljust(SHINGLE).encode("utf-32-le"), dtype=np.uint32).astype(
        np.uint64
    )
    value = np.zeros(len(codes) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        value = value * np.uint64(0x100000001B3) + codes[offset : offset + len(value)]
    return np.unique((value * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32))


def counts_of(reading: Reading) -> NDArray[np.uint16]:
    """How often each n-gram comes, uint16[m]: the inverse of `router.ngrams.frequency_of`."""
    return np.rint(np.exp(reading.frequency - 1.0)).astype(np.uint16)
