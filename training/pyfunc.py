"""An artifact as an MLflow `pyfunc` model: nothing is pickled; mlflow and suffice are enough.

MLflow's `loader_module`: it calls `_load_pyfunc` with the artifact folder.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from router import Router

INPUT = "prompt"


class RoutingModel:
    """`predict` for a frame with a column `prompt`: a text, or a JSON list of chat messages."""

    def __init__(self, folder: str | Path) -> None:
        """Load the artifact; it is verified as in a service."""
        self.router = Router.load(folder)

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per prompt: tier, model, reason, p_suffices__<tier>, expected_cost_usd__<tier>.

        Raises:
            ValueError: there is no column `prompt`.
        """
        if INPUT not in data:
            raise ValueError(f"a column {INPUT!r} is needed, got {list(data.columns)}")
        decisions = [self.router.route(_messages(prompt)) for prompt in data[INPUT]]
        rows = [
            {"tier": one.tier, "model": one.model, "reason": one.reason}
            | {f"p_suffices__{name}": p for name, p in one.p_suffices.items()}
            | {f"expected_cost_usd__{name}": usd for name, usd in one.expected_cost_usd.items()}
            for one in decisions
        ]
        return pd.DataFrame(rows, index=data.index)


def _messages(prompt: Any) -> Any:
    if isinstance(prompt, str) and prompt.lstrip().startswith("["):
        try:
            return json.loads(prompt)
        except ValueError:
            return prompt
    return prompt


def _load_pyfunc(data_path: str) -> RoutingModel:
    return RoutingModel(data_path)
