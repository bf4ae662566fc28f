"""The light predictor: a prompt's probabilities and expected costs on every tier."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.cost import TokenModel
from router.gate import Gate, both
from router.head import MEMBERS, Blend, Constant, Head
from router.neighbours import Neighbours
from router.panel import Panel
from router.prompt import Prompt
from router.tier import Tier
from router.vectorizer import Vector, Vectorizer, text_tokens


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates for n prompts.

    Attributes:
        p: float64[n, tiers], P(tier suffices).
        usd: float64[n, tiers], expected cost, USD.
        stage: int64[n], 1, or 2 where a second stage was asked; None: there is only one.
    """

    p: NDArray[np.float64]
    usd: NDArray[np.float64]
    stage: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Second:
    """The second of two stages; it reads the prompts whose decision it may well change.

    Attributes:
        predictor: of the second stage; its costs are not used, the first stage's count.
        gate: which prompts it reads.
        dial: of the policy that is served; None where that asks no model (always one tier).
    """

    predictor: "Predictor"
    gate: Gate
    dial: float | None

    def reads(
        self, prompt: Prompt, vector: Vector, p: Sequence[float], usd: Sequence[float]
    ) -> bool:
        """Whether it is to read a prompt, given what the first stage says: vector, p and USD."""
        if self.dial is None:
            return False
        value = [chance - self.dial * cost for chance, cost in zip(p, usd, strict=True)]
        tokens = text_tokens(prompt, vector.tokens)
        return self.gate.opens(value, vector.dense, tokens, self.gate.floor(self.dial))


@dataclass(frozen=True, slots=True)
class Predictor:
    """Everything that training learned, ready to be evaluated with numpy alone.

    With a `second` stage the other attributes are the first's. `panel` is made of the heads.
    """

    tiers: tuple[Tier, ...]
    vectorizer: Vectorizer
    neighbours: Neighbours
    heads: tuple[Head | Constant, ...]
    blend: Blend
    tokens: tuple[TokenModel, ...]
    second: Second | None = None
    panel: Panel | None = field(init=False, repr=False, compare=False)

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
        encoder = self.vectorizer.encoder
        if len(self.blend.level) != len(MEMBERS) - (encoder is None):
            raise ValueError("blend: one weight per member, the encoder among them if there is one")
        if encoder is not None and encoder.dim != len(self.learned):
            raise ValueError(
                f"encoder: {encoder.dim} margins for {len(self.learned)} learned tiers"
            )
        for head in self.heads:
            head.check(dim)
        for tokens in self.tokens:
            tokens.check(dim)
        if self.second is not None:
            self.second.gate.check(dim)
        heads = [head for head in self.heads if isinstance(head, Head)]
        object.__setattr__(self, "panel", Panel.of(heads) if heads else None)

    @property
    def learned(self) -> list[int]:
        """Indices of the tiers whose heads are not constants, in order."""
        return [k for k, head in enumerate(self.heads) if isinstance(head, Head)]

    def estimate(self, prompts: Sequence[Prompt]) -> Estimates:
        """Estimate many prompts, one after the other: exactly what `route` computes for each."""
        p = np.empty((len(prompts), len(self.tiers)))
        usd, stage = np.empty_like(p), np.empty(len(prompts), dtype=np.int64)
        for i, prompt in enumerate(prompts):
            p[i], usd[i], stage[i] = self.estimate_one(prompt)
        return Estimates(p, usd, None if self.second is None else stage)

    def estimate_one(self, prompt: Prompt) -> tuple[list[float], list[float], int]:
        """P(tier suffices) and expected USD, one of each per tier, and the stage that said so."""
        vector = self.vectorizer.vector(prompt)
        p, usd = self.probabilities(vector), self.costs(vector)
        second = self.second
        if second is None or not second.reads(prompt, vector, p, usd):
            return p, usd, 1
        reader = second.predictor
        found = reader.probabilities(reader.vectorizer.vector(prompt))
        return both(p, found, second.gate.share), usd, 2

    def probabilities(self, vector: Vector) -> list[float]:
        """P(tier suffices), one per tier."""
        if self.panel is not None:
            margins = [
                self.panel.linear_margins(vector),
                self.panel.forest_margins(vector.dense),
                self.neighbours.margins(vector.dense),
                *([vector.read.tolist()] if len(vector.read) else []),
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
