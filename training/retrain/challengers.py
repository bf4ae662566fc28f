"""Challengers: the standard recipe for each embedder, then a bounded search by Optuna.

All are fitted on the same fit rows and compared there, by cross-fitting; choose and test rows are
not looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import optuna

from training.learn.calibrate import log_loss
from training.learn.embedders import resolve_embedder
from training.learn.members import STANDARD, Recipe
from training.learned import Learned
from training.log.requests import Requests
from training.measure.curve import policy_walk
from training.measure.intervals import values
from training.measure.metrics import curve_metrics
from training.train import Features, Ground, featurize, fit

MERIT = "crossfit.aiq"


@dataclass(frozen=True, slots=True)
class Challenger:
    """A fitted challenger.

    Attributes:
        name: its embedder and its number in the search.
        embedder: name or folder.
        recipe: parameters of the members.
        features: vectors of all requests.
        learned: heads and token models.
        merits: cross-fitted figures of the fit rows; the one compared is `merit`.
    """

    name: str
    embedder: str
    recipe: Recipe
    features: Features
    learned: Learned
    merits: dict[str, float]

    @property
    def merit(self) -> float:
        """What challengers are compared by, higher is better.

        The area under the cost–quality curve, where it exists; else minus the log loss.
        """
        return self.merits.get(MERIT, -self.merits["crossfit.log_loss"])


def train_challengers(
    ground: Ground, embedders: tuple[str, ...], count: int, seed: int
) -> Iterator[Challenger]:
    """Fit `count` challengers, one after the other, the standard one of each embedder first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    features = {name: featurize(ground, resolve_embedder(name), seed) for name in embedders}
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
    )
    for number in range(count):
        if number < len(embedders):
            embedder, recipe, trial = embedders[number], STANDARD, None
        else:
            trial = study.ask()
            embedder = trial.suggest_categorical("embedder", embedders)
            recipe = _suggest(trial.suggest_float, trial.suggest_int)
        learned = fit(ground, features[embedder], seed, recipe)
        name = f"{embedder}, standard" if trial is None else f"{embedder}, trial {trial.number + 1}"
        merits = _merits(learned, ground.fit_rows)
        made = Challenger(name, embedder, recipe, features[embedder], learned, merits)
        if trial is not None:
            study.tell(trial, made.merit)
        yield made


def _suggest(real: Callable[..., float], whole: Callable[..., int]) -> Recipe:
    strength = real("ridge_strength", 0.3, 3.0, log=True)
    dense = real("ridge_dense", 0.5, 2.0, log=True)
    return Recipe(
        learning_rate=real("learning_rate", 0.03, 0.12, log=True),
        num_leaves=whole("num_leaves", 7, 31, log=True),
        feature_fraction=real("feature_fraction", 0.15, 0.6, log=True),
        lambda_l2=real("lambda_l2", 1.0, 30.0, log=True),
        ridges=tuple(
            replace(ridge, c=ridge.c * strength, dense=ridge.dense * dense)
            for ridge in STANDARD.ridges
        ),
    )


def _merits(learned: Learned, requests: Requests) -> dict[str, float]:
    """Cross-fitted figures of the fit rows."""
    p, score = learned.heads.p, requests.score
    seen = ~np.isnan(score)
    safe = np.clip(p[seen], 1e-6, 1 - 1e-6)
    weight = requests.weight[seen]
    loss = log_loss(np.log(safe / (1 - safe)), score[seen], weight)
    found = {"crossfit.log_loss": loss / float(weight.sum())}
    paired = requests.paired
    if paired.sum() < 2:
        return found
    usd = learned.usd[paired]
    walk = policy_walk(p[paired], usd)
    metrics = values(curve_metrics(walk, score[paired], usd), int(paired.sum()))
    for name in ("aiq", "apgr_cost"):
        if np.isfinite(metrics[name]):
            found[f"crossfit.{name}"] = float(metrics[name])
    return found
