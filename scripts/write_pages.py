"""Writes the pages of docs/ that hold measured numbers.

    python scripts/write_pages.py

- `docs/benchmark.md` and its picture: from `presets/index.json`,
  `presets/history/` and `docs/results/`;
- `docs/performance.md`: from `docs/results/{performance,cost,gpu}.jsonl`;
- `docs/studies.md` and its pictures: from `docs/results/studies.jsonl`;
- `docs/pictures/labels.svg`, the README's picture: from `presets/`;
- the results in `docs/methods.md` and in the methods' pages: from
  `docs/results/cifar10_cpu.jsonl` and `cifar10_all.jsonl`, and the tables of
  methods: from `kerassl/registry.py`;
- the rules in `docs/choose.md`: from `kerassl/auto.py`;
- the model cards in `presets/`: from each preset's `kerassl.json`.

The text around the numbers of the first three is in `scripts/pages/*.md`. With
`--check` nothing is written, and the exit status is 1 if a page is stale.
"""

import argparse
import sys

import results
from pages import (
    benchmark,
    cards,
    choose,
    labels,
    methods,
    performance,
    studies,
)

from kerassl.files import replacing


def main() -> int:
    """Writes or checks all pages."""
    parser = argparse.ArgumentParser(description="Write pages of numbers.")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    pages = {
        path: text
        for part in (cards, benchmark, performance, methods, studies, choose)
        for path, text in part.pages().items()
    }
    stale = [
        path
        for path, text in pages.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if options.check:
        for path in stale:
            name = path.relative_to(results.ROOT)
            print(f"{name} is stale: run scripts/write_pages.py.")
        return 1 if stale else 0
    for path in stale:
        with replacing(path) as temporary:
            temporary.write_text(pages[path], encoding="utf-8")
    benchmark.draw()
    labels.draw()
    studies.draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
