"""Rules that come before the model: which tiers a request may go to, whatever the model predicts.

They are in the training configuration, and so in the artifact, or in a file of the service:

    [rules]
    context_window = true            # input and requested output must fit the tier's window
    capabilities = true              # tools, images, JSON mode: only on tiers that support them

    [rules.pin.tenant]               # or rules.pin.tag
    acme = "large"

    [rules.deny.tag]                 # or rules.deny.tenant
    batch = ["large"]

    [rules.session]
    floor = true                     # a session stays at the highest tier chosen for it
    minutes = 60                     # … until it has been silent for this long

    [rules.prompt_cache]
    minutes = 5                      # for which a provider keeps a conversation's input
    min_tokens = 1024                # shorter input is not cached
    usd_per_mtok = {small = 0.05, large = 1.25}   # price of cached input; others have no cache

The first two are on where there is a `[rules]` table; training adds an empty one where a tier
states a window or capabilities.

Rules apply in this order: deny lists, windows and capabilities, pins, the session's floor. A denied
tier is never chosen, not even when everything fails. The tenant's deny list is applied first, then
the tags' in their order; a list that would leave no tier is ignored. A pin to a tier that is out is
passed over. If any other rule would leave no tier, the highest of the tiers left before it stays.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from router.prompt import Prompt
from router.request import Request
from router.sessions import Seen
from router.tier import Tier

CAPABILITIES: Final = ("tools", "vision", "json")
RESERVED_OUTPUT: Final = 1024  # tokens kept for the answer where the request does not say

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PromptCache:
    """What providers charge for input that they have cached.

    Attributes:
        seconds: for which they keep it.
        min_tokens: shorter input is not cached.
        usd_per_mtok: price of cached input by index of the tier.
    """

    seconds: float
    min_tokens: int
    usd_per_mtok: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules leave.

    Attributes:
        allowed: indices of the tiers that a request may go to, ascending; never empty.
        removed: for each other tier the rule that took it out.
    """

    allowed: tuple[int, ...]
    removed: dict[int, str] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """The rule that left only one tier: the last that took any out."""
        return next(reversed(self.removed.values()), "only_tier")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for a router's tiers; see this file's head for what each does.

    Attributes:
        tiers: the router's, cheapest first.
        pins: (``"tag"`` or ``"tenant"``, its name) → index of the one tier.
        denied: the same kind of key → indices of the tiers that it never gets.
        floor_seconds: how long a silent session keeps its floor; None: no floors.
    """

    tiers: tuple[Tier, ...]
    context_window: bool = True
    capabilities: bool = True
    pins: Mapping[Key, int] = field(default_factory=dict)
    denied: Mapping[Key, frozenset[int]] = field(default_factory=dict)
    floor_seconds: float | None = None
    cache: PromptCache | None = None

    @property
    def follows_sessions(self) -> bool:
        """Whether a request's session matters."""
        return self.floor_seconds is not None or self.cache is not None

    def top(self, request: Request) -> int:
        """The highest tier that the request is not denied: the fallback when anything fails."""
        return _left(range(len(self.tiers)), self._denied(request))[-1]

    def judge(
        self,
        request: Request,
        prompt: Prompt,
        bound: float,
        floor: int,
        tokens: Callable[[], Sequence[float]],
    ) -> Ruling:
        """The tiers that a request may go to.

        Args:
            request: what the caller says of it.
            prompt: what it holds.
            bound: upper bound of its input tokens on any tier, known without tokenizing.
            floor: index of the lowest tier for its session.
            tokens: counts its input tokens, one number per tier; called only where it matters.
        """
        removed: dict[int, str] = {}
        allowed = list(range(len(self.tiers)))
        denied = self._denied(request)
        if denied:
            allowed = _take(allowed, denied, "deny", removed)
        for rule, unable in self._unable(request, prompt, bound, tokens):
            if len(allowed) > 1:
                allowed = _take(allowed, unable, rule, removed)
        if self.pins:
            pinned = next((self.pins[key] for key in _keys(request) if key in self.pins), None)
            if pinned in allowed:
                others = [tier for tier in allowed if tier != pinned]
                allowed = _take(allowed, others, "pin", removed)
        if floor:
            below = [tier for tier in allowed if tier < floor]
            allowed = _take(allowed, below, "session_floor", removed)
        return Ruling(tuple(allowed), removed)

    def still(self, seen: Seen, now: float) -> Seen:
        """A session's last turn without what is too old at the time `now` (monotonic seconds)."""
        age = now - seen.at
        floor = seen.floor if age <= (self.floor_seconds or 0.0) else 0
        tokens = seen.tokens if self.cache is not None and age <= self.cache.seconds else 0.0
        return replace(seen, floor=floor, tokens=tokens)

    def discount(self, tier: int, tokens: float) -> float:
        """USD by which `tokens` of cached input are cheaper on a tier."""
        if self.cache is None or tier not in self.cache.usd_per_mtok:
            return 0.0
        full = self.tiers[tier].input_usd_per_mtok
        return max(full - self.cache.usd_per_mtok[tier], 0.0) * tokens / 1e6

    def describe(self) -> Iterator[str]:
        """The rules in words, a line each."""
        if self.context_window:
            yield "rule context_window: input and requested output fit the tier's window"
        if self.capabilities:
            yield "rule capabilities: tools, images and JSON mode go to tiers that have them"
        for (kind, name), tier in self.pins.items():
            yield f"rule pin: {kind} {name} gets {self.tiers[tier].name}"
        for (kind, name), tiers in self.denied.items():
            never = ", ".join(self.tiers[tier].name for tier in sorted(tiers))
            yield f"rule deny: {kind} {name} never gets {never}"
        if self.floor_seconds is not None:
            yield (
                "rule session_floor: a session stays at the highest tier chosen for it, "
                f"until {self.floor_seconds / 60:g} silent minutes have passed"
            )
        if self.cache is not None:
            named = ", ".join(self.tiers[tier].name for tier in self.cache.usd_per_mtok)
            yield (
                f"rule prompt_cache: input of {self.cache.min_tokens} tokens or more stays cheaper "
                f"for {self.cache.seconds / 60:g} minutes on {named}"
            )

    def _denied(self, request: Request) -> set[int]:
        """The tiers that the request never gets; a list that would leave none is ignored."""
        denied: set[int] = set()
        for key in _keys(request) if self.denied else ():
            with_these = denied | self.denied.get(key, frozenset())
            if len(with_these) < len(self.tiers):
                denied = with_these
        return denied

    def _unable(
        self,
        request: Request,
        prompt: Prompt,
        bound: float,
        tokens: Callable[[], Sequence[float]],
    ) -> Iterator[tuple[str, list[int]]]:
        """Each rule on what tiers can do, and the tiers that cannot serve the request."""
        if self.context_window:
            yield "context_window", self._too_small(request, bound, tokens)
        if not self.capabilities:
            return
        needs = prompt.tools, prompt.images, request.json_mode
        for capability, needed in zip(CAPABILITIES, needs, strict=True):
            if needed:
                yield capability, self._without(capability)

    def _without(self, capability: str) -> list[int]:
        """The tiers that state their capabilities, and lack this one."""
        return [
            k
            for k, tier in enumerate(self.tiers)
            if tier.capabilities is not None and capability not in tier.capabilities
        ]

    def _too_small(
        self, request: Request, bound: float, tokens: Callable[[], Sequence[float]]
    ) -> list[int]:
        """The tiers whose window is too small; the bound often shows that none is."""
        asked = request.max_tokens
        output = asked if asked is not None and asked > 0 else RESERVED_OUTPUT  # −1: no limit
        windows = [tier.context_window for tier in self.tiers]
        narrowest = min((window for window in windows if window is not None), default=None)
        # Half: the bound is of four tokens a character, and a tokenizer may make more of one that
        # it takes apart first (a ligature). To count once too often costs little.
        if narrowest is None or bound + output <= narrowest // 2:
            return []
        counted = tokens()
        return [
            k
            for k, window in enumerate(windows)
            if window is not None and counted[k] + output > window
        ]


def _keys(request: Request) -> Iterator[Key]:
    """The keys of a request in pins and deny lists; the tenant first."""
    if request.tenant is not None:
        yield "tenant", request.tenant
    for tag in request.tags:
        yield "tag", tag


def _left(allowed: Collection[int], out: Collection[int]) -> list[int]:
    """The allowed tiers without those that are out; if none would be left, the highest stays."""
    return [tier for tier in allowed if tier not in out] or [max(allowed)]


def _take(
    allowed: list[int], out: Collection[int], rule: str, removed: dict[int, str]
) -> list[int]:
    left = _left(allowed, out)
    removed.update((tier, rule) for tier in allowed if tier not in left)
    return left
