"""JSON schemas whose patterns are searched for a bounded time.

The library searches with `re`, which a hostile answer can keep busy for ever: the keywords that
hold patterns are validated here, by searches that raise TimeoutError after `SEARCH_SECONDS`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import regex
from jsonschema import validators
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from referencing import Registry

SEARCH_SECONDS = 0.2


def bounded_validator(schema: Mapping[str, Any]) -> Validator:
    """What validates values by a JSON schema; references out of it are not followed.

    Raises:
        ValueError: it is no JSON schema.
    """
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        kind.check_schema(schema)
        for pattern in _patterns(schema):
            regex.compile(pattern)
    except SchemaError as error:
        raise ValueError(f"no JSON schema: {error.message}") from None
    except regex.error as error:
        raise ValueError(f"no JSON schema: a pattern in it is invalid: {error}") from None
    return validators.extend(kind, _BOUNDED)(schema, registry=Registry())


def _patterns(schema: Any) -> Iterator[str]:
    """Every pattern in a schema."""
    if isinstance(schema, list):
        for value in schema:
            yield from _patterns(value)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                yield value
            if key == "patternProperties" and isinstance(value, dict):
                yield from value
            yield from _patterns(value)


def _search(pattern: str, text: str) -> bool:
    return bool(regex.search(pattern, text, timeout=SEARCH_SECONDS))


def _pattern(_: Validator, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _search(pattern, value):
        yield ValidationError(f"does not match {pattern}")


def _pattern_properties(
    validator: Validator, patterns: Mapping[str, Any], value: Any, _: Any
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for pattern, schema in patterns.items():
            for key, item in value.items():
                if _search(pattern, key):
                    yield from validator.descend(item, schema, path=key, schema_path=pattern)


def _additional_properties(
    validator: Validator, allowed: Any, value: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    patterns = schema.get("patternProperties", {})
    for key, item in value.items():
        if key in schema.get("properties", {}) or any(_search(p, key) for p in patterns):
            continue
        if allowed is False:
            yield ValidationError(f"{key!r} is not allowed")
        elif isinstance(allowed, dict):
            yield from validator.descend(item, allowed, path=key)


_BOUNDED: dict[str, Callable[..., Iterator[ValidationError]]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
