"""MLflow's store: runs, their files, and what a job says where it fails.

The one file that imports mlflow, but for `training.log.adapters.mlflow`, which reads traces.
"""

import fcntl
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from training.errors import EnvironmentProblem, SufficeError
from training.files import check_file

EXPERIMENT = "suffice"
DEFAULT_STORE = "sqlite:///mlflow.db"
_INTRODUCTION = {
    "mlflow.experimentKind": "custom_model_development",  # not agents: no traces, no prompts
    "mlflow.note.content": (
        "Routers learned from logged LLM traffic. A **retrain** run's name says what became of "
        "it, its description why: the gate's table. Its nested runs are the challengers; sort by "
        "the metric `merit`. Pictures and the page for deciding are among its artifacts "
        "(`report/`); what is served has the alias `champion` in the model registry."
    ),
}
ARTIFACT_TAG = "suffice.artifact"  # of a run about an artifact, and of a model: its version
EVIDENCE_TAG = "suffice.evidence"  # of a run that holds evidence.npz: the file's sha256
NOTHING = "nothing was written"
_CHECK = "Check MLFLOW_TRACKING_URI and run the job again"


def log_run(
    name: str,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    folders: Mapping[str, Path],
    safe: str = NOTHING,
) -> tuple[str, str]:
    """Log one run: parameters, metrics, tags, and folders of files under the names given.

    The store is MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working folder. The files of runs in
    a SQLite store of ours stay beside it, wherever the job is run from. `safe`: see `connected`.

    Returns:
        The run's id and the store's URI.

    Raises:
        EnvironmentProblem: the store cannot be reached or refuses the run.
    """
    with (
        connected("did not take the run", safe) as (mlflow, store),
        mlflow.start_run(run_name=name) as run,
    ):
        mlflow.log_params(dict(parameters))
        mlflow.log_metrics({plain_name(key): value for key, value in metrics.items()})
        mlflow.set_tags(dict(tags))
        for place, folder in folders.items():
            mlflow.log_artifacts(str(folder), artifact_path=place)
    return run.info.run_id, store


def check_store() -> None:
    """Refuse a store that takes no run, before the work.

    A SQLite store that is not there is not made yet: the work may find that there is nothing to
    log.

    Raises:
        EnvironmentProblem: the store cannot be reached, or only be read.
    """
    if (file := _sqlite(_store())) is not None:
        try:
            check_file(file)
        except SufficeError as error:
            raise EnvironmentProblem(f"MLflow's store, {error}; {NOTHING}. {_CHECK}") from error
        if not file.exists():
            return
        if not os.access(file, os.W_OK):
            raise EnvironmentProblem(
                f"MLflow's store {file} may not be written by this account; {NOTHING}. {_CHECK}"
            )
    with connected("takes no run"):
        pass


def has_store() -> bool:
    """Whether there is a store to read: a SQLite store that nothing was logged to is no file."""
    file = _sqlite(_store())
    return file is None or file.is_file()


def fetch_file(tag: str, value: str, file: str, into: Path) -> Path | None:
    """Fetch a file of the newest run that carries a tag and has the file.

    Args:
        tag, value: plain text without quotes.
        file: path among the run's files.
        into: folder to write to.

    Returns:
        The file, or None where there is no such run, or no store at all.

    Raises:
        EnvironmentProblem: the store cannot be reached.
    """
    if not has_store():
        return None
    with connected("did not give the file") as (mlflow, _):
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        client, folder = mlflow.MlflowClient(), file.rpartition("/")[0]
        for run in client.search_runs([experiment.experiment_id], f"tags.`{tag}` = '{value}'"):
            name = run.info.run_id
            if any(found.path == file for found in client.list_artifacts(name, folder)):
                copy = mlflow.artifacts.download_artifacts(
                    run_id=name, artifact_path=file, dst_path=str(into)
                )
                return Path(copy)
    return None


def run_files(files: Sequence[str]) -> Iterator[tuple[str, str, Path]]:
    """(run id, artifact version, local copy) of each of the files in our runs; newest run first.

    A file may be in a model that the run logged. A copy is there until the next one is asked for.

    Raises:
        EnvironmentProblem: the store cannot be reached.
    """
    with connected("did not give the files of its runs", making=False) as (mlflow, _):
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        client, token = mlflow.MlflowClient(), None
        while True:
            runs = client.search_runs([experiment.experiment_id], page_token=token)
            for run, file in product(runs, files):
                name, folder = run.info.run_id, file.rpartition("/")[0]
                if not any(found.path == file for found in client.list_artifacts(name, folder)):
                    continue
                with tempfile.TemporaryDirectory() as into:
                    copy = mlflow.artifacts.download_artifacts(
                        run_id=name, artifact_path=file, dst_path=into
                    )
                    yield name, run.data.tags.get(ARTIFACT_TAG, ""), Path(copy)
            if not (token := runs.token):
                return


@contextmanager
def connected(failed: str, safe: str = NOTHING, making: bool = True) -> Iterator[Any]:
    """MLflow, quiet and set to the store and experiment; whatever it raises becomes a sentence.

    Yields the module and the store's URI.

    Args:
        failed: predicate of the message if MLflow fails, e.g. "did not take the run".
        safe: the message's words on what was written nevertheless, or stayed as it was.
        making: whether a SQLite store that is not there is made.

    Raises:
        EnvironmentProblem: MLflow failed, there is no store, or the disk is full.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # With a server, links to runs would go to standard output, among the JSON that is asked for.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not every table of a new store
        store = _store()
        file = _sqlite(store)
        if not making and not has_store():
            raise EnvironmentProblem(
                f"there is no MLflow store at {file}: set MLFLOW_TRACKING_URI to the store of your "
                "trainings, or run this where they ran"
            )
        try:
            if file is not None:
                _make(mlflow, file)
            mlflow.set_tracking_uri(store)
            place = None if file is None else (file.parent / "mlruns").as_uri()
            if place and mlflow.get_experiment_by_name(EXPERIMENT) is None:
                mlflow.create_experiment(EXPERIMENT, artifact_location=place)
            experiment = mlflow.set_experiment(EXPERIMENT)
            _introduce(mlflow, experiment)
            yield mlflow, store
        except SufficeError:
            raise
        except Exception as error:
            # The disk's errors have no class of their own (numpy's not even a number).
            if type(error) is OSError or isinstance(error, shutil.Error):
                raise EnvironmentProblem(
                    f"the disk took not all that was written ({error}); {safe}. Make space and run "
                    "the job again"
                ) from error
            raise EnvironmentProblem(
                f"MLflow at {store} {failed} ({type(error).__name__}: {error}); {safe}. {_CHECK}"
            ) from error


def look(run: str, store: str) -> str:
    """How to look at a run in a browser."""
    way = store if store.startswith("http") else f"mlflow ui --backend-store-uri {store}"
    return f"MLflow run {run}: {way}"


def _introduce(mlflow: Any, experiment: Any) -> None:
    """Tell MLflow's pages that these are training runs, and people what they see."""
    for name, value in _INTRODUCTION.items():
        if name not in experiment.tags:
            mlflow.MlflowClient().set_experiment_tag(experiment.experiment_id, name, value)


def _store() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def _sqlite(store: str) -> Path | None:
    """The file of a SQLite store, beside which the files of runs go; None of other stores."""
    if not store.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url  # as MLflow reads it

    name = make_url(store).database
    return None if name in (None, "", ":memory:") else Path(name).resolve()


def _make(mlflow: Any, file: Path) -> None:
    """Make a SQLite store beside, then put it in its place, unless it is there.

    MLflow makes its tables one by one for seconds: whoever killed a job meanwhile would leave a
    store that no other job can open, and two first jobs would get in each other's way.
    """
    from sqlalchemy.engine import URL

    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.part")
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, or by a kill
        if file.is_file():
            return
        beside.unlink(missing_ok=True)
        made = URL.create("sqlite", database=str(beside))
        maker = mlflow.MlflowClient(made.render_as_string(hide_password=False))
        maker.search_experiments(max_results=1)
        beside.replace(file)


def plain_name(name: str) -> str:
    """A metric's name with what MLflow does not take (a tier may be called anything) replaced."""
    return re.sub(r"[^\w.\- ]", "_", name)
