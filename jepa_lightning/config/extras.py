"""Packages beyond the core: where one is missing or does not load, a line says how to install it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, *, who: str, packages: tuple[str, ...], broken: Callable[[str], str]) -> Iterator[None]:
    """Turn the error of an import inside into a line that says what to install.

    Args:
        name: of the extra: "audio".
        who: needs the packages: "audio needs".
        packages: whose absence is an error, by the names that they are imported by.
        broken: what to say of a package that is there and does not load, from the first line of its error.

    Raises:
        ImportError: a package is missing or does not load.
    """
    install = f'pip install "jepa-lightning[{name}]"'
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:  # the latter two where it was built for another torch
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and missing in packages:
            package = missing.split(".")[0].replace("_", "-")
            raise ImportError(f"{who} {package}, which is not installed: {install}") from None
        raise ImportError(f"{broken(str(error).strip().split(chr(10))[0])}: {install}") from error
