"""`suffice backtest`: had the job run all along, would it have paid?

The log is walked through in time. At each step a challenger is trained on what was known by then
and held against the champion by the same gate as in `suffice retrain`; whoever is champion then
serves the next period, on which it is judged. Nothing is registered, and no search is made: what is
asked is whether retraining pays, not which parameters do.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from joblib import Parallel, cpu_count, delayed, parallel_config
from numpy.typing import NDArray

from router.artifact import load_artifact
from training.config import effective_rules, read_tiers
from training.console import quieted, say
from training.errors import BadInput
from training.features import prepare, resolve_sources
from training.files import check_file
from training.finish import settle, write_artifact
from training.fit import fit
from training.ground import Ground, lay_out
from training.label.rule import labelled_requests
from training.learn.costs import account
from training.learn.members import STANDARD, Matrix
from training.learn.splits import coarsest, independent, near_duplicates
from training.learn.vectorize import check_embedder, estimates_of, imprinted, vectorize
from training.log.requests import Requests
from training.log.traffic import read_traffic
from training.measure.offpolicy import interval
from training.measure.slice_report import promise_margins
from training.measure.world import comparable
from training.record import Provenance, describe_choice, describe_job
from training.retrain.contest import hold
from training.retrain.gate import judge
from training.retrain.periods import Backtest, Period
from training.retrain.registry import ANCHOR, CHAMPION
from training.retrain.settings import Settings, read_settings
from training.retrain.window import cut, decay

LEAST = 30  # requests in a period


def backtest(config: Path, every_days: float, plot: Path | None) -> Backtest:
    """Walk through the window of retrain.toml, a retraining every `every_days`.

    Raises:
        BadInput: a log without times, or too short for two periods.
    """
    settings = read_settings(config)
    if plot is not None:
        check_file(plot, config, settings.traffic)
    tiers = read_tiers(settings.tiers)
    table = cut(read_traffic(settings.traffic), settings.window)
    requests, _ = labelled_requests(table, tiers, settings.config.label)
    if np.isnat(requests.at).any():
        raise BadInput(f"{settings.traffic}: column at: a backtest needs the time of every request")
    sources = resolve_sources(settings.embedders[0], settings.tuning)
    embedder, *more = sources.embedders
    check_embedder(embedder, list(requests.prompts))
    if not more and sources.tuning is None:  # else steps need the texts
        requests = replace(requests, prompts=imprinted(embedder, requests.prompts))
    periods = []
    with tempfile.TemporaryDirectory() as scratch:
        for period in _walk(settings, requests, every_days, Path(scratch)):
            periods.append(period)
            say(f"{period.since[:10]}: challenger {period.status}")
    if not periods:
        raise BadInput(
            f"{settings.traffic}: no period of {every_days:g} days has {LEAST} requests that every "
            "tier answered after one that could be learned from: take --every shorter, or more log"
        )
    found = Backtest(tuple(periods))
    if plot is not None:
        found.draw(plot)
    return found


def _walk(
    settings: Settings, requests: Requests, every_days: float, scratch: Path
) -> Iterator[Period]:
    length = np.timedelta64(round(every_days * 86_400), "s")
    steps = np.arange(requests.at[0] + length, requests.at[-1], length)
    known = [0, *np.searchsorted(requests.at, steps)]  # how many requests are known at each step
    twin = near_duplicates(list(requests.prompts))
    folders: dict[str, Path] = {}
    champion: int | None = None
    told: int | None = None  # the champion of the period before
    latest: Path | None = None  # whose token models tell costs that were not billed
    # What a step learns does not depend on who is champion: as many are trained at once as there
    # are cores.
    trained = Parallel(
        n_jobs=cpu_count(), return_as="generator"
    )(
        delayed(_train)(
            settings,
            requests.take(np.arange(end)) if end > before else None,  # else: nothing new
            twin[:end],
            scratch / str(number),
        )
        for number, (before, end) in enumerate(pairwise(known))
    )
    for number, (since, made) in enumerate(zip(steps, trained, strict=True)):
        if made is None:
            status = "not trained (nothing new)"
        elif isinstance(made, BadInput):
            status = f"not trained ({made})"
        else:
            latest, passed = made.folder, _passes(made, folders, settings)
            status = "refused"
            if passed:
                champion, folders[CHAMPION] = number, latest
                folders.setdefault(ANCHOR, latest)
        period = (requests.at >= since) & (requests.at < since + length)
        ahead = np.flatnonzero(period & comparable(requests))
        judged = requests.take(ahead)
        if latest is not None and len(judged) >= LEAST:
            status = status if champion == told else "promoted"  # perhaps in a period unjudged
            told, serving = champion, folders.get(CHAMPION)
            unit = coarsest(independent(judged, twin[ahead]))
            figures = _judge(judged, unit, serving, latest, settings)
            yield Period(str(since), str(since + length), len(judged), champion, status, *figures)


@dataclass(frozen=True, slots=True)
class _Made:
    """A challenger, and its test rows with their vectors."""

    folder: Path
    ground: Ground
    x: Matrix


def _train(
    settings: Settings, known: Requests | None, twin: NDArray[np.int64], folder: Path
) -> _Made | BadInput | None:
    """Train a challenger on what is known by then, if anything is new; or why it cannot be."""
    if known is None:
        return None
    try:
        with quieted(), parallel_config(backend="sequential"):
            return _challenger(settings, known, twin, folder)
    except BadInput as problem:
        return problem


def _challenger(
    settings: Settings, known: Requests, twin: NDArray[np.int64], folder: Path
) -> _Made:
    tiers, config = read_tiers(settings.tiers), settings.config
    weighed = decay(known, settings.window.half_life_days)
    ground = lay_out(weighed, (), tiers, config, settings.shares, settings.seed, twin)
    features = prepare(
        ground, resolve_sources(settings.embedders[0], settings.tuning), settings.seed
    )
    fitted = fit(ground, features, settings.seed, STANDARD)
    settled = settle(fitted, config)
    provenance = Provenance(settings.embedders[0], settings.seed, datetime.now(UTC))
    facts = describe_job(known, ground.splits, config.label, provenance)
    facts |= describe_choice(settled, None, effective_rules(config.rules, tiers))
    write_artifact(folder, fitted, settled.policy, facts, None)
    test = ground.splits.test
    kept = replace(ground.splits, fit=test[:0], choose=test[:0], test=np.arange(len(test)))
    ground = replace(ground, requests=ground.requests.take(test), splits=kept)
    return _Made(folder, ground, fitted.features.x.take(test))


def _passes(made: _Made, others: dict[str, Path], settings: Settings) -> bool:
    """What the gate says."""
    contest = hold(made.ground, made.x, made.folder, others, settings.config.label)
    return judge(contest.holdout, contest.entrant, contest.standing, settings.limits).passed


def _judge(
    judged: Requests,
    unit: NDArray[np.int64],
    serving: Path | None,
    latest: Path,
    settings: Settings,
) -> tuple[float, float, float, float, bool]:
    """What the champion would have done in a period: the figures of `Period`, from `usd` on.

    unit: int64[n], as of `coarsest`. latest: whose token models tell costs with no champion.
    """
    rows, top, broken = np.arange(len(judged)), judged.score.shape[1] - 1, False
    tier: NDArray[np.int64] = np.full(len(judged), top)
    artifact = load_artifact(serving or latest)
    predictor = artifact.predictor
    prompts = list(judged.prompts)
    x = vectorize(predictor.vectorizer, prompts)
    paid = account(x, judged, predictor.tokens, predictor.tiers)
    if serving is not None:
        estimates = estimates_of(predictor, x, prompts)
        tier = artifact.policy.choose(estimates.p, estimates.usd)
        good = settings.config.label.sufficed(judged.score)
        margins = promise_margins(artifact.policy.promise, tier, judged.score, good)
        broken = margins is not None and interval(margins, unit, 0.9).high < 0
    return (
        float(paid[rows, tier].sum()),
        float(paid[:, top].sum()),
        float(judged.score[rows, tier].mean()),
        float(judged.score[:, top].mean()),
        bool(broken),
    )
