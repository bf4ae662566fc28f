"""One seed of a comparison: every method fitted on the same rows, and what it does on the others.

Suffice is trained by its own job: heads on the fit rows, the operating point on the choose rows. A
peer has no operating point to choose and is fitted on both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedder import Embedder, cut_tokens
from router.prompt import Prompt
from router.tier import Tier
from router.vectorizer import SURFACE
from training.bench.peers import PEERS, Worth, fit_peer
from training.bench.rules import NAME as RULES
from training.config import Config
from training.console import step
from training.features import Features, featurize
from training.finish import settle
from training.fit import fit
from training.ground import Ground, lay_out
from training.learn.costs import account, expected
from training.learn.heads import probabilities
from training.learn.members import STANDARD
from training.learn.memory import Remembering
from training.log.requests import Requests
from training.measure.curve import Floats, Walk, order_walk, policy_walk

TIMED, CALLS = 30, 3


@dataclass(frozen=True, slots=True)
class Standing:
    """What a method does with the test rows of one seed.

    Attributes:
        gain: the walk by how much the top tier gains; with more than two tiers that of `dollar`.
        dollar: the walk of the policy family, by gain per expected dollar.
        microseconds: of one decision, from the prompt on: the median over prompts.
        settings: what tuning chose.
        chosen: int64[m], tiers at Suffice's operating point; None for the others.
    """

    gain: Walk
    dollar: Walk
    microseconds: float
    settings: Mapping[str, Any]
    chosen: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Game:
    """One seed.

    Attributes:
        seed: of the split, the folds and all that is drawn.
        trained: how many rows the peers are fitted on.
        rows: int64[m], the test rows.
        quality, paid: float64[m, k], outcomes and the account.
        standings: {method: Standing}, Suffice first.
    """

    seed: int
    trained: int
    rows: NDArray[np.int64]
    quality: Floats
    paid: Floats
    standings: dict[str, Standing]


def play(
    requests: Requests,
    tiers: tuple[Tier, ...],
    config: Config,
    shares: tuple[float, float, float],
    seed: int,
    embedders: Mapping[str, Embedder],
    rules: Callable[[Prompt], float] | None,
) -> Game:
    """Fit and score every method.

    Args:
        requests: every tier's score is known.
        tiers: cheapest first.
        config: what sufficing means, and the goal of the operating point.
        shares: of fit, choose and test rows.
        seed: of all that is drawn.
        embedders: {Suffice's name with it: embedder}; the peers use the last.
        rules: LiteLLM's, where they are to be had; they order prompts for two tiers.

    Raises:
        BadInput: the rows cannot be learned from.
    """
    with step(f"seed {seed}: split"):
        ground = lay_out(requests, (), tiers, config, shares, seed)
    test = ground.tested
    asked = requests.take(test)
    some = np.unique(np.linspace(0, len(test) - 1, TIMED).astype(np.int64))
    timed = list(asked.prompts[some])
    standings = {}
    for name, embedder in embedders.items():
        with step(f"seed {seed}: {name}"):
            features = featurize(ground, (embedder,), seed)
            standings[name], usd, paid = _suffice(ground, features, config, seed, asked, timed)
    x = features.x.dense[:, SURFACE : SURFACE + embedder.dim]
    train = np.concatenate([ground.splits.fit, ground.splits.choose])
    for peer in PEERS:
        with step(f"seed {seed}: {peer.name}"):
            group = ground.splits.group[train]
            fitted = fit_peer(peer, x[train], requests.score[train], group, seed)
            speed = microseconds(_decider(fitted.worth, embedder), timed)
            gain, dollar = _walks(fitted.worth(x[test]), usd)
            standings[peer.name] = Standing(gain, dollar, speed, fitted.settings)
    if rules is not None and len(tiers) == 2:
        with step(f"seed {seed}: {RULES}"):
            order = order_walk([rules(prompt) for prompt in asked.prompts])
            standings[RULES] = Standing(order, order, microseconds(rules, timed), {})
    return Game(seed, len(train), test, asked.score, paid, standings)


def microseconds(decide: Callable[[Prompt], Any], prompts: Sequence[Prompt]) -> float:
    """Median over prompts of the fastest of some calls: other work on the machine is left out."""
    spent = np.full(len(prompts), np.inf)
    for _ in range(CALLS):
        for i, prompt in enumerate(prompts):
            started = perf_counter()
            decide(prompt)
            spent[i] = min(spent[i], perf_counter() - started)
    return float(np.median(spent) * 1e6)


def _suffice(
    ground: Ground,
    features: Features,
    config: Config,
    seed: int,
    asked: Requests,
    timed: Sequence[Prompt],
) -> tuple[Standing, Floats, Floats]:
    """How Suffice stands on the test rows; expected costs there, and the account: float64[m, k]."""
    fitted = fit(ground, features, seed, STANDARD)
    features, learned = fitted.features, fitted.learned
    policy = settle(fitted, config).policy
    x = features.x.take(ground.tested)
    p, usd = probabilities(learned.heads, x), expected(x, learned.predictor.tokens, learned.tiers)
    gain, dollar = _walks(p, usd)
    vectorizer = features.vectorizer
    vectorizer = replace(vectorizer, embedder=_forgetful(vectorizer.embedder))
    predictor = replace(learned.predictor, vectorizer=vectorizer)

    def decide(prompt: Prompt) -> int:
        p, usd, _ = predictor.estimate_one(prompt)
        return policy.choose_one(p, usd)

    standing = Standing(gain, dollar, microseconds(decide, timed), {}, policy.choose(p, usd))
    return standing, usd, account(x, asked, learned.predictor.tokens, learned.tiers)


def _walks(worth: Floats, usd: Floats) -> tuple[Walk, Walk]:
    dollar = policy_walk(worth, usd)
    return (order_walk(worth[:, 1] - worth[:, 0]) if worth.shape[1] == 2 else dollar), dollar


def _decider(worth: Worth, embedder: Embedder) -> Callable[[Prompt], Floats]:
    embed = _forgetful(embedder)

    def decide(prompt: Prompt) -> Floats:
        return worth(embed.embed(cut_tokens(embed.tokenize(prompt.text)))[None])

    return decide


def _forgetful(embedder: Embedder) -> Embedder:
    """The embedder without its memory, as it is served."""
    return embedder.embedder if isinstance(embedder, Remembering) else embedder
