"""Scores the presets on images that they never saw.

    export KERAS_BACKEND=torch
    python scripts/transfer.py
    python scripts/write_pages.py

Each preset that was trained on CIFAR-10 is scored, beside an untrained encoder:

- on Fashion-MNIST, as three channels (10,000 training and all test images),
  and on the digits of scikit-learn, at 32 px (1,000 and 797 images): kNN and
  the linear probe;
- on CIFAR-10's first 2,000 test images, corrupted at severity 3: kNN, the mean
  over the kinds, with 10,000 clean training images.

Each preset appends a JSON line to docs/results/transfer.jsonl, with the hash of
its weights. Weights that are already there are not scored again.
docs/benchmark.md shows those of the presets.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

# First, since it adds the repository's root to the path.
from results import (
    PRESETS,
    RESULTS,
    append_line,
    read_json,
    read_lines,
    weights_hash,
)

import kerassl
from kerassl import runs

SCORES = RESULTS / "transfer.jsonl"
SIZE = 32
DIGITS_TRAINED = 1000
# The name of a score to its protocol.
CLEAN = {"knn": "knn", "linear": "linear"}
CORRUPTED = {"corrupted": "knn_corrupted"}


def write_digits(folder: Path) -> dict[str, str]:
    """Writes scikit-learn's digits, and returns their files by split."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    # 17 levels, from 0 to 16.
    small = np.rint(found.images * (255 / 16)).astype("uint8")
    larger: Any = [
        Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        for image in small
    ]
    images = np.stack(larger)
    images = np.repeat(images[..., None], 3, axis=-1)
    parts = {
        "train": slice(DIGITS_TRAINED),
        "test": slice(DIGITS_TRAINED, None),
    }
    files = {}
    for split, part in parts.items():
        files[split] = str(folder / f"digits_{split}.npz")
        np.savez(files[split], images=images[part], labels=found.target[part])
    return files


def score(source: Any, digits: dict[str, str]) -> dict[str, Any]:
    """Returns the accuracies of an encoder, by data and protocol."""
    files: dict[str, Any] = dict(digits)
    subjects: dict[str, Any] = {
        "fashion_mnist": (
            runs.Evaluation(source, "fashion_mnist", train_limit=10_000),
            CLEAN,
        ),
        "digits": (runs.Evaluation(source, **files), CLEAN),
        "cifar10": (
            runs.Evaluation(
                source, "cifar10", train_limit=10_000, test_limit=2_000
            ),
            CORRUPTED,
        ),
    }
    found: dict[str, Any] = {}
    for data, (subject, protocols) in subjects.items():
        for name, protocol in protocols.items():
            measured = runs.protocol(protocol).score(subject, subject.encoder)
            found[f"{data}_{name}"] = round(float(measured["accuracy"]), 4)
    return found


def main() -> None:
    """Scores what has no line yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="PRESET")
    options = parser.parse_args()
    index = read_json(PRESETS / "index.json")["presets"]
    if unknown := set(options.only or ()) - set(index):
        parser.error(
            f"There is no preset {', '.join(sorted(unknown))}. "
            f"{PRESETS / 'index.json'} has {', '.join(index)}."
        )
    presets = {
        name: entry["info"]
        for name, entry in index.items()
        if entry["info"]["datasets"] == ["cifar10"]
        and name in (options.only or index)
    }
    known = {(line["name"], line["weights"]) for line in read_lines(SCORES)}
    with tempfile.TemporaryDirectory() as folder:
        digits = write_digits(Path(folder))

        def add(name: str, weights: str | None, source: Any) -> None:
            if (name, weights) in known:
                return
            known.add((name, weights))
            line = {"name": name, "weights": weights, **score(source, digits)}
            print(json.dumps(line), flush=True)
            append_line(SCORES, line)

        for name, info in presets.items():
            add(name, weights_hash(info), name)
            architecture = info["architecture"]
            path = Path(folder) / f"{architecture}.keras"
            keras.utils.set_random_seed(0)
            kerassl.encoders.build(architecture, (SIZE, SIZE, 3)).save(path)
            add(f"random, {architecture}", None, path)


if __name__ == "__main__":
    main()
