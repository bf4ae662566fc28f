"""The registry: which version is the champion, and how another takes its place.

Versions are of one registered model in MLflow; aliases say what they are: ``champion`` (served),
``challenger`` (the latest candidate), ``previous`` (to go back to) and ``anchor`` (fixed, so that
small losses do not add up). A version's tag names the artifact's own version.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from training.errors import BadInput
from training.pyfunc import INPUT, RoutingModel
from training.tracking import EXPERIMENT, plain_name

CHAMPION, CHALLENGER, PREVIOUS, ANCHOR = "champion", "challenger", "previous", "anchor"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS, ANCHOR)
ARTIFACT = "suffice.artifact"  # tag: the artifact's own version
_FOLDER = "data"  # of a logged model, in which its artifact is


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the registered model."""

    number: str
    artifact: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Registry:
    """One registered model, through an MLflow module that is connected (`training.tracking`)."""

    mlflow: Any
    name: str

    @property
    def client(self) -> Any:
        """MLflow's client of the store."""
        return self.mlflow.MlflowClient()

    def of(self, alias: str) -> Version | None:
        """The version that carries an alias; None where there is none, or it was deleted."""
        # MLflow tells a missing model, alias or version apart in words only.
        with suppress(self.mlflow.exceptions.MlflowException):
            found = self.client.get_model_version_by_alias(self.name, alias)
            return _version(found)
        return None

    def version(self, number: str) -> Version:
        """The version of a number or an alias; BadInput where there is none."""
        if number in ALIASES and (found := self.of(number)):
            return found
        with suppress(self.mlflow.exceptions.MlflowException):
            return _version(self.client.get_model_version(self.name, number))
        known = self.client.search_model_versions(f"name = '{self.name}'")
        told = ", ".join(sorted(str(one.version) for one in known)) or "none"
        raise BadInput(f"model {self.name!r} has no version {number!r}; versions: {told}")

    def fetch(self, version: Version, into: Path) -> Path:
        """Download a version; returns its artifact folder."""
        uri = f"models:/{self.name}/{version.number}"
        folder = self.mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into))
        found = sorted((Path(folder) / _FOLDER).glob("*/manifest.json"))
        if not found:
            raise BadInput(f"{uri} holds no artifact of Suffice")
        return found[0].parent

    def of_run(self, run_id: str, into: Path) -> Path:
        """Download the artifact that a run made: registered, or logged by `suffice train`."""
        asked = f"name = '{self.name}' and run_id = '{run_id}'"
        with suppress(self.mlflow.exceptions.MlflowException):
            for found in self.client.search_model_versions(asked):
                return self.fetch(_version(found), into)
            if self.client.list_artifacts(run_id, "artifact"):
                return Path(
                    self.mlflow.artifacts.download_artifacts(
                        run_id=run_id, artifact_path="artifact", dst_path=str(into)
                    )
                )
        raise BadInput(f"{run_id!r} is no artifact folder, and no run that made one")

    def register(self, artifact: Path, name: str, tags: Mapping[str, str]) -> Version:
        """Log an artifact folder as a model of the active run, and register it as a version."""
        example = pd.DataFrame({INPUT: ["What is the capital of France?"]})
        model = self.mlflow.pyfunc.log_model(
            name="model",
            loader_module="training.pyfunc",
            data_path=str(artifact),
            signature=self.mlflow.models.infer_signature(
                example, RoutingModel(artifact).predict(example)
            ),
            pip_requirements=["suffice", "mlflow"],
        )
        made = self.mlflow.register_model(model.model_uri, self.name, await_registration_for=60)
        tags = {ARTIFACT: name, **{plain_name(key): value for key, value in tags.items()}}
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, made.version, key, value)
        self.client.set_registered_model_alias(self.name, CHALLENGER, made.version)
        return Version(str(made.version), name, made.run_id or "")

    def promote(self, version: Version) -> Version | None:
        """Make a version the champion; returns the one that it replaces, now ``previous``.

        The champion's alias is set last: whatever stops the job before leaves the old one.
        """
        old = self.of(CHAMPION)
        if old is not None and old.number == version.number:
            return None
        client = self.client
        if old is not None:
            client.set_registered_model_alias(self.name, PREVIOUS, old.number)
        if self.of(ANCHOR) is None:
            client.set_registered_model_alias(self.name, ANCHOR, version.number)
        client.set_registered_model_alias(self.name, CHAMPION, version.number)
        candidate = self.of(CHALLENGER)
        if candidate is not None and candidate.number == version.number:
            client.delete_registered_model_alias(self.name, CHALLENGER)
        return old


def end_orphans(mlflow: Any, tag: str, value: str) -> int:
    """Mark runs that a killed job left running; the caller holds the lock. Returns how many."""
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    asked = f"tags.`{tag}` = '{value}' and attributes.status = 'RUNNING'"
    found: Sequence[Any] = client.search_runs([experiment.experiment_id], asked)
    for run in found:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(found)


def _version(found: Any) -> Version:
    return Version(str(found.version), found.tags.get(ARTIFACT, ""), found.run_id or "")
