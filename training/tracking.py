"""MLflow: the one file that imports it."""

import logging
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.errors import EnvironmentProblem

EXPERIMENT = "suffice"
DEFAULT_STORE = "sqlite:///mlflow.db"


def log_run(
    name: str,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    folders: Mapping[str, Path],
) -> tuple[str, str]:
    """Log one run: parameters, metrics, tags, and folders of files under the names given.

    The store is MLFLOW_TRACKING_URI, else ``mlflow.db`` in the working folder.

    Returns:
        The run's id and the store's URI.

    Raises:
        EnvironmentProblem: the store cannot be reached or refuses the run.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not every table of a new store
        store = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE
        try:
            mlflow.set_tracking_uri(store)
            mlflow.set_experiment(EXPERIMENT)
            with mlflow.start_run(run_name=name) as run:
                mlflow.log_params(dict(parameters))
                mlflow.log_metrics({_plain(key): value for key, value in metrics.items()})
                mlflow.set_tags(dict(tags))
                for place, folder in folders.items():
                    mlflow.log_artifacts(str(folder), artifact_path=place)
        except Exception as error:
            raise EnvironmentProblem(
                f"MLflow at {store} did not take the run ({type(error).__name__}: {error}); the "
                "files asked for are in place. Check MLFLOW_TRACKING_URI and run the job again"
            ) from error
    return run.info.run_id, store


def _plain(name: str) -> str:
    """A metric's name with what MLflow does not take (a tier may be called anything) replaced."""
    return re.sub(r"[^\w.\- ]", "_", name)
