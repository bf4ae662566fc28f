"""What the router answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from time import time


@dataclass(frozen=True, slots=True)
class Decision:
    """The tier for one request, and why.

    Attributes:
        tier: name of the chosen tier.
        model: its model id.
        p_suffices: probability for each tier that it suffices; empty where the model was not asked
            (a fallback, the kill switch, a rule that leaves one tier).
        expected_cost_usd: expected cost on each tier, USD; empty in the same cases.
        reason: ``"policy"``; ``"rule:<name>"`` where a rule changed what that says, or left one
            tier; ``"explore"``; ``"kill_switch"``; ``"fallback:<error>"`` where the top tier stands
            in for a failure.
        propensity: probability with which this tier was chosen, 1.0 without exploration.
        router_version: first 12 digits of the artifact's manifest hash.
        prompt_hash: keyed hash of the embedded text; None without a key.
        latency_us: time the decision took, microseconds.
        stage: 2 where an artifact of two stages asked its second, else 1.
        id: unique, to join outcomes by.
        at: seconds since the epoch.
    """

    tier: str
    model: str
    p_suffices: Mapping[str, float]
    expected_cost_usd: Mapping[str, float]
    reason: str
    propensity: float
    router_version: str
    prompt_hash: str | None
    latency_us: float
    stage: int = 1
    id: str = field(default_factory=lambda: token_hex(16))
    at: float = field(default_factory=time)
