"""Expected cost of a prompt on a tier: prices × counted input and predicted output tokens."""

from dataclasses import dataclass
from math import exp, isfinite

import numpy as np
from numpy.typing import NDArray

from router.tier import Tier
from router.vectorizer import Vector


@dataclass(frozen=True, slots=True)
class TokenModel:
    """Expected tokens of one tier.

    Input tokens are ``input_base + input_slope × tokens``, with tokens counted by the embedder's
    tokenizer; output tokens are ``exp(weights · dense + bias)``, clipped to what training saw.

    Attributes:
        input_base: tokens that the tier adds to every prompt.
        input_slope: the tier's tokens for each of ours.
        weights: float64[dim].
        bias: log of tokens.
        low: fewest output tokens, 0 or more.
        high: most output tokens; 0 where the log says nothing of output.
    """

    input_base: float
    input_slope: float
    weights: NDArray[np.float64]
    bias: float
    low: float
    high: float

    def check(self, dim: int) -> None:
        """Raise ValueError where a value is not finite, negative, or does not fit `dim`."""
        if self.weights.shape != (dim,) or not np.isfinite(self.weights).all():
            raise ValueError(f"tokens: weights must be finite, of shape ({dim},)")
        numbers = (self.input_base, self.input_slope, self.low, self.high)
        if not all(isfinite(number) and number >= 0 for number in numbers) or self.low > self.high:
            raise ValueError(
                "tokens: base, slope, low and high must be finite, not negative, ordered"
            )
        if not isfinite(self.bias):
            raise ValueError("tokens: the bias is not finite")

    def input_tokens(self, counted: float) -> float:
        """The tier's input tokens for `counted` of the embedder's."""
        return self.input_base + self.input_slope * counted

    def output_tokens(self, vector: Vector) -> float:
        """Predicted output tokens for a prompt."""
        if self.high == 0.0:
            return 0.0
        logarithm = float(self.weights.dot(vector.dense)) + self.bias
        return min(max(exp(min(logarithm, 30.0)), self.low), self.high)

    def expected_usd(self, tier: Tier, vector: Vector) -> float:
        """Expected price of one call, in USD."""
        input_usd = tier.input_usd_per_mtok * self.input_tokens(vector.tokens)
        return (input_usd + tier.output_usd_per_mtok * self.output_tokens(vector)) / 1e6
