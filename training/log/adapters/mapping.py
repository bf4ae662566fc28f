"""Which column of a source is which of the traffic table, by a TOML file (data/README.md)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import BadInput
from training.log.layout import SCHEMA
from training.toml import read_toml

NAMES = frozenset(SCHEMA.names) | {"prompt"}
NEEDED = (("request_id",), ("messages", "prompt"), ("tier", "model"))  # one of each


@dataclass(frozen=True, slots=True)
class Mapping:
    """Column of the traffic table → names in the source (the first with a value counts).

    `values` translates spellings, per column: {"score": {"thumbs_up": 1.0}}.
    """

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    def names(self, column: str) -> tuple[str, ...]:
        """The names under which `column` is looked up in the source."""
        return self.columns.get(column, (column,))

    def missing(self, present: Iterable[str]) -> str | None:
        """Why a source with the columns `present` is no table of traffic; None if it is one."""
        present = set(present)
        for choice in NEEDED:
            wanted = [name for column in choice for name in self.names(column)]
            constant = any(column in self.constants for column in choice)
            if not constant and not any(is_there(name, present) for name in wanted):
                mapped = next((column for column in choice if column in self.columns), None)
                return self.absent(mapped) if mapped else f"no column {' or '.join(wanted)}"
        return None

    def absent(self, column: str) -> str:
        """That no name of a mapped column is there."""
        return f"no column {' or '.join(self.names(column))}, which the mapping names for {column}"

    def read(self) -> set[str]:
        """Every name under which a source may have what is read; a nested one by its first part."""
        names = {name for c in NAMES - self.constants.keys() for name in self.names(c)}
        return names | {name.split(".")[0] for name in names}


def read_mapping(path: Path | None) -> Mapping:
    """Read a mapping file; BadInput names the key that is wrong."""
    if path is None:
        return Mapping()
    loaded = read_toml(path)
    for section, content in loaded.items():
        if section not in ("columns", "constants", "values") or not isinstance(content, dict):
            raise BadInput(f"{path}: [{section}] is not [columns], [constants] or [values.COLUMN]")
        for name in content:
            if name not in NAMES:
                known = ", ".join(sorted(NAMES))
                raise BadInput(f"{path}: [{section}] {name} is no column of the table ({known})")
    for name, table in loaded.get("values", {}).items():
        if not isinstance(table, dict):
            raise BadInput(f"{path}: [values] {name} must be a section of its own, [values.{name}]")
    columns = {key: _names(path, key, value) for key, value in loaded.get("columns", {}).items()}
    values = {
        key: {str(said).lower(): meant for said, meant in table.items()}
        for key, table in loaded.get("values", {}).items()
    }
    return Mapping(columns, loaded.get("constants", {}), values)


def _names(path: Path, key: str, value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise BadInput(f"{path}: [columns] {key} must be a column's name or a list of names")
    return tuple(names)


def is_there(name: str, present: Iterable[str]) -> bool:
    """Whether columns `present` have a name, or the first part of a dotted path."""
    return name in present or ("." in name and name.split(".")[0] in present)


def value_of(source: dict[str, Any], name: str, absent: object = None) -> Any:
    """A field by name, or by dotted path into nested objects; `absent` where it is not there."""
    if name in source:
        return source[name]
    value: Any = source
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return absent
        value = value[part]
    return value
