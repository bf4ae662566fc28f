"""One artifact at work: everything that a decision reads, so that a swap replaces it at once."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from time import perf_counter
from typing import Any

from router.artifact import Artifact
from router.decision import Decision
from router.predictor import Predictor
from router.prompt import Prompt
from router.request import Request, unread_chars
from router.rules import Rules, Ruling
from router.sessions import Seen
from router.tier import Tier
from router.vectorizer import count_tokens

IMAGE_TOKENS = 1000  # what an image counts for, about the largest of the common providers
BYTES_A_TOKEN = 4  # of UTF-8; almost every text has at least one token for so many bytes
_TOKENS_A_CHARACTER = 4  # at most, as a character has at most 4 bytes and a token at least one


@dataclass(frozen=True, slots=True)
class Choice:
    """A tier and why.

    Attributes:
        tier: index of the tier.
        allowed: indices of the tiers that no rule took out, ascending.
        p: probability that each tier suffices; empty where the model was not asked.
        usd: expected cost on each tier, USD; empty where the model was not asked.
        reason: ``"policy"`` or ``"rule:<name>"``.
        tokens: input tokens per tier where the session's memory needs them, else empty.
        stage: 2 where the second of two stages was asked.
    """

    tier: int
    allowed: tuple[int, ...]
    p: Sequence[float]
    usd: Sequence[float]
    reason: str
    tokens: Sequence[float] = ()
    stage: int = 1


@dataclass(frozen=True, slots=True)
class Served:
    """An artifact and the rules before it."""

    artifact: Artifact
    rules: Rules | None
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Name the tiers, cheapest first."""
        object.__setattr__(self, "names", tuple(tier.name for tier in self.tiers))

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Cheapest first."""
        return self.artifact.predictor.tiers

    @property
    def quick(self) -> bool:
        """Whether a decision takes less than handing it to a thread would."""
        predictor = self.artifact.predictor
        return predictor.vectorizer.static and predictor.second is None

    def log_values(self, choice: Choice) -> dict[str, Any]:
        """A choice as a part of the log's line."""
        return {
            "tier": self.names[choice.tier],
            "model": self.tiers[choice.tier].model,
            "p_suffices": dict(zip(self.names, choice.p, strict=False)),
            "expected_cost_usd": dict(zip(self.names, choice.usd, strict=False)),
            "reason": choice.reason,
            "stage": choice.stage,
        }

    def unread(self, raw: Any, request: Request) -> int:
        """Characters of a request beside its text, such as its tools; 0 where no rule counts them.

        raw: the prompt as the caller gave it.
        """
        if self.rules is None or not (self.rules.context_window or self.rules.cache is not None):
            return 0
        return unread_chars(raw, request.tools)

    def choose(self, unread: int, prompt: Prompt, request: Request, seen: Seen | None) -> Choice:
        """Choose a tier: rules first, then the policy among those that they leave.

        Args:
            unread: see `unread`.
            prompt: the prompt, read.
            request: what else the caller said.
            seen: the session's last turn, where there is one that rules still follow.

        Raises:
            ArithmeticError: an estimate is not a finite number.
        """
        if self.rules is None:
            return self._by_policy(prompt)
        counted: list[float] = []
        predictor = self.artifact.predictor
        bound = most_tokens(predictor, prompt, unread)

        def tokens() -> list[float]:
            if not counted:
                counted.extend(input_tokens(predictor, prompt, unread))
            return counted

        floor = seen.floor if seen is not None and self.rules.floor_seconds is not None else 0
        ruling = self.rules.judge(request, prompt, bound, floor, tokens)
        cached = self._cached(bound, request, seen, tokens)
        if len(ruling.allowed) == 1:
            [tier] = ruling.allowed
            return Choice(tier, ruling.allowed, (), (), f"rule:{ruling.reason}", counted)
        return self._by_policy_under(ruling, prompt, cached, counted)

    def stand_in(self, request: Request, reason: str, started: float) -> Decision:
        """The top tier, or the highest that the request is not denied, without asking the model.

        started: of `perf_counter`, when the decision began.
        """
        top = len(self.tiers) - 1
        if self.rules is not None:
            with suppress(Exception):  # a tenant whose own methods fail
                top = self.rules.top(request)
        tier = self.tiers[top]
        return Decision(
            tier=tier.name,
            model=tier.model,
            p_suffices={},
            expected_cost_usd={},
            reason=reason,
            propensity=1.0,
            router_version=self.artifact.version,
            prompt_hash=None,
            latency_us=(perf_counter() - started) * 1e6,
        )

    def _by_policy(self, prompt: Prompt) -> Choice:
        p, usd, stage = self._estimate(prompt)
        tier = self.artifact.policy.choose_one(p, usd)
        return Choice(tier, tuple(range(len(p))), p, usd, "policy", stage=stage)

    def _by_policy_under(
        self, ruling: Ruling, prompt: Prompt, cached: dict[int, float], counted: list[float]
    ) -> Choice:
        p, usd, stage = self._estimate(prompt)
        policy = self.artifact.policy
        free = policy.choose_one(p, usd)
        tier, reason = free, "policy"
        if cached:
            usd = [max(cost - cached.get(k, 0.0), 0.0) for k, cost in enumerate(usd)]
            tier = policy.choose_one(p, usd)
            reason = "policy" if tier == free else "rule:prompt_cache"
        if tier not in ruling.allowed:
            reason = f"rule:{ruling.removed[tier]}"
            tier = policy.choose_among(p, usd, ruling.allowed)
        return Choice(tier, ruling.allowed, p, usd, reason, counted, stage)

    def _cached(
        self,
        bound: float,
        request: Request,
        seen: Seen | None,
        tokens: Callable[[], Sequence[float]],
    ) -> dict[int, float]:
        """Tier of the session's last turn → USD saved there, as its provider has the input cached.

        Empty where nothing is cached. If the input is long enough to be cached, `tokens` is called
        even in a session's first turn: the next turn will need the count.
        """
        rules = self.rules
        if rules is None or rules.cache is None or request.session is None:
            return {}
        if bound < rules.cache.min_tokens or max(tokens()) < rules.cache.min_tokens:
            return {}
        if seen is None or seen.tokens < rules.cache.min_tokens:
            return {}
        kept = min(seen.tokens, tokens()[seen.tier])
        return {seen.tier: rules.discount(seen.tier, kept)}

    def _estimate(self, prompt: Prompt) -> tuple[list[float], list[float], int]:
        p, usd, stage = self.artifact.predictor.estimate_one(prompt)
        if not (isfinite(sum(p)) and isfinite(sum(usd))):
            raise ArithmeticError("an estimate is not a finite number")  # max might return NaN
        return p, usd, stage


def input_tokens(predictor: Predictor, prompt: Prompt, unread: int = 0) -> list[float]:
    """Input tokens on each tier, rather too many than too few.

    Args:
        predictor: whose tokenizer and token models count.
        prompt: its text and images.
        unread: characters of the request that are not in the prompt, such as its tools.
    """
    ids = predictor.vectorizer.embedder.tokenize(prompt.text)
    own = count_tokens(prompt, len(ids)) + unread / BYTES_A_TOKEN
    each = len(prompt.text.encode()) / max(len(prompt.text), 1)  # bytes a character
    # `own` may be too few: the embedder's tokenizer makes one token of an unknown word, however
    # long, and none of blanks; and a token model learned without token counts has a slope of 0.
    least = max(own * 0.5, (prompt.chars * each + unread) / BYTES_A_TOKEN)
    more = prompt.images * IMAGE_TOKENS
    return [max(model.input_tokens(own), least) + more for model in predictor.tokens]


def most_tokens(predictor: Predictor, prompt: Prompt, unread: int = 0) -> float:
    """An upper bound of `input_tokens` on every tier, without tokenizing; the same arguments."""
    most = float(_TOKENS_A_CHARACTER * (prompt.chars + unread))
    own = max(model.input_tokens(most) for model in predictor.tokens)
    return max(own, most) + prompt.images * IMAGE_TOKENS
