"""Goes on from presets of the zoo, and prints kNN before and after.

`python scripts/going_on.py` goes on from the presets of some methods, from
SimCLR's where there is none, or from `--preset`, on CIFAR-10, which they were
trained on, and on Fashion-MNIST, with the default settings and with the
learning rates of training from scratch, without a guard. It prints a row of
docs/going_on.md for each: the kNN accuracy at the start, after training with
either, and the standard error of a difference of two such accuracies.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

# Before kerassl, since it adds the repository's root to the path.
import results  # noqa: F401 # isort: skip

import kerassl
from kerassl import recipes, runs
from kerassl.evaluation import knn

METHODS = ("simclr", "byol", "mae", "dino")
DATA = ("cifar10", "fashion_mnist")
FROM_SCRATCH = {
    "shares": {"encoder": 1.0},
    "layer_decay": 1.0,
    "frozen_epochs": {"encoder": 0},
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--preset", help="the start, of every method")
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--test", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    print("| Method | Images | Start | Defaults | Full rate | Error |")
    print("|---|---|---|---|---|---|", flush=True)
    for method in options.methods.split(","):
        for data in options.data.split(","):
            print(_row(method, data, options), flush=True)


def _preset_of(method: str) -> str:
    size = "vit" if method == "mae" else "resnet"
    name = f"{method}_{size}_nano_cifar10"
    known = [info.name for info in kerassl.list_presets()]
    return name if name in known else "simclr_resnet_nano_cifar10"


def _row(method: str, data: str, options: argparse.Namespace) -> str:
    preset = options.preset or _preset_of(method)

    def part(split: str, limit: int) -> tuple[Any, Any]:
        found = kerassl.data.load(
            data, split, limit=limit, image_size=32, channels=3
        )
        return found.images, found.labels

    train, train_labels = part("train", options.images)
    test, test_labels = part("test", options.test)

    def accuracy(source: str | Path) -> float:
        encoder = kerassl.load_encoder(source)
        features = [kerassl.encoders.embed(encoder, x) for x in (train, test)]
        scores = knn(features[0], train_labels, features[1], test_labels)
        return scores["accuracy"]

    recipe = recipes.going_on(recipes.get(method, "cpu"))
    recipe = recipe.replace(epochs=options.epochs)
    start = accuracy(preset)
    scores = [start]
    for schedule in ({}, FROM_SCRATCH):
        changed = recipe.change(schedule=schedule)
        with tempfile.TemporaryDirectory() as folder:
            run = runs.start(
                folder, changed, data, weights=preset, limit=options.images
            )
            run.train()
            scores.append(accuracy(folder))
    error = np.sqrt(2 * start * (1 - start) / len(test_labels))
    cells = [method, data, *(f"{100 * x:.1f}" for x in (*scores, error))]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
