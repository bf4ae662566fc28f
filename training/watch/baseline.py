"""What recent traffic is compared with: the rows that a router was fitted and chosen on.

Kept in the MLflow run of the training beside the evidence, as ``evidence/baseline.npz``: places of
prompts in the neighbours' 64 dimensions, probabilities, scores and costs; no text, no ids.
"""

import io
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact
from router.predictor import Predictor
from training.errors import BadInput
from training.files import write_arrays
from training.learn.costs import account
from training.learn.members import Matrix
from training.learn.prototypes import Geometry
from training.log.requests import Requests
from training.tracking import ARTIFACT_TAG, fetch_file

Floats = NDArray[np.float64]
FILE = "baseline.npz"
MOST = 20_000  # rows kept
FITTED, UNDECIDED = -1, -2  # in place of a choice, see `Sample.tier`


@dataclass(frozen=True, slots=True)
class Sample:
    """n requests, one of each session, as a router of k tiers sees them.

    Attributes:
        place: float32[n, 64], of length one.
        p: float64[n, k], by the heads that serve; of rows they were fitted on, cross-fitted.
        score: float64[n, k], NaN where a tier was not observed.
        usd: float64[n, k], in the account.
        tier: int64[n], the router's choice; FITTED on rows that its heads were fitted on, UNDECIDED
            on others where it is not known.
    """

    place: NDArray[np.float32]
    p: Floats
    score: Floats
    usd: Floats
    tier: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.place)

    @property
    def decided(self) -> NDArray[np.bool_]:
        """bool[n]: the choice is known, and `p` is as it is served."""
        return np.asarray(self.tier >= 0)

    @property
    def unfitted(self) -> NDArray[np.bool_]:
        """bool[n]: the heads were not fitted on the row, nor the space of its place."""
        return np.asarray(self.tier != FITTED)


def sample(
    requests: Requests, x: Matrix, p: Floats, tier: NDArray[np.int64], predictor: Predictor
) -> Sample:
    """Requests as a sample: the first of each session, so that rows are independent.

    Args:
        requests: n of them.
        x: their vectors.
        p: float64[n, k], cross-fitted where the heads were fitted on the row.
        tier: int64[n], the router's choices, FITTED there.
        predictor: what serves.
    """
    first = np.sort(np.unique(requests.sessions, return_index=True)[1])[-MOST:]
    near = predictor.neighbours
    geometry = Geometry(near.projection, near.offset, near.centroids, np.zeros(0, np.int64))
    usd = account(x, requests, predictor.tokens, predictor.tiers)
    return Sample(
        geometry.place(x.dense[first]), p[first], requests.score[first], usd[first], tier[first]
    )


def save_baseline(folder: Path, kept: Sample) -> None:
    """Write the sample without pickle."""
    arrays = {name: getattr(kept, name) for name in Sample.__dataclass_fields__}
    write_arrays(folder / FILE, arrays, packed=True)


def carried(old: Sample, chosen: Sample | None) -> Sample:
    """The baseline of an artifact whose operating point was chosen again.

    The old rows stay, without the choices that the old operating point made. The rows that the new
    one was chosen on, `chosen`, are added; None: it was only chosen again at other prices.
    """
    kept = replace(old, tier=np.where(old.unfitted, UNDECIDED, FITTED))
    if chosen is None:
        return kept
    names = Sample.__dataclass_fields__
    return Sample(*(np.concatenate([getattr(kept, n), getattr(chosen, n)]) for n in names))


def fetch_baseline(artifact: Artifact) -> Sample:
    """The sample of an artifact's training, from its MLflow run.

    Raises:
        BadInput: the run or its file is gone; the message says what to do.
        EnvironmentProblem: MLflow cannot be reached.
    """
    found = find_baseline(artifact)
    if found is None:
        raise BadInput(
            f"{artifact.path}: no run in MLflow keeps the baseline of its training "
            f"(evidence/{FILE}): set MLFLOW_TRACKING_URI to the store of its training, or "
            "train again"
        )
    return found


def find_baseline(artifact: Artifact) -> Sample | None:
    """The same, None where the run or its file is gone.

    By the artifact's version: of one log and two goals the evidence is the same, the choices not.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = fetch_file(ARTIFACT_TAG, artifact.version, f"evidence/{FILE}", Path(scratch))
        if file is None:
            return None
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            return Sample(**{name: arrays[name] for name in Sample.__dataclass_fields__})
