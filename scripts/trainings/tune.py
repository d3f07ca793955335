r"""Try a change of a recipe and record its scores.

    python scripts/train.py tune simclr --epochs 4 \
        --change optimizer.learning_rate=0.8 --change 'views.crop_area=[0.2, 1]'

`--change` is `--set` of `kerassl pretrain`.

Trains the method's changed `cpu` recipe on the first 45,000 training images of
CIFAR-10, or fewer, and scores it on the last 5,000, which serve as validation
images: kNN (k = 20, temperature 0.07) and the linear probe, both with the
labels of the first 10,000. Test images are not read. Each try appends a JSON
line to docs/results/tuning.jsonl. Tries that are already there are not
repeated. docs/benchmark.md shows them.
"""

import argparse
import json
import time
from typing import Any

from results import RESULTS, append_line, read_lines, recipe_hashes

TRIES = RESULTS / "tuning.jsonl"
TRAINED, LABELED = 45_000, 10_000


def changed(recipe: Any, changes: list[str]) -> Any:
    """Returns a recipe with `field=value` or `field.key=value` changed.

    Raises:
        ValueError: if a change has another form, or names no field.
    """
    from kerassl.recipe_fields import parse_change

    return recipe.change(**dict(map(parse_change, changes)))


def run(recipe: Any, model: Any = None, count: int = TRAINED) -> dict[str, Any]:
    """Trains and scores.

    Args:
        recipe: `kerassl.recipes.Recipe`.
        model: what to train instead of the recipe's model.
        count: int, the number of images to train on, at most 45,000.

    Returns:
        The scores, with those of the untrained encoder, and what ran.
    """
    import keras
    import numpy as np

    from kerassl import data, evaluation, recipes, runs

    images = data.load("cifar10", "train")
    trained = images.select(np.arange(count))
    held_out = images.select(np.arange(TRAINED, len(images.images)))
    labeled = images.select(np.arange(LABELED))
    if model is None:
        steps = count // recipe.batch_size
        model = recipes.build_model(recipe, images.image_shape, steps)

    def scores() -> dict[str, Any]:
        train, test = (model.embed(x.images) for x in (labeled, held_out))
        given: Any = (train, labeled.labels, test, held_out.labels)
        return {
            "knn": evaluation.knn(*given)["accuracy"],
            "linear": evaluation.linear_probe(*given)["accuracy"],
            "effective_rank": round(evaluation.effective_rank(test), 1),
            "spread": round(evaluation.feature_spread(test), 3),
        }

    untrained = scores()
    batches = trained.batches(
        recipe.batch_size, shuffle=True, seed=recipe.seed, drop_remainder=True
    )
    start = time.perf_counter()
    history = model.fit(
        batches, epochs=recipe.epochs, shuffle=False, verbose=2
    ).history
    seconds = time.perf_counter() - start
    return {
        "method": recipe.method,
        **scores(),
        "untrained": untrained,
        "loss": round(float(history["loss"][-1]), 4),
        "seconds": round(seconds),
        **{
            key: value
            for key, value in runs.environment().items()
            if key != "versions"
        },
        "keras": keras.__version__,
        "recipe_hash": recipe.hash,
        # The changes are meaningless without the recipe they changed.
        "recipe": recipe.to_dict(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add("method", metavar="METHOD")
    add("--change", action="append", default=[], metavar="FIELD.KEY=VALUE")
    add("--epochs", type=int, default=4)
    add(
        "--images",
        type=int,
        default=TRAINED,
        help=f"to train on, from the first (default and most: {TRAINED:,})",
    )


def main(options: argparse.Namespace) -> int:
    """Tries the changes, unless they were tried before."""
    from kerassl import recipes

    recipe = recipes.get(options.method).replace(epochs=options.epochs)
    if not recipe.batch_size <= options.images <= TRAINED:
        raise ValueError(
            f"--images is at least a batch, {recipe.batch_size}, and at most "
            f"{TRAINED}: the images after that are for validation. Received: "
            f"{options.images}"
        )
    recipe = changed(recipe, options.change)
    known = {
        line["recipe_hash"]
        for line in read_lines(TRIES)
        if line.get("images", TRAINED) == options.images
    }
    if known & recipe_hashes(recipe.to_dict()):
        print("That was tried already.")
        return 0
    found = {
        "epochs": options.epochs,
        "changes": options.change,
        "images": options.images,
        **run(recipe, count=options.images),
    }
    print(json.dumps(found))
    append_line(TRIES, found)
    return 0
