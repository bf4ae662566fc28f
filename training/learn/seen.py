"""Which requests an artifact knows: those that it was fitted or chosen on, by ids and by prompts.

Of ids it keeps hashes. Of prompts, enough to tell that a log is an old one under new ids:
a table of bits, eight for each prompt that was fitted or chosen on, one of them set by its hash (a
filter of one hash: Bloom, CACM 1970). A prompt that nobody used finds its bit set once in eight
times: so a log gives itself away, and no single prompt does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from router.artifact import Artifact
from router.embedder import Embedder
from router.prompt import Prompt
from training.learn.vectorize import terms_of
from training.log.imprint import Imprint
from training.log.requests import Requests

BITS: Final = 8  # of the table per prompt
RISK: Final = 1e-4  # of taking new prompts for known ones
LEAST: Final = 0.05  # a smaller share of known prompts is not reported
SPOILED: Final = 0.5  # with this share known, no promise can rest on the log


@dataclass(frozen=True, slots=True)
class Known:
    """Prompts that an artifact knows under other request ids.

    Attributes:
        share: about how many of the different prompts it knows.
        prompts: how many these are.
        later: all were asked after the last request that it knows: asked again, answered anew.
    """

    share: float
    prompts: int
    later: bool

    @property
    def spoils(self) -> bool:
        """Whether a promise cannot rest on them: it seems to be the log of the training."""
        return self.share >= SPOILED and not self.later

    @property
    def note(self) -> str:
        """In words."""
        told = (
            f"about {self.share:.0%} of the {self.prompts:,} different prompts are known to the "
            "artifact, which was fitted or chosen on them under other request ids"
        )
        return told + (
            "; they are later than its training, so they were asked again"
            if self.later
            else ": what is said of them is better than it is on new ones"
        )


def id_hashes(ids: NDArray[np.object_]) -> NDArray[np.uint64]:
    """64-bit hashes of request ids, uint64[n], in their order."""
    digests = [blake2b(str(i).encode(), digest_size=8).digest() for i in ids]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def known_ids(arrays: Mapping[str, NDArray[Any]], requests: Requests) -> NDArray[np.bool_]:
    """bool[n], the requests that an artifact with these `arrays` knows by their ids."""
    return np.isin(id_hashes(requests.ids), arrays["fitted"])


def sketch(embedder: Embedder, prompts: Sequence[Prompt | Imprint]) -> NDArray[np.uint8]:
    """The table of some prompts, packed uint8[·]."""
    hashes = _hashes(embedder, prompts)
    bits = np.zeros(BITS * max(len(hashes), 1), dtype=np.bool_)
    bits[_places(hashes, len(bits))] = True
    return np.packbits(bits)


def added(
    table: NDArray[np.uint8], embedder: Embedder, prompts: Sequence[Prompt | Imprint]
) -> NDArray[np.uint8]:
    """The table, packed uint8[·], with more prompts in it."""
    bits = np.unpackbits(table)
    bits[_places(_hashes(embedder, prompts), len(bits))] = 1
    return np.packbits(bits)


def recognise(
    artifact: Artifact, arrays: Mapping[str, NDArray[Any]], requests: Requests
) -> Known | None:
    """What of the requests an artifact knows.

    Args:
        artifact: with its `arrays`.
        requests: none that it knows by their ids.

    Returns:
        None where it cannot be told from nothing, is too little to matter, or the artifact is of an
        older version.
    """
    if "seen" not in arrays or not len(requests):
        return None
    hashes = _hashes(artifact.predictor.vectorizer.embedder, list(requests.prompts))
    bits = np.unpackbits(arrays["seen"])
    by_chance, found = float(bits.mean()), int(bits[_places(hashes, len(bits))].sum())
    share = (found / len(hashes) - by_chance) / max(1.0 - by_chance, 1e-9)
    if share < LEAST or not binom.sf(found - 1, len(hashes), by_chance) < RISK:
        return None
    at, ended = requests.at, _known_until(artifact.manifest.get("training", {}))
    later = ended is not None and not np.isnat(at).any() and bool((at > ended).all())
    return Known(share, len(hashes), later)


def newest(training: Mapping[str, Any], chosen: Requests) -> str | None:
    """The time of the last request that an artifact knows, counting those it is now chosen on.

    Args:
        training: the manifest's part, which keeps the time so far as ``known_until``.
        chosen: the requests that the operating point is chosen on now.

    Returns:
        ISO 8601, UTC; None where it is not known.
    """
    ended = _known_until(training)
    if ended is None or np.isnat(chosen.at).any():
        return None
    return str(max(ended, chosen.at.max())) + "Z"


def _known_until(training: Mapping[str, Any]) -> np.datetime64 | None:
    until = training.get("known_until", training.get("until"))
    return None if until is None else np.datetime64(until.removesuffix("Z"))


def _hashes(embedder: Embedder, prompts: Sequence[Prompt | Imprint]) -> NDArray[np.uint64]:
    """Of the different prompts by their tokens and pairs of tokens, uint64[·], ascending."""
    terms = (terms_of(embedder, prompt) for prompt in prompts)
    digests = {
        blake2b(buckets.tobytes() + frequency.tobytes(), digest_size=8).digest()
        for buckets, frequency in terms
    }
    return np.sort(np.frombuffer(b"".join(digests), dtype=np.uint64))


def _places(hashes: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    return (hashes % np.uint64(size)).astype(np.int64)
