"""The error that says that something is wrong with the data."""

from __future__ import annotations


class DataError(ValueError):
    """The data are not what was expected; the message says what came and what to do."""
