"""What the rules before the model make of a policy's choices, on requests of a log."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact
from router.predictor import Estimates
from router.prompt import Prompt
from router.request import Request
from router.served import Served
from training.log.requests import Requests


@dataclass(frozen=True, slots=True)
class Ruled:
    """Choices under the rules.

    Attributes:
        tier: int64[n].
        moved: how many requests each rule took from the tier that the policy chose.
    """

    tier: NDArray[np.int64]
    moved: dict[str, int]

    def describe(self) -> str:
        """In words, beside figures that are of the policy alone."""
        count, named = sum(self.moved.values()), sorted(self.moved.items())
        by = ", ".join(f"{name} {moved}" for name, moved in named)
        return (
            f"the artifact's rules send {count} of {len(self.tier)} requests elsewhere ({by}); "
            "figures are of the policy alone"
        )

    def compare(self, paid: NDArray[np.float64], score: NDArray[np.float64]) -> str:
        """What they come to, beside always the top tier.

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
    artifact: Artifact, requests: Requests, tier: NDArray[np.int64], estimates: Estimates
) -> Ruled | None:
    """Hold choices to the artifact's rules, as far as a log tells what these read.

    That is prompts, images and tags; sessions, tenants, JSON mode and requested lengths are not in
    a traffic table.

    Args:
        artifact: whose rules.
        requests: n of them.
        tier: int64[n], the policy's choices.
        estimates: by the artifact.

    Returns:
        None where no choice changes, there are no rules, or the table keeps no texts.
    """
    if artifact.rules is None:
        return None
    served, found, moved = Served(artifact, artifact.rules), tier.copy(), Counter[str]()
    for row, prompt in enumerate(requests.prompts):
        if not isinstance(prompt, Prompt):
            return None
        verdict = served.ruled(prompt, Request(tags=requests.tags[row]))
        if verdict is None or tier[row] in verdict.allowed:
            continue
        moved[verdict.removed[int(tier[row])]] += 1
        found[row] = artifact.policy.choose_among(
            estimates.p[row].tolist(), estimates.usd[row].tolist(), verdict.allowed
        )
    return Ruled(found, dict(moved)) if moved else None
