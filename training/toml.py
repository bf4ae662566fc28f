"""TOML files that people write."""

import tomllib
from pathlib import Path
from typing import Any

from training.errors import BadInput


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; BadInput where it cannot be read."""
    try:
        # Windows' editors may begin a file with a byte-order mark, which is no TOML.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(f"{path}: expected a TOML file ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}") from error
