"""Choose the smallest model tier that suffices, in-process.

>>> from router import Router
>>> router = Router.load("artifacts/current")
>>> decision = router.route("What is the capital of France?")
"""

from router.artifact import ArtifactError
from router.decision import Decision
from router.explore import Exploration
from router.log import DecisionLog, LogCounts
from router.policy import Policy, Promise
from router.rules import Rules
from router.rules_file import RulesError
from router.service import Router
from router.tier import Tier

__all__ = [
    "ArtifactError",
    "Decision",
    "DecisionLog",
    "Exploration",
    "LogCounts",
    "Policy",
    "Promise",
    "Router",
    "Rules",
    "RulesError",
    "Tier",
]
