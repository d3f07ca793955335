"""The rules of `kerassl pretrain auto` in docs/choose.md, between markers."""

from pathlib import Path

from results import ROOT

from kerassl.auto import table
from pages.methods import replaced

PAGE = ROOT / "docs" / "choose.md"


def pages() -> dict[Path, str]:
    """Returns the page's path and its Markdown."""
    text = PAGE.read_text(encoding="utf-8")
    return {PAGE: replaced(text, "auto", table())}
