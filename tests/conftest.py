"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The maintainers' folder of public outcome data; a user's checkout has none."""
    folder = Path(os.environ.get("SUFFICE_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("the outcome data sets are not beside this checkout (SUFFICE_SHARED)")
    return folder
