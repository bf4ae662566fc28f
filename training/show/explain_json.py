"""An explanation for machines."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.decision import Decision
from router.features import NAMES
from router.head import MEMBERS
from training.show.changes import Rival
from training.show.contributions import NEAR, SURFACE_GROUPS, Contributions
from training.show.explain import Explanation

MOST_TOKENS = 8


def as_json(e: Explanation, ruled: Decision | None = None) -> dict[str, Any]:
    """JSON values; contributions are by learned tier.

    Args:
        e: what the model says.
        ruled: what the router decides under the artifact's rules, which come first.
    """
    policy, parts = e.artifact.policy, e.contributions
    return {
        "artifact": e.artifact.version,
        "tier": e.names[e.chosen],
        "rule": None if ruled is None else _rule_json(ruled),
        "stage": e.stage,
        "dial": None if policy.constant is not None else policy.mu,
        "constant": None if policy.constant is None else e.names[policy.constant],
        "tiers": {
            name: {
                "p_suffices": float(e.p[k]),
                "p_suffices_reference": float(e.p_reference[k]),
                "expected_cost_usd": float(e.usd[k]),
                "learned": name in e.learned,
            }
            for k, name in enumerate(e.names)
        },
        "reference": e.reference,
        "contributions": {}
        if parts is None
        else {tier: _tier_json(e, parts, j, tier) for j, tier in enumerate(e.learned)},
        "changes": {
            "rivals": [_rival_json(e, rival) for rival in e.rivals],
            "groups_alone": list(e.alone),
            "groups_together": list(e.together),
        },
    }


def _rule_json(ruled: Decision) -> dict[str, str] | None:
    by_rule = ruled.reason.startswith("rule:")
    return {"tier": ruled.tier, "reason": ruled.reason} if by_rule else None


def _tier_json(e: Explanation, parts: Contributions, j: int, tier: str) -> dict[str, Any]:
    """What moves one learned tier, the j-th of them."""
    return {
        "log_odds_reference": float(parts.base[j]),
        "log_odds": float(parts.margin[j]),
        "groups": {
            group: _group_json(e, parts, j, group, members[:, j])
            for group, members in parts.by_group.items()
        },
        "tokens": [
            {"text": text, "log_odds": float(push[j])} for text, push in e.tokens[:MOST_TOKENS]
        ],
        "neighbours": {
            "log_odds": float(parts.parts[NEAR, :, j].sum()),
            "rows": float(e.near_rows[j]),
            "mean_score": float(e.near_rate[j]),
            "nearest": [
                {"likeness": one["likeness"], "weight": one["weight"], **one["tiers"][tier]}
                for one in e.near
            ],
        },
    }


def _group_json(
    e: Explanation, parts: Contributions, j: int, group: str, members: NDArray[np.float64]
) -> dict[str, Any]:
    """What a group of columns adds to a tier's log-odds; members: float64[members]."""
    total = float(members.sum())
    return {
        "log_odds": total,
        "probability": total * float(e.points[j]),
        "members": dict(zip(MEMBERS, members.tolist(), strict=False)),
        "features": {
            name: {
                "value": float(e.surface[NAMES.index(name)]),
                "log_odds": float(parts.columns[NAMES.index(name), j]),
            }
            for name in SURFACE_GROUPS.get(group, ())
        },
    }


def _rival_json(e: Explanation, rival: Rival) -> dict[str, Any]:
    low, high = rival.dials or (None, None)
    return {
        "tier": e.names[rival.tier],
        "wins_at_some_dial": rival.dials is not None,
        "dial_above": None if low is None or np.isinf(low) else low,
        "dial_below": None if high is None or np.isinf(high) else high,
        "p_chosen_below": rival.p_own,
        "p_own_above": rival.p_rival,
        "cost_own_below_usd": rival.usd_rival,
        "cost_chosen_above_usd": rival.usd_own,
    }
