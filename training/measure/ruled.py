"""How an artifact's rules, which come before the model, change a policy's choices on a log."""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy
from router.predictor import Estimates, Predictor
from router.prompt import Prompt
from router.request import Request
from router.rules import Rules
from router.served import input_tokens, most_tokens
from training.log.requests import Requests


@dataclass(frozen=True, slots=True)
class Ruled:
    """Choices under the rules.

    Attributes:
        tier: int64[n].
        moved: how many requests each rule took from the tier that the policy chose.
        down: how many of these went to a cheaper tier.
    """

    tier: NDArray[np.int64]
    moved: dict[str, int]
    down: int

    def describe(self) -> str:
        """In words, beside figures that are of the policy alone."""
        count, named = sum(self.moved.values()), sorted(self.moved.items())
        by = ", ".join(f"{name} {moved}" for name, moved in named)
        return (
            f"the artifact's rules send {count} of {len(self.tier)} requests elsewhere ({by}), "
            f"{self.down} of them to a cheaper tier; figures and promises are of the policy alone"
        )

    def compare(self, paid: NDArray[np.float64], score: NDArray[np.float64]) -> str:
        """What the choices cost and score, beside always-top, in words.

        Args:
            paid: float64[n, k], USD.
            score: float64[n, k], of paired requests.
        """
        rows, top = np.arange(len(self.tier)), paid.shape[1] - 1
        usd, usd_top = paid[rows, self.tier].mean(), paid[:, top].mean()
        quality, best = score[rows, self.tier].mean(), score[:, top].mean()
        return (
            f"with the rules ${1000 * usd:.4g} per 1,000 requests at a mean score of "
            f"{quality:.4f} ({(self.tier == top).mean():.1%} to the top tier), always top "
            f"${1000 * usd_top:.4g} at {best:.4f}"
        )


def ruled(
    rules: Rules | None,
    predictor: Predictor,
    policy: Policy,
    requests: Requests,
    estimates: Estimates,
) -> Ruled | None:
    """Apply the rules to a policy's choices, as far as a log holds what rules look at.

    A traffic table has prompts, images and tags; it has no sessions, tenants, JSON mode and
    requested lengths as the router is given them, so rules on these change nothing here.

    Args:
        rules: that come before the policy.
        predictor: whose tokenizer counts a prompt's tokens.
        policy: whose choices.
        requests: n of them.
        estimates: by the predictor.

    Returns:
        None where no choice changes, there are no rules, or the table keeps no texts.
    """
    if rules is None:
        return None
    tier, moved = policy.choose(estimates.p, estimates.usd), Counter[str]()
    found = tier.copy()
    for row, prompt in enumerate(requests.prompts):
        if not isinstance(prompt, Prompt):
            return None
        counted = partial(input_tokens, predictor, prompt)
        most = most_tokens(predictor, prompt)
        verdict = rules.judge(Request(tags=requests.tags[row]), prompt, most, 0, counted)
        if tier[row] not in verdict.allowed:
            moved[verdict.removed[int(tier[row])]] += 1
            found[row] = policy.choose_among(
                estimates.p[row].tolist(), estimates.usd[row].tolist(), verdict.allowed
            )
    return Ruled(found, dict(moved), int((found < tier).sum())) if moved else None


def rule_notes(
    rules: Rules | None,
    predictor: Predictor,
    policy: Policy,
    requests: Requests,
    estimates: Estimates,
    paid: NDArray[np.float64],
) -> tuple[str, ...]:
    """What a report on the requests says of the rules; nothing where they change no choice.

    paid: float64[n, k], USD. The other arguments are those of `ruled`.
    """
    held = ruled(rules, predictor, policy, requests, estimates)
    if held is None:
        return ()
    if not requests.paired.all():
        return (held.describe(),)
    return held.describe(), held.compare(paid, requests.score)
