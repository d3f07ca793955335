"""Errors of data that callers distinguish."""


class SplitError(ValueError):
    """The data exist, but not the requested split."""
