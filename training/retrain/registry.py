"""The registry: which version is the champion, and how another takes its place.

Versions are of one registered model in MLflow; aliases say what they are: ``champion`` (served),
``challenger`` (the latest candidate), ``previous`` (to go back to) and ``anchor`` (fixed, so that
small losses do not add up). A version's tag names the artifact's own version.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from training.errors import BadInput
from training.pyfunc import INPUT, RoutingModel
from training.tracking import ARTIFACT_TAG, EXPERIMENT, plain_name

CHAMPION, CHALLENGER, PREVIOUS, ANCHOR = "champion", "challenger", "previous", "anchor"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS, ANCHOR)
ALIASES_MEAN = (
    "A router, one version a retraining job. **champion** is served; **challenger** is the latest "
    "that is not; **previous** is what `suffice rollback` returns to; **anchor** is fixed, so that "
    "small losses do not add up. A version's description says what the gate found."
)
SERVES = "the champion serves as before"
BEGUN = "retrain "  # begins the name of a job's run, until it says what became of it
REPLACES = "suffice.replaces"  # tag of a version on its way to be the champion: the one before it
LONGEST = 5000  # characters that MLflow's tables take as a description
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
        with self._absent():
            aliases = self.client.get_registered_model(self.name).aliases
            number = aliases.get(alias)
            if alias == PREVIOUS and CHAMPION in aliases:
                champion = self.client.get_model_version(self.name, aliases[CHAMPION])
                number = champion.tags.get(REPLACES, number)  # `promote` was killed half-way
            if number is not None:
                return _version(self.client.get_model_version(self.name, number))
        return None

    @contextmanager
    def _absent(self) -> Iterator[None]:
        """Pass over MLflow's word that something does not exist, and over nothing else.

        A server that fails must not look like a registry without a champion.
        """
        try:
            yield
        except self.mlflow.exceptions.MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise

    def version(self, number: str) -> Version:
        """The version of a number or an alias; BadInput where there is none."""
        if number in ALIASES and (found := self.of(number)):
            return found
        with self._absent():
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
        with self._absent():
            for found in self.client.search_model_versions(asked):
                return self.fetch(_version(found), into)
            if self.client.list_artifacts(run_id, "artifact"):
                return Path(
                    self.mlflow.artifacts.download_artifacts(
                        run_id=run_id, artifact_path="artifact", dst_path=str(into)
                    )
                )
        raise BadInput(f"{run_id!r} is no artifact folder, and no run that made one")

    def register(
        self, artifact: Path, name: str, tags: Mapping[str, str], description: str
    ) -> Version:
        """Log an artifact folder as a model of the active run, and register it as a version.

        tags, description: of the version, the description in Markdown.
        """
        example = pd.DataFrame({INPUT: ["What is the capital of France?"]})
        model = self.mlflow.pyfunc.log_model(
            name="model",
            loader_module="training.pyfunc",
            data_path=str(artifact),
            input_example=example,
            signature=self.mlflow.models.infer_signature(
                example, RoutingModel(artifact).predict(example)
            ),
            pip_requirements=["suffice", "mlflow"],
        )
        with redirect_stderr(StringIO()):  # MLflow reports what it made past its own logging
            made = self.mlflow.register_model(model.model_uri, self.name, await_registration_for=60)
        tags = {ARTIFACT_TAG: name, **{plain_name(key): value for key, value in tags.items()}}
        for key, value in tags.items():
            self.client.set_model_version_tag(self.name, made.version, key, value)
        self.client.update_model_version(self.name, made.version, description[:LONGEST])
        if not self.client.get_registered_model(self.name).description:
            self.client.update_registered_model(self.name, ALIASES_MEAN)
        self.client.set_registered_model_alias(self.name, CHALLENGER, made.version)
        return Version(str(made.version), name, made.run_id or "")

    def promote(self, version: Version) -> Version | None:
        """Make a version the champion; returns the one that it replaces, now ``previous``.

        One write decides, that of the champion's alias: whatever stops the job before leaves the
        old one. For what it may leave undone after, a tag says which version is replaced.
        """
        old = self.of(CHAMPION)
        if old is not None and old.number == version.number:
            return None
        client = self.client
        if old is not None:
            client.set_model_version_tag(self.name, version.number, REPLACES, old.number)
        if self.of(ANCHOR) is None:
            client.set_registered_model_alias(self.name, ANCHOR, version.number)
        client.set_registered_model_alias(self.name, CHAMPION, version.number)
        if old is not None:
            client.set_registered_model_alias(self.name, PREVIOUS, old.number)
            client.delete_model_version_tag(self.name, version.number, REPLACES)
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
        if run.info.run_name.startswith(BEGUN):  # else it is a challenger's
            name = f"killed, {run.info.run_name.removeprefix(BEGUN)}"
            client.set_tag(run.info.run_id, "mlflow.runName", name)
    return len(found)


def _version(found: Any) -> Version:
    return Version(str(found.version), found.tags.get(ARTIFACT_TAG, ""), found.run_id or "")
