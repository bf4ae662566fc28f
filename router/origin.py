"""Where an artifact comes from: a folder, or a model of an MLflow registry."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

REGISTRY: Final = "models:/"  # begins the address of a registered model


@dataclass(frozen=True, slots=True)
class Origin:
    """The address of an artifact: a path, or ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``."""

    address: str

    @property
    def registered(self) -> bool:
        """Whether a registry has to be asked."""
        return self.address.startswith(REGISTRY)

    @property
    def pause(self) -> float:
        """Seconds between two looks for a new artifact."""
        return 60.0 if self.registered else 5.0

    def absolute(self) -> "Origin":
        """The same artifact, whatever working folder the service changes to."""
        return self if self.registered else Origin(str(Path(self.address).absolute()))

    def find(self) -> Path:
        """The folder of the artifact; that of a registry is fetched.

        Raises:
            ArtifactError: see `router.integrations.mlflow.fetch`.
        """
        if not self.registered:
            return Path(self.address)
        from router.integrations.mlflow import fetch

        return fetch(self.address)
