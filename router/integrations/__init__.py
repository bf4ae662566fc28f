"""The router in other software; each file needs only the package that it is named after."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports that need an extra of suffice; an error of them says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        told = f"{error}: pip install 'suffice[{name}]'"
        raise ModuleNotFoundError(told, name=error.name) from error
