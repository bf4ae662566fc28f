"""LiteLLM's complexity router: weighted keywords and lengths, nothing to train."""

import os
from collections.abc import Callable
from typing import Any

from router.prompt import Prompt
from training.errors import EnvironmentProblem

NAME = "LiteLLM’s rules"
SOURCE = "LiteLLM’s complexity router as it comes: weighted keywords and lengths"


def complexity() -> Callable[[Prompt], float]:
    """How complex LiteLLM's rules find a prompt; dearer tiers are for the more complex.

    Raises:
        EnvironmentProblem: LiteLLM is not installed, or a version without this router.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    try:
        from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter
    except ImportError as error:
        raise EnvironmentProblem(
            f"{NAME} are left out: {error.name} is not installed; pip install 'suffice[litellm]'"
        ) from error
    nobody: Any = None  # the router whose models it would call
    router = ComplexityRouter("auto", nobody)
    return lambda prompt: float(router.classify(prompt.text)[1])
