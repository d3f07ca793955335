"""The pages of docs/ that `scripts/write_pages.py` writes."""
