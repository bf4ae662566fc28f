"""Embedders: a prompt's tokens as one vector of length one."""

from math import sqrt
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from router.words import Words

MAX_TOKENS: Final = 512


class Embedder(Protocol):
    """Turns tokens into a vector; `tokenize` is shared with the n-grams and the cost model."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def tokenize(self, text: str) -> NDArray[np.int64]:
        """Token ids, int64[t], of the whole text (not yet cut)."""
        ...

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token of `tokenize` stands, (start, end) in characters."""
        ...

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[dim] of length one, or zeros where there is no token."""
        ...

    @property
    def entry(self) -> dict[str, Any]:
        """What the manifest says of it: its kind, and what its files do not hold."""
        ...

    def save(self, folder: Path) -> None:
        """Write its files, of which the first is tokenizer.json; the folder must exist."""
        ...


class StaticEmbedder:
    """A table of token vectors, weighted and mean pooled: no network is evaluated.

    The row of token i is ``weights[i] * vectors[i]``. Weights (0…255) and vectors (−127…127) are
    whole numbers, and at most 512 tokens are added up, so every partial sum is a whole number below
    2**24: float32 arithmetic is exact, in any order, on any machine. Their squares are added up as
    64-bit integers, exact for up to 32,768 dimensions. Training and serving cannot differ.
    """

    __slots__ = ("_vectors", "_weights", "_words")

    def __init__(
        self, tokenizer: Tokenizer, vectors: NDArray[np.int8], weights: NDArray[np.uint8]
    ) -> None:
        """Take int8[vocabulary, dim] vectors and uint8[vocabulary] weights.

        Raises:
            ValueError: shapes or dtypes are not these, or the tokenizer has ids without a row.
        """
        if vectors.dtype != np.int8 or vectors.ndim != 2:
            raise ValueError(
                f"vectors must be int8[vocabulary, dim], got {vectors.dtype}{vectors.shape}"
            )
        if weights.dtype != np.uint8 or weights.shape != vectors.shape[:1]:
            raise ValueError(
                f"weights must be uint8[vocabulary], got {weights.dtype}{weights.shape}"
            )
        last = max(tokenizer.get_vocab().values(), default=-1)
        if last >= len(vectors):
            raise ValueError(f"the tokenizer has ids up to {last}, the table {len(vectors)} rows")
        if vectors.min(initial=0) == -128:
            raise ValueError("a vector holds −128; the table keeps to −127…127")
        self._words, self._vectors, self._weights = Words(tokenizer), vectors, weights

    @classmethod
    def from_table(cls, tokenizer: Tokenizer, table: NDArray[np.int8]) -> "StaticEmbedder":
        """Take the table as stored: int8[vocabulary, dim + 1], the last column the weights' bits.

        Raises:
            ValueError: the table is not of that shape and dtype, or does not fit the tokenizer.
        """
        if table.dtype != np.int8 or table.ndim != 2 or table.shape[1] < 2:
            raise ValueError(
                f"a table is int8[vocabulary, dim + 1], got {table.dtype}{table.shape}"
            )
        weights = np.ascontiguousarray(table[:, -1]).view(np.uint8)
        return cls(tokenizer, np.ascontiguousarray(table[:, :-1]), weights)

    @classmethod
    def load(cls, folder: Path) -> "StaticEmbedder":
        """Read ``tokenizer.json`` and ``vectors.npy`` from a folder.

        Raises:
            ValueError: see `from_table`.
            OSError: a file cannot be read.
        """
        table = np.load(folder / "vectors.npy", allow_pickle=False)
        return cls.from_table(Tokenizer.from_file(str(folder / "tokenizer.json")), table)

    def save(self, folder: Path) -> None:
        """Write the two files that `load` reads; the folder must exist."""
        table = np.concatenate([self._vectors, self._weights[:, None].view(np.int8)], axis=1)
        np.save(folder / "vectors.npy", table, allow_pickle=False)
        self._words.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)

    @property
    def entry(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"kind": "static"}

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._vectors.shape[1])

    def tokenize(self, text: str) -> NDArray[np.int64]:
        """Token ids, int64[t], without special tokens.

        Raises:
            ValueError: the tokenizer failed on the text.
        """
        return self._words.ids(text)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token of `tokenize` stands, (start, end) in characters."""
        return self._words.places(text)

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Weighted sum of the token vectors, float32[dim] of length one, or zeros without a token.

        Long texts are cut, see `cut_tokens`.
        """
        ids = cut_tokens(ids)
        if not len(ids):
            return np.zeros(self.dim, dtype=np.float32)
        weights = self._weights[ids].astype(np.float32)
        rows = self._vectors.take(ids, axis=0).astype(np.float32)
        total = weights.dot(rows).astype(np.int64)
        length = sqrt(total.dot(total))
        return np.asarray(total / (length or 1.0), dtype=np.float32)


def cut_tokens(ids: NDArray[np.int64], limit: int = MAX_TOKENS) -> NDArray[np.int64]:
    """Cut token ids, int64[t], to `limit`: three quarters of these from the head, the rest tail."""
    if len(ids) <= limit:
        return ids
    tail = limit // 4
    return np.concatenate([ids[: limit - tail], ids[len(ids) - tail :]])
