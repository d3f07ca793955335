"""Train every method in short runs and compare them.

    python scripts/train.py methods
    python scripts/write_pages.py

Each method trains by its `cpu` recipe on the first 10,000 training images of
CIFAR-10, in a process of its own, as `kerassl pretrain METHOD --data cifar10
--limit 10000` does. It is scored by kNN (k = 20, temperature 0.07) from these
images to the first 2,000 test images, with the trained and with the untrained
encoder, at the output and at each stage. The test images also give the result
of `evaluate` and two signs of collapse: `kerassl.evaluation.effective_rank`
and `feature_spread`.

Each run appends a JSON line to `--output`. Runs of the same recipe that are
already there are not repeated.

With `--images 50000`, all of them, a method is scored on all 10,000 test
images as the presets are: also by linear probes and fine-tuning, with few
labels too. These runs go into docs/results/cifar10_all.jsonl. docs/benchmark.md
has them beside the presets, and the methods' pages have them too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import RESULTS, append_line, peak_memory, read_lines, recipe_hashes

from trainings import presets

# Keras is imported in the processes that train: the one that starts them
# doesn't need its memory.
RUNS = RESULTS / "cifar10_cpu.jsonl"
ALL_RUNS = RESULTS / "cifar10_all.jsonl"
ALL_IMAGES, ALL_TESTS = 50_000, 10_000
FEW_TESTS = 2_000


def train(
    method: str,
    seed: int,
    images: int,
    epochs: int | None,
    pictures: Path | None,
) -> dict:
    """Trains one method and returns its scores."""
    from kerassl import evaluation, recipes, runs, visualization
    from kerassl.run_folder import read_scores

    recipe = recipes.get(method).replace(seed=seed, epochs=epochs)
    with tempfile.TemporaryDirectory() as folder:
        training = runs.start(folder, recipe, "cifar10", limit=images)
        start = time.perf_counter()
        training.train()
        seconds = time.perf_counter() - start
        is_all = images == ALL_IMAGES
        subject = runs.Evaluation(
            folder,
            "cifar10",
            train_limit=images,
            test_limit=ALL_TESTS if is_all else FEW_TESTS,
        )
        if is_all:
            task = presets.Task(method, recipe, "cifar10", Path(folder))
            presets.evaluate(task, len(presets.EVALUATIONS))
            measured = read_scores(folder)
            scores = measured.pop("knn")
            linear = measured.pop("linear")
            more = {
                "linear": round(linear["accuracy"], 4),
                "untrained_linear": round(linear["untrained_accuracy"], 4),
                "scores": {
                    name: {
                        key: round(score[key], 4)
                        for key in ("accuracy", "std")
                        if key in score
                    }
                    for name, score in measured.items()
                },
            }
        else:
            scores, more = runs.protocol("knn").measure(subject), {}
        features = subject.features(subject.encoder)[1]
        held_out = training.model.evaluate(
            subject.splits["test"].batches(200), verbose=0, return_dict=True
        )
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            shown, _ = subject.splits["test"].batches(8)[0]
            figure = visualization.pretext(training.model, shown)
            figure.savefig(pictures / f"{method}.png", dpi=80)
        history = (Path(folder) / "history.csv").read_text().splitlines()
    losses = [row.split(",") for row in history]
    column = losses[0].index("loss")
    return {
        "method": method,
        "seed": seed,
        "recipe": recipe.replace(seed=0).hash,  # That of all seeds.
        "epochs": recipe.epochs,
        "images": images,
        "knn": round(scores["accuracy"], 4),
        "untrained": round(scores["untrained_accuracy"], 4),
        **more,
        "stages": scores["stages"],
        "untrained_stages": scores["untrained_stages"],
        "held_out": {k: round(v, 4) for k, v in held_out.items()},
        "encoder": recipe.encoder,
        "width": features.shape[1],
        "effective_rank": round(evaluation.effective_rank(features), 1),
        "feature_spread": round(evaluation.feature_spread(features), 3),
        "first_loss": round(float(losses[1][column]), 4),
        "last_loss": round(float(losses[-1][column]), 4),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak_memory()),
        **runs.environment(),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add("--methods", nargs="+", metavar="METHOD", help="default: all")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--images", type=int, default=10_000)
    add("--epochs", type=int, help="default: the recipe's")
    add("--output", type=Path, help=f"default: {RUNS.name} or {ALL_RUNS.name}")
    add("--pictures", type=Path, help="a folder for a picture of each method")
    add("--here", action="store_true", help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> int:
    """Starts the runs that are missing."""
    from kerassl import recipes

    is_all = options.images == ALL_IMAGES
    output = options.output or (ALL_RUNS if is_all else RUNS)
    if options.here:
        (method,), (seed,) = options.methods, options.seeds
        settings = (options.images, options.epochs, options.pictures)
        print(json.dumps(train(method, seed, *settings)))
        return 0
    failed = 0
    for seed in options.seeds:
        for method in options.methods or recipes.methods():
            recipe = recipes.get(method).replace(epochs=options.epochs)
            if any(
                r["recipe"] in recipe_hashes(recipe.to_dict())
                and (r["seed"], r["images"]) == (seed, options.images)
                and ("scores" in r or not is_all)
                for r in read_lines(output)
            ):
                continue
            command = [sys.executable, sys.argv[0], "methods", "--here"]
            command += ["--methods", method, "--seeds", str(seed)]
            command += ["--images", str(options.images)]
            if options.epochs:
                command += ["--epochs", str(options.epochs)]
            if options.pictures:
                command += ["--pictures", str(options.pictures)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                failed += 1
                continue
            line = done.stdout.splitlines()[-1]
            print(line, flush=True)
            append_line(output, json.loads(line))
    return 1 if failed else 0
