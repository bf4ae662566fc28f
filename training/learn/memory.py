"""Embeddings that were computed before, kept on disk: a second training of a log is quick.

One SQLite file per encoder, in $SUFFICE_CACHE or ~/.cache/suffice. It holds hashes of token ids and
their vectors, no text, in no pickle; it may be deleted at any time.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b, sha256
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeVar

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from router.embedder import Embedder, cut_tokens
from router.onnx_embedder import OnnxEmbedder
from router.prompt import Prompt
from training.console import say
from training.golden import PROMPTS

Result = TypeVar("Result")
_WORTH_TELLING: Final = 500  # prompts that take some seconds
_KEEP: Final = "INSERT OR REPLACE INTO kept VALUES (?, ?)"
_PROBE: Final = " ".join(text for text in PROMPTS if isinstance(text, str))


def cache_folder() -> Path:
    """Where encoders and embeddings are kept between jobs."""
    named = os.environ.get("SUFFICE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "suffice"


class Remembering:
    """An `OnnxEmbedder` that embeds the same tokens once; every vector is the session's own."""

    def __init__(self, embedder: OnnxEmbedder, original: NDArray[np.float32] | None = None) -> None:
        """Open the file of this encoder; where it cannot be used, remember in memory only.

        Args:
            embedder: the encoder, as it will be served.
            original: float32[golden prompts, dim] by the model that it was exported from.
        """
        self.embedder, self.original = embedder, original
        self.dim = embedder.dim
        file = cache_folder() / "embeddings" / f"{_name(embedder)}.sqlite"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._store = _open(str(file))
        except (OSError, sqlite3.Error):
            self._store = _open(":memory:")

    @property
    def entry(self) -> dict[str, Any]:
        """What the manifest says of the embedder."""
        return self.embedder.entry

    def save(self, folder: Path) -> None:
        """Write the embedder's files."""
        self.embedder.save(folder)

    def tokenize(self, text: str) -> NDArray[np.int64]:
        """Token ids, int64[t]."""
        return self.embedder.tokenize(text)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token stands."""
        return self.embedder.places(text)

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[dim], from the store where it is there."""
        key = _key(ids)
        for (found,) in self._ask("SELECT vector FROM kept WHERE key = ?", key):
            if len(found) == 4 * self.dim:
                return np.frombuffer(found, dtype=np.float32)
        vector = self.embedder.embed(ids)
        self._keep([(key, vector)])
        return vector

    def fill(self, texts: Iterable[str]) -> None:
        """Embed what is not in the store, on all cores: one thread a prompt, as in serving."""
        wanted = {_key(ids): ids for ids in (cut_tokens(self.tokenize(text)) for text in texts)}
        known = {key for (key,) in self._ask("SELECT key FROM kept")}
        missing = [(key, ids) for key, ids in wanted.items() if key not in known]
        started, told = perf_counter(), len(missing) >= _WORTH_TELLING
        if told:
            say(f"embedding {len(missing)} prompts with the transformer")
        with ThreadPoolExecutor(cpu_count()) as pool:
            for start in range(0, len(missing), _WORTH_TELLING):
                part = missing[start : start + _WORTH_TELLING]
                vectors = pool.map(self.embedder.embed, [ids for _, ids in part])
                self._keep(list(zip((key for key, _ in part), vectors, strict=True)))
                done = start + len(part)
                if told and done % (10 * _WORTH_TELLING) == 0:
                    say(f"  {done} of {len(missing)}, {perf_counter() - started:.0f} s")

    def _keep(self, found: Sequence[tuple[bytes, NDArray[np.float32]]]) -> None:
        rows = [(key, vector.tobytes()) for key, vector in found]
        self._try(lambda store: _insert(store, rows))

    def _ask(self, query: str, *values: bytes) -> list[tuple[bytes]]:
        return self._try(lambda store: store.execute(query, values).fetchall())

    def _try(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do it in the file or, where that cannot be used any more, in memory from then on."""
        try:
            return work(self._store)
        except sqlite3.Error as error:
            self._leave(error)
            return work(self._store)

    def _leave(self, error: sqlite3.Error) -> None:
        """Go on in memory: the file is damaged, may not be written, or its disk is full."""
        say(f"embeddings of this job are not kept in {cache_folder()}: {error}")
        memory = _open(":memory:")
        with suppress(sqlite3.Error):  # up to where it is damaged
            known = self._store.execute("SELECT key, vector FROM kept")
            memory.executemany(_KEEP, known)
        self._store = memory


def recalling(embedder: Embedder, prompts: Sequence[Prompt]) -> Embedder:
    """The embedder; of a transformer one that has embedded the prompts already, on all cores."""
    if isinstance(embedder, OnnxEmbedder):
        embedder = Remembering(embedder)
    if isinstance(embedder, Remembering):
        embedder.fill(prompt.text for prompt in prompts)
    return embedder


def _name(embedder: OnnxEmbedder) -> str:
    """A name for the model together with what it computes on this machine.

    Another processor or version of onnxruntime rounds sums of int8 products apart: vectors that
    were kept there would fail the parity of an export.
    """
    said = embedder.embed(embedder.tokenize(_PROBE))
    name = sha256(embedder.model + said.tobytes()).hexdigest()
    return f"{name[:24]}-{embedder.max_tokens}"


def _open(name: str) -> sqlite3.Connection:
    store = sqlite3.connect(name, timeout=60.0)
    store.execute("PRAGMA synchronous = OFF")  # what a power cut loses is computed again
    store.execute("CREATE TABLE IF NOT EXISTS kept (key BLOB PRIMARY KEY, vector BLOB)")
    return store


def _insert(store: sqlite3.Connection, rows: Iterable[tuple[bytes, bytes]]) -> None:
    with store:
        store.executemany(_KEEP, rows)


def _key(ids: NDArray[np.int64]) -> bytes:
    return blake2b(ids.tobytes(), digest_size=16).digest()
