"""Smoothed success rates of the nearest prototypes.

A prototype is the average of at least ten sessions' prompts, so that no logged prompt can be read
back from an artifact, and latency and size are bounded however long the log was.
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Prototypes in a small space and how each tier did on them.

    Attributes:
        projection: float32[dim, small], from a prompt's vector to the small space.
        offset: float32[small], taken off after projecting.
        centroids: float32[prototypes, small], rows of length one.
        rows: float64[tiers, prototypes], labelled (weighted) rows of each prototype.
        successes: float64[tiers, prototypes], the sum of their scores.
        mean: float64[tiers], mean score of the tier, the rate where nothing is near.
        width: width of the kernel, a squared distance.
        prior: rows' worth of `mean` that is mixed in.
    """

    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    centroids: NDArray[np.float32]
    rows: NDArray[np.float64]
    successes: NDArray[np.float64]
    mean: NDArray[np.float64]
    width: float
    prior: float

    def check(self, dim: int, tiers: int) -> None:
        """Hold the arrays to what `margins` relies on.

        Raises:
            ValueError: shapes do not fit `dim` and `tiers`, or a value is out of range.
        """
        small, prototypes = len(self.offset), len(self.centroids)
        shapes = {
            "projection": (dim, small),
            "offset": (small,),
            "centroids": (prototypes, small),
            "rows": (tiers, prototypes),
            "successes": (tiers, prototypes),
            "mean": (tiers,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"neighbours: {name} must be finite, of shape {shape}")
        if prototypes < 1 or not (0 < self.width < np.inf and 0 < self.prior < np.inf):
            raise ValueError("neighbours: needs a prototype, a positive width and prior")
        if (
            (self.rows < 0).any()
            or (self.successes < 0).any()
            or (self.successes > self.rows).any()
        ):
            raise ValueError("neighbours: successes must lie between 0 and rows")
        if not ((self.mean > 0) & (self.mean < 1)).all():
            raise ValueError("neighbours: mean must lie between 0 and 1")

    def place(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """The row in the small space, float32[small] of length one (or zeros)."""
        small = row.dot(self.projection) - self.offset
        length = sqrt(small.dot(small))
        return np.asarray(small / (length or 1.0), dtype=np.float32)

    def kernel(self, row: NDArray[np.float32]) -> NDArray[np.float64]:
        """How much each prototype counts for a row, float64[prototypes]; the nearest counts 1."""
        likeness = self.centroids.dot(self.place(row)).astype(np.float64)
        return np.asarray(np.exp((likeness - likeness.max()) * (2.0 / self.width)))

    def margins(self, row: NDArray[np.float32]) -> list[float]:
        """Log-odds of each tier's smoothed rate near the row.

        Args:
            row: float32[dim].

        Returns:
            One per tier. The kernel is Nadaraya and Watson's with a Gaussian on the sphere, the
            nearest prototype weighing 1, plus `prior` rows at the tier's mean.
        """
        kernel, prior = self.kernel(row), self.prior
        won, seen = self.successes.dot(kernel).tolist(), self.rows.dot(kernel).tolist()
        known = zip(won, seen, self.mean.tolist(), strict=True)
        rates = [(won + prior * mean) / (seen + prior) for won, seen, mean in known]
        inside = [min(max(rate, 1e-6), 1.0 - 1e-6) for rate in rates]
        return [log(rate / (1.0 - rate)) for rate in inside]
