"""`suffice bench`: Suffice and its peers on any traffic that every tier answered, in one run.

Same rows, same metrics, paired intervals. A figure is the mean over seeds. Its interval is from one
bootstrap over all independent units, as of `evaluate`: a request that several seeds test weighs the
same in each, so that testing it again does not pose as more evidence.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.prompt import Prompt
from router.tier import Tier
from training.bench.game import Game, Standing, play
from training.bench.peers import PEERS
from training.bench.result import ORACLE, RANDOM, Bench
from training.bench.rules import NAME as RULES
from training.bench.rules import SOURCE as RULES_SOURCE
from training.bench.rules import complexity
from training.config import Config
from training.console import step
from training.errors import BadInput, EnvironmentProblem
from training.label.rule import firm_requests, load_requests
from training.learn.embedders import resolve_embedder
from training.learn.splits import coarsest, independent
from training.log.imprint import Imprint, needs_text
from training.log.requests import Requests
from training.measure.curve import Curve, Floats, Point, oracle_walk, trace
from training.measure.intervals import (
    Bootstrap,
    Estimator,
    Interval,
    bootstrap,
    values,
)
from training.measure.metrics import curve_metrics, policy_metrics, random_metrics, undefined

LEAST = 200  # requests that every tier answered
LEAST_TEST = 30
RESAMPLES = 1000
BY_ORDER = ("apgr", "cpt_20", "cpt_50", "cpt_80")  # of calls; all else is in dollars


def bench(
    traffic: Path,
    tiers: tuple[Tier, ...],
    config: Config,
    shares: tuple[float, float, float],
    seeds: int,
    embedder: str,
) -> Bench:
    """Compare Suffice with its peers.

    Args:
        traffic: the table; requests that not every tier answered are left out.
        tiers: cheapest first.
        config: what sufficing means, and the goal of Suffice's operating point.
        shares: of fit, choose and test rows; peers are fitted on the first two.
        seeds: how many splits (of a log with times, by which it is split: how many fittings).
        embedder: of the peers, and of Suffice, which is also shown with its static table.

    Raises:
        BadInput: too few requests that every tier answered, or nothing to learn.
        EnvironmentProblem: the embedder is not here.
    """
    with step("read traffic"):
        requests, notes = _paired(traffic, tiers, config, shares)
        kinds = dict.fromkeys(["static", embedder])
        embedders = {f"Suffice, {Path(kind).name}": resolve_embedder(kind) for kind in kinds}
    rules, told = _rules(len(tiers))
    games = [play(requests, tiers, config, shares, seed, embedders, rules) for seed in range(seeds)]
    with step("intervals"):
        return _summary(requests, tiers, list(embedders), games, (*notes, *told))


def _paired(
    traffic: Path, tiers: tuple[Tier, ...], config: Config, shares: tuple[float, float, float]
) -> tuple[Requests, tuple[str, ...]]:
    """The requests that can be compared on, and what was left out or assumed."""
    requests, notes = load_requests(traffic, tiers, config.label)
    if any(isinstance(prompt, Imprint) for prompt in requests.prompts[:1]):
        raise needs_text(traffic, "a comparison with peers")
    requests, weak = firm_requests(requests)
    rows = np.flatnonzero(requests.paired)
    if len(rows) < LEAST or shares[2] * len(rows) < LEAST_TEST:
        raise BadInput(
            f"{traffic}: {len(rows)} of {len(requests)} requests carry every tier's score; a "
            f"comparison needs {LEAST}, and {LEAST_TEST} of them to test on (--split): methods are "
            "compared on what every tier did. `suffice replay` asks the tiers that did not answer"
        )
    left = len(requests) - len(rows)
    notes += (f"{left} requests without every tier's score are left out",) * bool(left)
    return requests.take(rows), (*config.label.warnings(), *notes, *weak)


def _rules(tiers: int) -> tuple[Callable[[Prompt], float] | None, tuple[str, ...]]:
    """LiteLLM's rules, or why they are left out."""
    if tiers > 2:
        return None, (f"{RULES} are left out: they order prompts, which is enough for two tiers",)
    try:
        return complexity(), ()
    except EnvironmentProblem as problem:
        return None, (str(problem),)


def _summary(
    requests: Requests,
    tiers: tuple[Tier, ...],
    ours: Sequence[str],
    games: Sequence[Game],
    notes: tuple[str, ...],
) -> Bench:
    """Every figure of the games, with its interval, and what a reader needs to know."""
    first, names, played = games[0], list(games[0].standings), _played(games)
    tested, where = np.unique(np.concatenate([game.rows for game in games]), return_inverse=True)
    places = np.split(where, np.cumsum([len(game.rows) for game in games])[:-1])
    estimators = {name: _mean(parts, places) for name, parts in played.items()}
    for name in ours:
        estimators[f"chosen: {name}"] = _mean(
            [_chosen(g, g.standings[name]) for g in games], places
        )
    units = coarsest(independent(requests.take(tested)))
    rounds = bootstrap(estimators, len(tested), groups=units, resamples=RESAMPLES)
    figures = rounds.intervals()
    chosen = {name: figures.pop(f"chosen: {name}") for name in ours}
    gap = len(tiers) == 2 and np.isfinite(figures[RANDOM]["apgr"].value)
    headline = "apgr" if gap else "aiq"
    peers = [name for name in names if name not in ours]
    return Bench(
        requests=len(requests),
        trained=first.trained,
        tested=len(first.rows),
        tiers=tuple(tier.name for tier in tiers),
        seeds=tuple(game.seed for game in games),
        headline=headline,
        sources={name: _source(name) for name in played},
        figures=figures,
        by_seed={
            name: [_numbers(part, game) for part, game in zip(parts, games, strict=True)]
            for name, parts in played.items()
        },
        microseconds={name: first.standings[name].microseconds for name in names},
        settings={name: [dict(game.standings[name].settings) for game in games] for name in peers},
        against={
            name: {other: _minus(rounds, name, other) for other in figures if other != name}
            for name in ours
        },
        chosen=chosen,
        best_peer=max(peers, key=lambda name: np.nan_to_num(figures[name][headline].value)),
        curves=_curves(first),
        constants=tuple(
            Point(float(first.paid[:, j].mean()), float(first.quality[:, j].mean()), tier.name)
            for j, tier in enumerate(tiers)
        ),
        missing=undefined(first.quality, first.paid),
        notes=notes,
    )


def _played(games: Sequence[Game]) -> dict[str, list[Estimator]]:
    """{method: its metrics in each game}, with what bounds every method."""
    found = {
        name: [_estimator(game, game.standings[name]) for game in games]
        for name in games[0].standings
    }
    found[RANDOM] = [random_metrics(game.quality, game.paid) for game in games]
    found[ORACLE] = [
        curve_metrics(oracle_walk(game.quality, game.paid), game.quality, game.paid)
        for game in games
    ]
    return found


def _curves(game: Game) -> dict[str, Curve]:
    """{method: its curve in one game}, the oracle's last."""
    walks = {name: standing.dollar for name, standing in game.standings.items()}
    walks[ORACLE] = oracle_walk(game.quality, game.paid)
    return {name: trace(walk, game.quality, game.paid) for name, walk in walks.items()}


def _estimator(game: Game, standing: Standing) -> Estimator:
    """All metrics of a method in one seed: those of calls by gain, those of money by dollar."""
    dollar = curve_metrics(standing.dollar, game.quality, game.paid)
    if standing.gain is standing.dollar:
        return dollar
    gain = curve_metrics(standing.gain, game.quality, game.paid)

    def estimate(weights: Floats) -> dict[str, Floats]:
        by_gain = gain(weights)
        return dollar(weights) | {metric: by_gain[metric] for metric in BY_ORDER}

    return estimate


def _chosen(game: Game, standing: Standing) -> Estimator:
    assert standing.chosen is not None
    return policy_metrics(standing.chosen, game.quality, game.paid)


def _mean(parts: Sequence[Estimator], places: Sequence[NDArray[np.int64]]) -> Estimator:
    """The mean over seeds, each on its own rows of the weights."""

    def estimate(weights: Floats) -> dict[str, Floats]:
        pairs = zip(parts, places, strict=True)
        found = [part(np.ascontiguousarray(weights[:, at])) for part, at in pairs]
        return {metric: np.mean([one[metric] for one in found], axis=0) for metric in found[0]}

    return estimate


def _numbers(part: Estimator, game: Game) -> dict[str, float]:
    return {metric: float(value) for metric, value in values(part, len(game.rows)).items()}


def _minus(rounds: Bootstrap, ours: str, other: str) -> dict[str, Interval]:
    return {metric: rounds.difference(metric, ours, other) for metric in rounds.value[other]}


def _source(name: str) -> str:
    known = {peer.name: peer.source for peer in PEERS} | {
        RULES: RULES_SOURCE,
        RANDOM: "the same share of requests to each tier, drawn blindly",
        ORACLE: "knows every outcome and bill beforehand: no policy does better",
    }
    return known.get(name, "trained by its own job; its embedder is named")
