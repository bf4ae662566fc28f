"""Rows without text of rows with text: what `ingest --features-only` writes.

What a prompt's text becomes is said in `training.log.imprint`.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from router.embedder import Embedder
from router.features import VERSION
from router.prompt import TEXT_VERSION, Prompt
from router.vectorizer import Reading
from training.log.imprint import (
    COLUMNS,
    LAYOUT,
    MADE_BY,
    RESPONSE_CHARS,
    TEXT_HASH,
    TEXTS,
    MadeBy,
    counts_of,
    embedder_fingerprint,
    plain,
    shingles,
)

_HASH_BYTES = 16
_ROUNDS = 4  # of the Feistel network that permutes 32-bit hashes


class Imprinter:
    """Makes rows without text of rows with text, by one embedder and one key."""

    def __init__(self, embedder: Embedder, key: bytes, key_print: str) -> None:
        """Take the embedder, the table's key and its fingerprint."""
        self._embedder = embedder
        self._key = hashlib.blake2b(key, digest_size=32).digest()
        tables = hashlib.shake_256(self._key).digest(_ROUNDS * 2**17)
        self._rounds = np.frombuffer(tables, "<u2").reshape(_ROUNDS, 2**16).astype(np.uint32)
        by = embedder_fingerprint(embedder)
        self.made_by = MadeBy(LAYOUT, VERSION, TEXT_VERSION, by, key_print)

    def without_text(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch of the traffic table → its columns but TEXTS, and COLUMNS."""
        texts = {name: batch.column(name).to_pylist() for name in TEXTS}
        prompts = [Prompt.of(json.loads(text)) for text in texts["messages"]]
        readings = [Reading.of(self._embedder, prompt) for prompt in prompts]
        plains = [plain(prompt.text) for prompt in prompts]
        shingled = [self._permuted(shingles(text)) for text in plains]
        counts = [counts_of(reading) for reading in readings]
        responses = [None if text is None else len(text) for text in texts["response"]]
        found: dict[str, Any] = {
            MADE_BY: [self.made_by.as_text()] * len(batch),
            TEXT_HASH: [
                self._hash(b"row", json.dumps(r)) for r in zip(*texts.values(), strict=True)
            ],
            RESPONSE_CHARS: responses,
            "prompt_hash": [self._hash(b"prompt", text) for text in plains],
            "prompt_shingles": _lists(shingled, np.uint32),
            "prompt_chars": [prompt.chars for prompt in prompts],
            "prompt_turns": [prompt.turns for prompt in prompts],
            "prompt_tokens": [reading.tokens for reading in readings],
            "surface": _lists([reading.surface for reading in readings], np.float32),
            "embedding": _lists([reading.embedding for reading in readings], np.float32),
            "ngrams": _lists([reading.buckets for reading in readings], np.uint16),
            "ngram_counts": _lists(counts, np.uint16),
        }
        schema = featured(batch.schema)
        kept = [batch.column(name) for name in schema.names if name not in found]
        made = [pa.array(found[name], kind) for name, kind in COLUMNS]
        return pa.RecordBatch.from_arrays([*kept, *made], schema=schema)

    def _hash(self, purpose: bytes, text: str) -> bytes:
        hashed = hashlib.blake2b(
            text.encode(), digest_size=_HASH_BYTES, key=self._key, person=purpose
        )
        return hashed.digest()

    def _permuted(self, values: NDArray[np.uint64]) -> NDArray[np.uint32]:
        left, right = (values >> np.uint64(16)).astype(np.uint32), values.astype(np.uint16)
        for table in self._rounds:
            left, right = right.astype(np.uint32), (left ^ table[right]).astype(np.uint16)
        return np.sort((left << np.uint32(16)) | right)


def featured(schema: pa.Schema) -> pa.Schema:
    """The schema of a features-only table, of that of a table with text."""
    kept = [field for field in schema if field.name not in TEXTS]
    return pa.schema([*kept, *(pa.field(name, kind) for name, kind in COLUMNS)])


def _lists(rows: Sequence[NDArray[Any]], dtype: Any) -> pa.ListArray:
    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    values = np.concatenate([*rows, np.zeros(0)]).astype(dtype)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values))
