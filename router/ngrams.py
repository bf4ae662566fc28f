"""Hashed n-grams of tokens, reduced to a few dimensions: what a mean of token vectors cannot say.

Terms are single tokens and pairs of neighbouring tokens. They are kept as hashes only, so that no
text of the log is in an artifact. The weights are TF-IDF with 1 + log(count), rows scaled to length
one, as in scikit-learn's TfidfTransformer (sublinear_tf); the projection is a truncated SVD.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.embedder import MAX_TOKENS

BITS: Final = 16
BUCKETS: Final = 1 << BITS
_SHIFT: Final = np.uint64(64 - BITS)
# Odd multipliers with well-mixed bits (xxHash's primes): multiply-shift hashing keeps the top bits.
_FIRST: Final = np.uint64(0x9E3779B185EBCA87)
_SECOND: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_PAIR: Final = np.uint64(0x165667B19E3779F9)


def frequency_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Term frequencies 1 + log(count), float64[m], of counts int64[m] from 1 up."""
    return np.asarray(1.0 + np.log(counts))


# A prompt's counts are looked up: it pays for one pass instead of two.
_FREQUENCY: Final = frequency_of(np.maximum(np.arange(2 * MAX_TOKENS), 1))


def buckets_of(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bucket of each token, then of each pair of neighbours, in their order.

    Args:
        ids: int64[t] token ids.

    Returns:
        int64[2t − 1] in [0, BUCKETS), none where there is no token.
    """
    whole = ids.view(np.uint64)
    single = whole * _FIRST
    pairs = (single[:-1] ^ (whole[1:] * _SECOND)) * _PAIR
    return (np.concatenate([single, pairs]) >> _SHIFT).view(np.int64)


def terms(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Buckets of a text's tokens and pairs, and their term frequencies.

    Args:
        ids: int64[t] token ids, at most `router.embedder.MAX_TOKENS`.

    Returns:
        int64[m] ascending buckets in [0, BUCKETS) and float64[m] frequencies 1 + log(count).
    """
    buckets = buckets_of(ids)
    buckets.sort()  # then as np.unique, in a quarter of its time
    edge = np.ones(len(buckets) + 1, dtype=np.bool_)
    np.not_equal(buckets[1:], buckets[:-1], out=edge[1:-1])
    [edges] = edge.nonzero()
    starts = edges[:-1]
    return buckets[starts], _FREQUENCY[edges[1:] - starts]


@dataclass(frozen=True, slots=True)
class NGrams:
    """The reduction of hashed terms to `dim` numbers.

    Attributes:
        idf: float32[BUCKETS], 0 for terms that training did not keep.
        projection: int8[BUCKETS, dim].
        scale: float32[dim]; the real projection is ``projection * scale``.
    """

    idf: NDArray[np.float32]
    projection: NDArray[np.int8]
    scale: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check shapes, dtypes and values.

        Raises:
            ValueError: the arrays do not fit each other, or a value is not finite.
        """
        dim = self.projection.shape[-1]
        shapes = (self.idf.shape, self.projection.shape, self.scale.shape)
        if shapes != ((BUCKETS,), (BUCKETS, dim), (dim,)):
            raise ValueError(f"n-gram arrays do not fit each other: {shapes}")
        if self.projection.dtype != np.int8:
            raise ValueError("n-grams: the projection must be int8")
        if self.idf.dtype != np.float32 or self.scale.dtype != np.float32:
            raise ValueError("n-grams: idf and scale must be float32")
        if not (
            np.isfinite(self.idf).all() and np.isfinite(self.scale).all() and (self.idf >= 0).all()
        ):
            raise ValueError("n-gram weights must be finite and not negative")

    @property
    def dim(self) -> int:
        """Number of reduced dimensions."""
        return int(self.scale.shape[0])

    def weigh(
        self, buckets: NDArray[np.int64], frequency: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Known terms of a text and their TF-IDF weights.

        Args:
            buckets, frequency: what `terms` says of the text's tokens.

        Returns:
            int64[m] buckets and float64[m] weights, together of length one (none where no term is
            known).
        """
        weights = frequency * self.idf[buckets]
        length = sqrt(weights.dot(weights))
        if length == 0.0:
            return buckets[:0], weights[:0]
        return buckets, weights / length

    def reduce(
        self, buckets: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Project what `weigh` gave to float32[dim].

        The sums run in float64, so that the order of additions cannot reach a float32 result that a
        tree compares with a threshold.
        """
        total = weights.dot(self.projection.take(buckets, axis=0).astype(np.float64))
        return np.asarray(total * self.scale, dtype=np.float32)
