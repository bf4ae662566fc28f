"""The light predictor: a prompt's probabilities and expected costs on every tier."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.cost import TokenModel
from router.head import Blend, Constant, Head
from router.neighbours import Neighbours
from router.prompt import Prompt
from router.tier import Tier
from router.vectorizer import Vector, Vectorizer


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates for n prompts.

    Attributes:
        p: float64[n, tiers], P(tier suffices).
        usd: float64[n, tiers], expected cost, USD.
    """

    p: NDArray[np.float64]
    usd: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Predictor:
    """Everything that training learned, ready to be evaluated with numpy alone."""

    tiers: tuple[Tier, ...]
    vectorizer: Vectorizer
    neighbours: Neighbours
    heads: tuple[Head | Constant, ...]
    blend: Blend
    tokens: tuple[TokenModel, ...]

    def __post_init__(self) -> None:
        """Check that the parts fit each other.

        Raises:
            ValueError: a part does not fit the tiers or the vector's length.
        """
        count, dim = len(self.tiers), self.vectorizer.dim
        if not (len(self.heads) == len(self.tokens) == count):
            raise ValueError(
                f"{count} tiers, {len(self.heads)} heads, {len(self.tokens)} token models"
            )
        self.neighbours.check(dim, len(self.learned))
        for head in self.heads:
            head.check(dim)
        for tokens in self.tokens:
            tokens.check(dim)

    @property
    def learned(self) -> list[int]:
        """Indices of the tiers whose heads are not constants, in order."""
        return [k for k, head in enumerate(self.heads) if isinstance(head, Head)]

    def estimate(self, prompts: Sequence[Prompt]) -> Estimates:
        """Estimate many prompts, one after the other: exactly what `route` computes for each."""
        p = np.empty((len(prompts), len(self.tiers)))
        usd = np.empty_like(p)
        for i, prompt in enumerate(prompts):
            p[i], usd[i] = self.estimate_one(prompt)
        return Estimates(p, usd)

    def estimate_one(self, prompt: Prompt) -> tuple[list[float], list[float]]:
        """P(tier suffices) and expected USD, one of each per tier."""
        vector = self.vectorizer.vector(prompt)
        return self.probabilities(vector), self.costs(vector)

    def probabilities(self, vector: Vector) -> list[float]:
        """P(tier suffices), one per tier."""
        heads = [head for head in self.heads if isinstance(head, Head)]
        if heads:
            margins = [
                [head.linear.margin(vector) for head in heads],
                [head.forest.margin(vector.dense) for head in heads],
                self.neighbours.margins(vector.dense),
            ]
            combined = iter(self.blend.combine_one(margins))
        return [
            head.probability
            if isinstance(head, Constant)
            else head.calibration.probability_of(next(combined))
            for head in self.heads
        ]

    def costs(self, vector: Vector) -> list[float]:
        """Expected USD of one call, one per tier."""
        pairs = zip(self.tiers, self.tokens, strict=True)
        return [tokens.expected_usd(tier, vector) for tier, tokens in pairs]
