"""The neighbours: prototypes among the fit rows, and each tier's outcomes counted at them.

The prototypes are found once, before any outcome is looked at; in cross-fitting each fold counts
anew.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from router.neighbours import Neighbours

SMALL_DIM = 64
SESSIONS_PER_PROTOTYPE = 10
MAX_PROTOTYPES = 2000
PRIOR_ROWS = 10.0


@dataclass(frozen=True, slots=True)
class Geometry:
    """Prototypes of the fit rows, before any outcome is looked at.

    Attributes:
        projection: float32[dim, small]; offset: float32[small].
        centroids: float32[prototypes, small], of length one.
        nearest: int64[n], the prototype of each fit row.
    """

    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    centroids: NDArray[np.float32]
    nearest: NDArray[np.int64]

    def place(self, dense: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows in the small space, float32[n, small], of length one."""
        small = dense @ self.projection - self.offset
        length = np.linalg.norm(small, axis=1, keepdims=True)
        return np.asarray(small / np.where(length > 0, length, 1.0), dtype=np.float32)


def fit_geometry(
    dense: NDArray[np.float32], surface: int, sessions: NDArray[np.int64], seed: int
) -> Geometry:
    """Cluster the fit rows in a 64-dimensional PCA of embedding and n-grams.

    Args:
        dense: float32[n, dim]; its first `surface` columns are not used.
        sessions: int64[n]; no prototype stands for fewer than ten of them.
    """
    part = dense[:, surface:].astype(np.float64)
    mean = part.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(part, rowvar=False))
    kept = vectors[:, np.argsort(values)[::-1][:SMALL_DIM]]
    projection = np.zeros((dense.shape[1], kept.shape[1]), dtype=np.float32)
    projection[surface:] = kept
    offset = (mean @ kept).astype(np.float32)
    blank = Geometry(projection, offset, projection[:0], np.zeros(0, dtype=np.int64))
    small = blank.place(dense)
    wanted = len(np.unique(sessions)) // SESSIONS_PER_PROTOTYPE
    wanted = int(np.clip(wanted, 1, min(MAX_PROTOTYPES, len(small))))
    model = MiniBatchKMeans(wanted, n_init=1, batch_size=4096, max_iter=30, random_state=seed)
    nearest = _without_small(small, model.fit_predict(small), sessions)
    centroids = np.stack([small[nearest == j].mean(axis=0) for j in range(nearest.max() + 1)])
    length = np.linalg.norm(centroids, axis=1, keepdims=True)
    centroids = (centroids / np.where(length > 0, length, 1.0)).astype(np.float32)
    return Geometry(projection, offset, centroids, nearest)


def _without_small(
    small: NDArray[np.float32], label: NDArray[np.int64], sessions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give rows of prototypes with under ten sessions to the nearest prototype that has more."""
    pairs = np.unique(np.stack([label, sessions]), axis=1)
    counts = np.bincount(pairs[0], minlength=int(label.max()) + 1)
    kept = np.flatnonzero(counts >= SESSIONS_PER_PROTOTYPE)
    if not len(kept):
        return np.zeros(len(label), dtype=np.int64)
    centres = np.stack([small[label == j].mean(axis=0) for j in kept])
    number = np.full(len(counts), -1)
    number[kept] = np.arange(len(kept))
    found = number[label]
    lost = np.flatnonzero(found < 0)
    found[lost] = np.argmax(small[lost] @ centres.T, axis=1)
    return np.asarray(found, dtype=np.int64)


def fit_neighbours(
    geometry: Geometry,
    score: NDArray[np.float64],
    weight: NDArray[np.float64],
    rows: NDArray[np.int64],
    width: float,
) -> Neighbours:
    """Count each tier's outcomes at the prototypes.

    Args:
        geometry: of all fit rows.
        score: float64[n, k] of the fit rows, NaN where not observed.
        weight: float64[n, k].
        rows: int64[m], the fit rows whose outcomes may be counted.
        width: kernel width, a squared distance.
    """
    seen = ~np.isnan(score[rows])
    weights = np.where(seen, weight[rows], 0.0)
    count, success = (
        _at_prototypes(geometry, rows, values)
        for values in (weights, weights * np.nan_to_num(score[rows]))
    )
    mean = (success.sum(axis=1) + 0.5) / (count.sum(axis=1) + 1.0)
    return Neighbours(
        projection=geometry.projection,
        offset=geometry.offset,
        centroids=geometry.centroids,
        rows=count,
        successes=np.minimum(success, count),
        mean=mean,
        width=width,
        prior=PRIOR_ROWS,
    )


def _at_prototypes(
    geometry: Geometry, rows: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sums of values float64[m, k] over the rows of each prototype, float64[k, prototypes]."""
    size = len(geometry.centroids)
    where = geometry.nearest[rows]
    return np.stack([np.bincount(where, weights=column, minlength=size) for column in values.T])


def neighbour_margins(neighbours: Neighbours, dense: NDArray[np.float32]) -> NDArray[np.float64]:
    """Margins of the neighbours, float64[n, k]."""
    return np.array([neighbours.margins(row) for row in dense])
