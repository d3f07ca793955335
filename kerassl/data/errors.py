"""What can be told apart of errors of data."""


class SplitError(ValueError):
    """There are images, but none of the wanted split."""
