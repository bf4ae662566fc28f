"""One question to one model, and what it costs: before the call by estimate, after it as billed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from router.tier import Tier
from training.ask.answer import Answer


@dataclass(frozen=True, slots=True)
class Call:
    """One question to one tier's model.

    Attributes:
        request_id: the request it belongs to.
        tier: who is asked, and at which price.
        messages: as sent, a list of chat messages.
        usd: its estimated price.
        max_tokens: of the answer.
        facts: JSON values that the journal keeps beside the call (whose request it is, for
            `suffice forget`; its sampling probability).
    """

    request_id: str
    tier: Tier
    messages: list[dict[str, Any]]
    usd: float
    max_tokens: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What makes it the same call: request, tier and all that is sent; 32 hex characters."""
        said = [self.request_id, self.tier.name, self.tier.model, self.messages, self.max_tokens]
        return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()

    def price(self, answer: Answer) -> float:
        """USD by the tier's prices and the tokens billed; the estimate where none are told."""
        if answer.input_tokens is None or answer.output_tokens is None:
            return 0.0 if answer.error else self.usd
        sent, got = float(answer.input_tokens), float(answer.output_tokens)
        usd = self.tier.input_usd_per_mtok * sent + self.tier.output_usd_per_mtok * got
        return usd / 1e6


def estimate(calls: Iterable[Call]) -> float:
    """USD that the calls are expected to cost."""
    return sum(call.usd for call in calls)
