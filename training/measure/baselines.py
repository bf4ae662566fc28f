"""What a router has to beat, fitted on the same rows."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 40


def estimates(
    embedding: NDArray[np.float32], score: NDArray[np.float64], asked: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """All baselines that learn, {name: float64[m, k]}; arguments as `knn`."""
    return {
        "kNN": knn(embedding, score, asked),
        "logistic regression": logistic(embedding, score, asked),
    }


def knn(
    embedding: NDArray[np.float32], score: NDArray[np.float64], asked: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Mean score of the 40 nearest embeddings, per tier (CARROT's kNN, arXiv 2502.03261).

    Args:
        embedding: float32[n, d] of the fit rows.
        score: float64[n, k], NaN where not observed.
        asked: float32[m, d].

    Returns:
        float64[m, k].
    """
    columns, nearest = [], dict[bytes, NDArray[np.int64]]()
    for outcome in score.T:
        known = np.flatnonzero(~np.isnan(outcome))
        rows = known.tobytes()
        if rows not in nearest:  # mostly every tier has scores on the same rows
            count = min(NEIGHBOURS, len(known))
            index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(embedding[known])
            nearest[rows] = known[index.kneighbors(asked, return_distance=False)]
        columns.append(outcome[nearest[rows]].mean(axis=1))
    return np.stack(columns, axis=1)


def logistic(
    embedding: NDArray[np.float32], score: NDArray[np.float64], asked: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Logistic regression on the embedding, per tier; arguments and result as `knn`."""
    columns = []
    for outcome in score.T:
        known = np.flatnonzero(~np.isnan(outcome))
        good = outcome[known] >= 0.5
        if good.all() or not good.any():
            columns.append(np.full(len(asked), outcome[known].mean()))
            continue
        model = LogisticRegression(C=1.0, max_iter=300).fit(embedding[known], good)
        columns.append(model.predict_proba(asked)[:, 1])
    return np.stack(columns, axis=1)
