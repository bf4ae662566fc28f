"""Propensities estimated from the log, where asked for: an assumption, and flagged as one.

It holds if the logging policy chose by what the estimate sees (the prompt, its length, the time)
and by chance. A policy that chose by anything else that also tells how good an answer will be, such
as a user's plan, makes every value wrong, and nothing in the log shows it. Log propensities.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from router.embedder import Embedder
from training.errors import BadInput
from training.learn.vectorize import readings
from training.log.requests import MAX_WEIGHT, Requests

FOLDS = 5
PENALTY_C = 0.01  # the features are standardised; hundreds of them must not fit chance


def estimate_propensities(
    requests: Requests, embedder: Embedder
) -> tuple[Requests, tuple[str, ...]]:
    """Fill in the propensity of every request that one tier answered and the log says none for.

    P(tier | prompt, length, time) by multinomial logistic regression, calibrated (Platt, 1999), for
    each request from a model that did not see its session. Estimates below 1/20 count as 1/20.

    Returns:
        The requests, and the notes that every output must carry.

    Raises:
        BadInput: fewer than two tiers that answered alone, or one too rarely to be estimated.
    """
    seen = ~np.isnan(requests.score)
    rows = np.flatnonzero((seen.sum(axis=1) == 1) & np.isnan(requests.propensity).all(axis=1))
    if not len(rows):
        return requests, ("propensities: none to estimate",)
    tier = seen[rows].argmax(axis=1)
    counts = np.bincount(tier, minlength=seen.shape[1])
    if (counts > 0).sum() < 2 or counts[counts > 0].min() < FOLDS**2:
        raise BadInput(
            f"--estimate-propensities: {', '.join(map(str, counts))} answers of the tiers, "
            "cheapest first: two tiers or more must have answered, each that did at least "
            f"{FOLDS**2} times; explore: send some requests at random to the other tiers"
        )
    model = make_pipeline(
        StandardScaler(),
        CalibratedClassifierCV(LogisticRegression(C=PENALTY_C, max_iter=500), cv=FOLDS),
    )
    found = cross_val_predict(
        model,
        _features(requests, rows, embedder),
        tier,
        groups=requests.sessions[rows],
        cv=GroupKFold(FOLDS, shuffle=True, random_state=0),
        method="predict_proba",
    )
    column = np.searchsorted(np.flatnonzero(counts), tier)
    chance = found[np.arange(len(rows)), column]
    kept = np.maximum(chance, 1.0 / MAX_WEIGHT)
    propensity, weight = requests.propensity.copy(), requests.weight.copy()
    propensity[rows, tier] = kept
    weight[rows, tier] /= kept
    note = (
        f"ESTIMATED, not logged: the propensities of {len(rows)} requests ({chance.min():.3g} to "
        f"{chance.max():.3g}; {int((chance < kept).sum())} raised to {1 / MAX_WEIGHT:g}); values "
        "hold only if the tier was chosen by the prompt, its length, the time and chance alone"
    )
    return replace(requests, propensity=propensity, weight=weight), (note,)


def _features(
    requests: Requests, rows: NDArray[np.int64], embedder: Embedder
) -> NDArray[np.float64]:
    """What a logging policy may have looked at, float64[rows, d]: text, length, time."""
    prompts = requests.prompts[rows]
    columns = [
        np.array([reading.embedding for reading in readings(embedder, list(prompts))], float),
        np.log1p([[prompt.chars] for prompt in prompts]),
    ]
    at = requests.at[rows]
    if not np.isnat(at).any():
        time = at.astype("datetime64[us]").astype(np.float64)
        columns.append((time - time.min())[:, None])
    return np.hstack(columns)
