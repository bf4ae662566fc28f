"""Peers' methods: what others route by, fitted on all training rows, each at its best settings.

A peer sees a prompt's embedding and gives a worth per tier: an estimate of the tier's score, up to
one number per prompt. What may be tuned is tuned by cross-fitting on the training rows, by the
error of the gaps between tiers, which is what routing turns on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.bench.factorisation import fit_factorisation

Floats = NDArray[np.float64]
Embedded = NDArray[np.float32]
Worth = Callable[[Embedded], Floats]  # float32[m, dim] → float64[m, k]
Fit = Callable[[Embedded, Floats, Mapping[str, Any], int], Worth]

FOLDS = 4
KERNEL = 0.2  # squared distance at which a neighbour counts 1/e


@dataclass(frozen=True, slots=True)
class Peer:
    """A method, where it is from, how it is fitted, and the settings among which it is tuned."""

    name: str
    source: str
    fit: Fit
    settings: tuple[Mapping[str, Any], ...]
    while_tuning: Mapping[str, Any] = field(default_factory=dict)  # cheaper, as good to compare by


@dataclass(frozen=True, slots=True)
class FittedPeer:
    """A peer that has learned, and the settings that cross-fitting chose."""

    worth: Worth
    settings: Mapping[str, Any]


def fit_peer(
    peer: Peer, embedding: Embedded, score: Floats, group: NDArray[np.int64], seed: int
) -> FittedPeer:
    """Tune on the training rows and fit on all of them.

    Args:
        peer: the method.
        embedding: float32[n, dim].
        score: float64[n, k], every tier's.
        group: int64[n], rows that must stay in one fold.
        seed: of folds, trees and networks.
    """
    splitter = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(embedding, groups=group))

    def error(settings: Mapping[str, Any]) -> float:
        worth = np.empty_like(score)
        for inside, outside in folds:
            cheap = {**settings, **peer.while_tuning}
            model = peer.fit(embedding[inside], score[inside], cheap, seed)
            worth[outside] = model(embedding[outside])
        return float((((worth - worth[:, -1:]) - (score - score[:, -1:])) ** 2).sum())

    settings = peer.settings[0] if len(peer.settings) == 1 else min(peer.settings, key=error)
    return FittedPeer(peer.fit(embedding, score, settings, seed), settings)


def _neighbours(
    embedding: Embedded, score: Floats, settings: Mapping[str, Any], seed: int
) -> Worth:
    count = min(settings["k"], len(embedding))
    weights = _near if settings["weights"] == "kernel" else "uniform"
    model = KNeighborsRegressor(count, weights=weights, algorithm="brute").fit(embedding, score)
    return lambda asked: np.asarray(model.predict(asked), dtype=np.float64)


def _near(distance: Floats) -> Floats:
    return np.exp(-(distance**2 - distance.min(axis=1, keepdims=True) ** 2) / KERNEL)


def _linear(embedding: Embedded, score: Floats, settings: Mapping[str, Any], seed: int) -> Worth:
    scaler = StandardScaler().fit(embedding)
    rows = scaler.transform(embedding)
    slopes, levels = zip(*(_logistic(rows, tier, settings["c"]) for tier in score.T), strict=True)
    weights, bias = np.stack(slopes, axis=1) / scaler.scale_[:, None], np.array(levels)
    bias -= scaler.mean_ @ weights
    return lambda asked: np.asarray(expit(asked @ weights + bias))


def _logistic(rows: Embedded, score: Floats, c: float) -> tuple[Floats, float]:
    """Logistic regression on one tier's scores; a score is that share of a success."""
    if np.ptp(score) == 0:
        return np.zeros(rows.shape[1]), float(logit(score[0]))
    share = np.concatenate([score, 1.0 - score])
    used = np.flatnonzero(share > 0)
    both, outcome = np.concatenate([rows, rows]), np.repeat([1, 0], len(rows))
    model = LogisticRegression(C=c, max_iter=300).fit(both[used], outcome[used], share[used])
    return model.coef_[0], float(model.intercept_[0])


def _forest(embedding: Embedded, score: Floats, settings: Mapping[str, Any], seed: int) -> Worth:
    model = RandomForestRegressor(
        settings["trees"],
        min_samples_leaf=settings["leaf"],
        max_features="sqrt",
        n_jobs=cpu_count(),
        random_state=seed,
    ).fit(embedding, score)
    model.n_jobs = 1  # starting threads takes longer than one prompt does
    return lambda asked: np.asarray(model.predict(asked))


def _network(embedding: Embedded, score: Floats, settings: Mapping[str, Any], seed: int) -> Worth:
    network = MLPRegressor(
        hidden_layer_sizes=(settings["width"],),
        alpha=settings["alpha"],
        early_stopping=True,
        max_iter=2000,  # it stops long before
        random_state=seed,
    )
    model = make_pipeline(StandardScaler(), network).fit(embedding, score)
    return lambda asked: np.asarray(model.predict(asked), dtype=np.float64)


def _factorisation(
    embedding: Embedded, score: Floats, settings: Mapping[str, Any], seed: int
) -> Worth:
    return fit_factorisation(embedding, score, settings["penalty"], seed)


PEERS = (
    Peer(
        "kNN",
        "mean score of the nearest training prompts, k tuned (CARROT, arXiv 2502.03261)",
        _neighbours,
        tuple(
            {"k": k, "weights": weights}
            for weights in ("uniform", "kernel")
            for k in (10, 20, 40, 80, 160, 320)
        ),
    ),
    Peer(
        "linear",
        "logistic regression on each tier's score",
        _linear,
        tuple({"c": c} for c in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)),
    ),
    Peer(
        "matrix factorisation",
        "bilinear in tier and prompt, Bradley–Terry loss (RouteLLM, arXiv 2406.18665)",
        _factorisation,
        tuple({"penalty": penalty} for penalty in (10.0, 30.0, 100.0, 300.0)),
    ),
    Peer(
        "random forest",
        "300 regression trees on all tiers' scores",
        _forest,
        tuple({"leaf": leaf, "trees": 300} for leaf in (2, 5, 15)),
        {"trees": 50},
    ),
    Peer(
        "MLP",
        "one hidden layer on all tiers' scores, stopped early",
        _network,
        tuple({"width": w, "alpha": a} for w in (32, 128) for a in (1e-2, 1.0)),
    ),
)
