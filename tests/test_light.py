"""Serving stays light: one decision loads nothing that only training needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import make_artifact

HEAVY = set(
    """lightgbm sklearn pandas pyarrow mlflow joblib scipy rich typer matplotlib datasketch
    sentence_transformers torch onnxruntime onnx training litellm openai
    opentelemetry httpx pydantic asyncio""".split()
)
PROGRAM = """
import json, sys
from router import Router
decision = Router.load(sys.argv[1]).route("What is the capital of France?")
print(json.dumps([decision.reason, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_one_decision_loads_nothing_heavy(tmp_path: Path) -> None:
    make_artifact(tmp_path / "artifact")
    # A test run's own plug-ins may preload packages in children.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "artifact")],
        capture_output=True,
        text=True,
        check=True,
        env=env,
        cwd=Path(__file__).parents[1],
    )
    reason, loaded = json.loads(done.stdout)
    assert reason == "policy"
    assert {"router", "numpy", "tokenizers"} <= set(loaded)
    assert not HEAVY & set(loaded)
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["litellm", "openai", "opentelemetry"])
def test_a_serving_install_says_what_an_integration_needs(name: str) -> None:
    program = f"import sys; sys.modules[{name!r}] = None; import router.integrations.{name}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ") and name in last
    assert last.endswith(f": pip install 'suffice[{name}]'")


def test_a_serving_install_says_what_jobs_need() -> None:
    """`pip install suffice` brings the command, too: exit 1 would be a gate's no."""
    program = "import sys; sys.modules['typer'] = None; from training.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 3
    needs = "typer is not installed, and jobs need it: pip install 'suffice[train]'"
    assert done.stderr == f"error: {needs}\n"
