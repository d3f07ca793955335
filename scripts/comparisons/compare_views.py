r"""Do fused views teach as well as PIL's slow ones?

SimCLR on the first 10,000 training images of CIFAR-10, once on the views of the
fused augmenter and once on the same views made by PIL; then kNN (k = 20,
temperature 0.07) from all of these images to the first 2,000 test images. Each
run prints a JSON line and appends it to `--output`; runs that are already there
are not repeated:

    KERAS_BACKEND=jax python scripts/comparisons/compare_views.py \
        --output views.jsonl

`seconds` is the time of `fit` with compilation. Both kinds of views get the
same number of steps of full batches.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# The reference views belong to the tests.
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests")]

from results import append_line, read_lines  # noqa: E402

# Keras and kerassl are imported in functions: the processes that make the
# reference views import this file again and need neither.

SIZE = 32
KEY = ("backend", "views", "seed", "epochs", "images", "batch_size")


def load(images: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Loads training and test images with their labels."""
    import kerassl

    train = kerassl.data.load("cifar10", "train", limit=images)
    test = kerassl.data.load("cifar10", "test", limit=2000)
    return tuple(train), tuple(test)


def score(model: Any, train: tuple[Any, Any], test: tuple[Any, Any]) -> float:
    """Returns the kNN accuracy of the model's features."""
    import kerassl

    result = kerassl.evaluation.knn(
        model.embed(train[0]),
        train[1],
        model.embed(test[0]),
        test[1],
        k=20,
        temperature=0.07,
    )
    return round(float(result["accuracy"]), 4)


def run(
    kind: str,
    seed: int,
    epochs: int,
    batch_size: int,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
) -> dict[str, Any]:
    """Trains once and returns the scores before and after."""
    import keras
    from augmentation.reference import ReferenceView, ReferenceViews

    import kerassl

    keras.utils.set_random_seed(seed)
    augmenter = kerassl.augmentation.simclr(SIZE)
    encoder = kerassl.encoders.build("resnet_nano", image_shape=(SIZE, SIZE, 3))
    model = kerassl.SimCLR(
        encoder, projection_dim=64, temperature=0.2, augmenter=augmenter
    )
    untrained = score(model, train, test)

    steps = len(train[0]) // batch_size
    schedule = kerassl.optimizers.warmup_cosine(
        0.12,
        total_steps=epochs * steps,
        warmup_steps=epochs * steps // 10,
    )
    model.compile(optimizer=keras.optimizers.SGD(schedule, momentum=0.9))
    images = train[0][: steps * batch_size]
    start = time.perf_counter()
    if kind == "fused":
        model.fit(images, batch_size=batch_size, epochs=epochs, verbose=0)
        seconds = time.perf_counter() - start
    else:
        views = {
            name: ReferenceView(**dataclasses.asdict(view))
            for name, view in augmenter.views.items()
        }
        with ReferenceViews(images, views, batch_size, seed) as batches:
            # The data set shuffles.
            model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
            seconds = time.perf_counter() - start
    return {
        "backend": keras.backend.backend(),
        "views": kind,
        "seed": seed,
        "epochs": epochs,
        "images": len(train[0]),
        "batch_size": batch_size,
        "knn": score(model, train, test),
        "untrained": untrained,
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Trains with each kind of views, skipping finished runs."""
    parser = argparse.ArgumentParser(
        description="Train SimCLR on fused and on reference views."
    )
    kinds = ["fused", "reference"]
    parser.add_argument("--views", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    arguments = parser.parse_args()

    import keras

    runs = read_lines(arguments.output) if arguments.output else []
    done = {tuple(run.get(name) for name in KEY) for run in runs}
    wanted = [
        (kind, seed)
        for seed in arguments.seeds
        for kind in arguments.views
        if (
            keras.backend.backend(),
            kind,
            seed,
            arguments.epochs,
            arguments.images,
            arguments.batch_size,
        )
        not in done
    ]
    if not wanted:
        return
    train, test = load(arguments.images)
    for kind, seed in wanted:
        record = run(
            kind, seed, arguments.epochs, arguments.batch_size, train, test
        )
        print(json.dumps(record), flush=True)
        if arguments.output is not None:
            append_line(arguments.output, record)


if __name__ == "__main__":
    main()
