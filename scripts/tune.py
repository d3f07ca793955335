"""Tries a change of a recipe, and records what came of it.

    KERAS_BACKEND=torch python scripts/tune.py simclr --epochs 4 \
        --change optimizer.learning_rate=0.8 --change 'views.crop_area=[0.2, 1]'

Trains the method's `cpu` recipe with the changes on the first 45,000 training
images of CIFAR-10, and scores it on the other 5,000, which are the validation
images: kNN (k = 20, temperature 0.07) and the linear probe, both with the first
10,000. No test image is read. Each try is a line of JSON in
docs/results/tuning.jsonl, whatever came of it; tries that are there aren't
repeated. `scripts/benchmark_page.py` makes a table of them.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RESULTS = ROOT / "docs" / "results" / "tuning.jsonl"
TRAINED, LABELLED = 45_000, 10_000


def changed(recipe: Any, changes: list[str]) -> Any:
    """Returns a recipe with `field=value` or `field.key=value` changed.

    Raises:
        ValueError: if a change has another form, or names no field.
    """
    for change in changes:
        place, is_given, text = change.partition("=")
        field, _, key = place.partition(".")
        if not is_given or field not in recipe.to_dict():
            raise ValueError(
                f"A change is FIELD=VALUE or FIELD.KEY=VALUE, with a field of "
                f"the recipe: {', '.join(recipe.to_dict())}. Received: {change}"
            )
        value = json.loads(text)
        if key:
            value = {**getattr(recipe, field), key: value}
        recipe = recipe.replace(**{field: value})
    return recipe


def run(recipe: Any) -> dict[str, Any]:
    """Trains and scores."""
    import keras
    import numpy as np

    from kerassl import data, evaluation, recipes, runs

    images = data.load("cifar10", "train")
    trained = images.select(np.arange(TRAINED))
    held_out = images.select(np.arange(TRAINED, len(images.images)))
    labeled = images.select(np.arange(LABELLED))
    steps = TRAINED // recipe.batch_size
    model = recipes.build_model(recipe, images.image_shape, steps)
    batches = trained.batches(
        recipe.batch_size, shuffle=True, seed=recipe.seed, drop_remainder=True
    )
    start = time.perf_counter()
    history = model.fit(
        batches, epochs=recipe.epochs, shuffle=False, verbose=2
    ).history
    seconds = time.perf_counter() - start
    train, test = (model.embed(part.images) for part in (labeled, held_out))
    given: Any = (train, labeled.labels, test, held_out.labels)
    return {
        "method": recipe.method,
        "knn": evaluation.knn(*given)["accuracy"],
        "linear": evaluation.linear_probe(*given)["accuracy"],
        "effective_rank": round(evaluation.effective_rank(test), 1),
        "loss": round(float(history["loss"][-1]), 4),
        "seconds": round(seconds),
        **{
            key: value
            for key, value in runs.environment().items()
            if key != "versions"
        },
        "keras": keras.__version__,
        "recipe_hash": recipe.hash,
        # The changes alone would say nothing once the recipe has changed.
        "recipe": recipe.to_dict(),
    }


def main() -> int:
    """Tries what the command line asks for."""
    from kerassl import recipes

    parser = argparse.ArgumentParser(description="Try a change of a recipe.")
    add = parser.add_argument
    add("method", choices=recipes.methods(), metavar="METHOD")
    add("--change", action="append", default=[], metavar="FIELD.KEY=VALUE")
    add("--epochs", type=int, default=4)
    options = parser.parse_args()
    try:
        recipe = recipes.get(options.method).replace(epochs=options.epochs)
        recipe = changed(recipe, options.change)
    except ValueError as error:
        parser.error(str(error))
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    known = [json.loads(line)["recipe_hash"] for line in text.splitlines()]
    if recipe.hash in known:
        print("That was tried already.")
        return 0
    found = {
        "epochs": options.epochs,
        "changes": options.change,
        **run(recipe),
    }
    print(json.dumps(found))
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
