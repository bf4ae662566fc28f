"""Which tier a model stands for: logs spell one model in many ways."""

import re
from collections.abc import Iterable, Mapping, Sequence

from router.tier import Tier
from training.errors import BadInput

_VENDOR = re.compile(r"^(?:[a-z]+\d*\.)+(?=[a-z])")  # Bedrock: us.anthropic.claude-…
_REVISION = re.compile(r"(?:-v\d+:\d+|:(?:free|nitro|floor)|-latest|-00\d)$")
_SNAPSHOT = re.compile(r"(?:-|@)(?:20\d{2}-?\d{2}-?\d{2}|\d{4})$")


def plain_model(model: str) -> str:
    """A model's name without provider prefix, revision and dated snapshot, for matching."""
    name = _VENDOR.sub("", model.rsplit("/", 1)[-1].strip().lower())
    return _SNAPSHOT.sub("", _REVISION.sub("", name))


def tiers_by_model(models: Iterable[str], tiers: Sequence[Tier]) -> Mapping[str, int]:
    """Index of each model's tier: by the tier's own spelling of a model, else by `plain_model`.

    Models that stand for no tier are left out.

    Raises:
        BadInput: a model stands for two tiers.
    """
    found = {}
    for model in models:
        exact = [k for k, tier in enumerate(tiers) if tier.model == model]
        plain = plain_model(model)
        fits = exact or [k for k, tier in enumerate(tiers) if plain_model(tier.model) == plain]
        if len(fits) > 1:
            names = " or ".join(repr(tiers[k].name) for k in fits)
            raise BadInput(
                f"column model: {model!r} may be tier {names}, by their models in the tiers file: "
                "say in column tier which of them answered"
            )
        if fits:
            found[model] = fits[0]
    return found
