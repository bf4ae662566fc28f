"""Fixtures that several test files share."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from router.artifact import Artifact, load_artifact

# No test times anything: a machine may pause for longer than hypothesis would wait for an example.
settings.register_profile("untimed", parent=settings.default, deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The maintainers' folder of public outcome data; a user's checkout has none."""
    folder = Path(os.environ.get("SUFFICE_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("the outcome data sets are not beside this checkout (SUFFICE_SHARED)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One MLflow store for the session, outside the checkout; its migrations take seconds.

    Nor is a key or a cache of this machine's used.
    """
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.delenv("SUFFICE_KEY", raising=False)  # this machine's, which services hash ids with
        # Where an example imports LiteLLM, a thread would ask the network, and warn elsewhere.
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        # Benchmarks may name a cache that outlives them: 26,000 embeddings take minutes.
        patch.setenv("SUFFICE_CACHE", os.environ.get("SUFFICE_CACHE") or str(folder / "cache"))
        if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are shared by tests: folds stay here
            patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        yield os.environ["MLFLOW_TRACKING_URI"]


@pytest.fixture(autouse=True)
def _same_store(_own_store: str) -> Iterator[None]:
    """No test leaves another store to the next: `mlflow.set_tracking_uri` sets the variable."""
    yield
    left = os.environ.get("MLFLOW_TRACKING_URI")
    if left != _own_store:
        os.environ["MLFLOW_TRACKING_URI"] = _own_store
        pytest.fail(f"this test left MLFLOW_TRACKING_URI={left} behind")


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refusing_store(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that can be reached and takes no files of a run; returns what is in their way."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workdir}/mlflow.db")
    (workdir / "mlruns").write_text("in the way")
    return workdir / "mlruns"


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact of random numbers and three tiers, for all tests that only read it."""
    from tests.builders import make_artifact

    return load_artifact(make_artifact(tmp_path_factory.mktemp("built") / "artifact"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of the test file's artifact `original`, which a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "artifact"))


@dataclass(frozen=True, slots=True)
class Job:
    """A finished training job on a small log: easy and hard prompts, two tiers, all paired."""

    traffic: Path
    fresh: Path  # later requests that the artifact has not seen
    tiers: Path
    artifact: Path
    trained: Any


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One artifact for all tests that only read it."""
    from tests.traffic_makers import TIERS, make_rows, write_log, write_tiers
    from training.config import Config
    from training.decide.goals import MinQuality
    from training.train import train

    folder = tmp_path_factory.mktemp("job")
    rows = make_rows(900, seed=1, session=2)
    split = next(i for i, row in enumerate(rows) if row["request_id"] == "r780")
    traffic = write_log(folder / "log.parquet", rows[:split])
    fresh = write_log(folder / "fresh.parquet", rows[split:])
    config = Config(policy=MinQuality(0.9))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trained = train(traffic, TIERS, folder / "artifact", config, (0.4, 0.45, 0.15), 0, "static")
    return Job(traffic, fresh, write_tiers(folder), folder / "artifact", trained)
