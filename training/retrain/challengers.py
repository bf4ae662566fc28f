"""Challengers: the standard recipe for each embedder and label rule, then a bounded Optuna search.

All are fitted on the same fit rows and compared there, by cross-fitting, on the scores that are
trusted, whatever they learned from; choose and test rows are not looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import optuna

from training.errors import BadInput
from training.features import Sources, prepare
from training.fit import Fitted, fit
from training.ground import Ground
from training.label.rule import LabelRule
from training.learn.calibrate import FIRM_ROWS, log_loss
from training.learn.members import STANDARD, Recipe, Ridge
from training.learned import Learned
from training.log.requests import Requests
from training.measure.curve import policy_walk
from training.measure.intervals import values
from training.measure.metrics import curve_metrics

MERIT = "crossfit.aiq"
ALL, FIRM, SUFFICED = LABELS = ("all", "firm", "sufficed")
_STANDARD = {**STANDARD.forest, "ridge_strength": 1.0, "ridge_dense": 1.0}


@dataclass(frozen=True, slots=True)
class Challenger:
    """A fitted challenger.

    Attributes:
        name: its embedder, its label rule and its number in the search.
        embedder: name or folder.
        parameters: what the search chose, by name.
        fitted: features, heads and token models.
        merits: cross-fitted figures of the fit rows; the one compared is `merit`.
    """

    name: str
    embedder: str
    parameters: Mapping[str, Any]
    fitted: Fitted
    merits: dict[str, float]

    @property
    def merit(self) -> float:
        """What challengers are compared by, higher is better.

        The area under the cost–quality curve, where it exists; else minus the log loss.
        """
        return self.merits.get(MERIT, -self.merits["crossfit.log_loss"])


def train_challengers(
    ground: Ground,
    sources: Mapping[str, Sources],
    labels: tuple[str, ...],
    rule: LabelRule,
    count: int,
    seed: int,
) -> Iterator[Challenger]:
    """Fit `count` challengers, one after the other, those with the standard parameters first.

    sources: by the embedder's name; a transformer is fine-tuned once for each that asks for it.
    labels: label rules (`LABELS`); one that changes nothing on the fit rows is not tried.

    Raises:
        BadInput: no label rule can be learned from.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rules = tuple(name for name in labels if _tells(name, ground.fit_rows, rule))
    if not rules:
        raise BadInput(
            f"[train] labels = {list(labels)}: on these fit rows none of them differs from "
            f'"all"; add "all"'
        )
    embedders = tuple(sources)
    features = {name: prepare(ground, source, seed) for name, source in sources.items()}
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
    )
    standard = list(product(embedders, rules))
    for number in range(count):
        if number < len(standard):
            embedder, learns = standard[number]
            parameters, trial = _STANDARD, None
        else:
            trial = study.ask()
            embedder, learns, parameters = _suggest(trial, embedders, rules)
        recipe = _recipe(parameters, learns, rule)
        fitted = fit(ground, features[embedder], seed, recipe)
        made_of = embedder if rules == (ALL,) else f"{embedder}, {learns} labels"
        name = f"{made_of}, {'standard' if trial is None else f'trial {trial.number + 1}'}"
        told = {"embedder": embedder, "labels": learns, **parameters}
        merits = _merits(fitted.learned, ground.fit_rows)
        made = Challenger(name, embedder, told, fitted, merits)
        if trial is not None:
            study.tell(trial, made.merit)
        yield made


def _tells(name: str, requests: Requests, rule: LabelRule) -> bool:
    """Whether learning by a label rule differs from learning from all scores, and is possible."""
    known = ~np.isnan(requests.score)
    sure = known & requests.trusted
    if name == FIRM:
        return bool((known & ~sure).any() and (sure.sum(axis=0) >= FIRM_ROWS).all())
    if name == SUFFICED:
        graded = sure & (requests.score > 0) & (requests.score < 1)
        return bool(graded.any())
    return True


def _suggest(
    trial: optuna.Trial, embedders: tuple[str, ...], rules: tuple[str, ...]
) -> tuple[str, str, dict[str, float]]:
    """An embedder, a label rule and parameters of both learned members."""
    embedder = trial.suggest_categorical("embedder", embedders)
    learns = trial.suggest_categorical("labels", rules) if len(rules) > 1 else rules[0]
    return (
        embedder,
        learns,
        {
            "ridge_strength": trial.suggest_float("ridge_strength", 0.3, 3.0, log=True),
            "ridge_dense": trial.suggest_float("ridge_dense", 0.5, 2.0, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.03, 0.12, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 7, 31, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.15, 0.6, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 1.0, 30.0, log=True),
        },
    )


def _recipe(parameters: Mapping[str, Any], learns: str, rule: LabelRule) -> Recipe:
    """Parameters as a recipe: those of LightGBM, and factors on the standard ridges."""
    strength, dense = parameters["ridge_strength"], parameters["ridge_dense"]

    def scaled(ridges: tuple[Ridge, ...]) -> tuple[Ridge, ...]:
        return tuple(replace(one, c=one.c * strength, dense=one.dense * dense) for one in ridges)

    return Recipe(
        **{name: parameters[name] for name in STANDARD.forest},
        ridges=scaled(STANDARD.ridges),
        gap_ridges=scaled(STANDARD.gap_ridges),
        firm_only=learns == FIRM,
        sufficed_at=rule.sufficed_at if learns == SUFFICED else None,
    )


def _merits(learned: Learned, requests: Requests) -> dict[str, float]:
    """Cross-fitted figures of the fit rows, on trusted scores where there are any."""
    requests = requests.take(np.flatnonzero(learned.heads.whole))
    p, score = learned.crossfit, requests.score
    trusted = requests.trusted & ~np.isnan(score)
    seen = trusted if trusted.any() else ~np.isnan(score)
    safe = np.clip(p[seen], 1e-6, 1 - 1e-6)
    weight = requests.weight[seen]
    loss = log_loss(np.log(safe / (1 - safe)), score[seen], weight)
    found = {"crossfit.log_loss": loss / float(weight.sum())}
    paired = seen.all(axis=1)
    if paired.sum() < 2:
        return found
    usd = learned.usd[paired]
    walk = policy_walk(p[paired], usd)
    metrics = values(curve_metrics(walk, score[paired], usd), int(paired.sum()))
    for name in ("aiq", "apgr_cost"):
        if np.isfinite(metrics[name]):
            found[f"crossfit.{name}"] = float(metrics[name])
    return found
