"""From a prompt to what every head reads: surface features | embedding | n-grams."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router.embedder import Embedder, StaticEmbedder, cut_tokens
from router.features import NAMES, surface
from router.ngrams import NGrams, terms
from router.prompt import Prompt

SURFACE = len(NAMES)
_NO_MARGINS: Final = np.zeros(0, dtype=np.float32)  # of an encoder where there is none


@dataclass(frozen=True, slots=True)
class Vector:
    """A prompt as numbers.

    Attributes:
        dense: float32[dim], surface features | embedding | reduced n-grams; finite.
        terms: int64[m], buckets of the known n-grams.
        weights: float64[m], their TF-IDF weights.
        tokens: input tokens of the whole request, counted by the embedder's tokenizer.
        read: float32[learned tiers], the fine-tuned encoder's margins; empty where there is none.
    """

    dense: NDArray[np.float32]
    terms: NDArray[np.int64]
    weights: NDArray[np.float64]
    tokens: float
    read: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt before anything learned is applied; its vector is made from this alone.

    Attributes:
        surface: float32[SURFACE], surface features.
        embedding: float32[embedder.dim].
        buckets: int64[m], hashed n-grams, ascending.
        frequency: float64[m], their term frequencies.
        tokens: input tokens of the whole request, counted by the embedder's tokenizer.
    """

    surface: NDArray[np.float32]
    embedding: NDArray[np.float32]
    buckets: NDArray[np.int64]
    frequency: NDArray[np.float64]
    tokens: float

    @classmethod
    def of(cls, embedder: Embedder, prompt: Prompt) -> "Reading":
        """Read a prompt."""
        ids = embedder.tokenize(prompt.text)
        kept = cut_tokens(ids)
        tokens = count_tokens(prompt, len(ids))
        return cls(surface(prompt), embedder.embed(kept), *terms(kept), tokens)


@dataclass(frozen=True, slots=True)
class Vectorizer:
    """The feature spec at work; training and serving call this and nothing else.

    Attributes:
        embedder: makes the features that every member reads.
        ngrams: weights and reduces the hashed n-grams.
        encoder: a transformer fine-tuned on the log; what it embeds is a margin per learned tier.
    """

    embedder: Embedder
    ngrams: NGrams
    encoder: Embedder | None = None

    @property
    def static(self) -> bool:
        """Whether no transformer is evaluated."""
        return self.encoder is None and isinstance(self.embedder, StaticEmbedder)

    @property
    def dim(self) -> int:
        """Length of a dense vector."""
        return SURFACE + self.embedder.dim + self.ngrams.dim

    def vector(self, prompt: Prompt) -> Vector:
        """Compute the features of one prompt."""
        return self.weigh(Reading.of(self.embedder, prompt), self.read(prompt))

    def weigh(self, reading: Reading, read: NDArray[np.float32] = _NO_MARGINS) -> Vector:
        """The vector of a reading: its n-grams are weighted by what was learned of them.

        read: float32[learned tiers], see `Vector`; empty where there is no encoder.
        """
        known, weights = self.ngrams.weigh(reading.buckets, reading.frequency)
        parts = [reading.surface, reading.embedding, self.ngrams.reduce(known, weights)]
        return Vector(np.concatenate(parts), known, weights, reading.tokens, read)

    def read(self, prompt: Prompt) -> NDArray[np.float32]:
        """The encoder's margins, float32[learned tiers]; empty where there is no encoder."""
        if self.encoder is None:
            return _NO_MARGINS
        return self.encoder.embed(cut_tokens(self.encoder.tokenize(prompt.text)))


def count_tokens(prompt: Prompt, tokens: int) -> float:
    """Input tokens of the whole request: those of its text, scaled up to all of its characters."""
    return tokens * max(prompt.chars / max(len(prompt.text), 1), 1.0)


def text_tokens(prompt: Prompt, tokens: float) -> float:
    """Tokens of the text alone, from those of the whole request: the inverse of `count_tokens`."""
    return tokens / count_tokens(prompt, 1)
