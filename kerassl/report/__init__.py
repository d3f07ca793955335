"""One HTML page about a run."""

from kerassl.report.page import write

__all__ = ["write"]
