"""Measures what a method's step costs beside its encoder's.

    KERAS_BACKEND=jax python scripts/benchmark.py simclr --batch-size 256

The last line of the output is one JSON object:

- `samples_per_second`: images through the whole step of `fit`, from uint8 in
  memory: views, forward, backward, optimizer.
- `encoder_samples_per_second`: the same `fit` of the same model on ready views,
  so without the augmenter.
- `step_ratio`: the second over the first, at least 1; `step_ratio_raw` as
  measured.
- `pass_samples_per_second`: the same on ready views, but of the passes through
  encoder, heads and momentum networks alone: a trivial loss, no queue, and
  nothing after the optimizer.
- `method_ratio`: `pass_samples_per_second` over `encoder_samples_per_second`:
  what the loss, the queue and the momentum networks' updates cost.
- `views_per_second`: views that the augmenter makes alone, compiled as the
  backend compiles.
- `peak_memory_mb`: the largest memory of the process, without a GPU's.
- `gpu_memory_mb`: the largest memory in use on the GPU; only if there is one.

and what ran. Everything is compiled first. Then all of them take turns in
several rounds, and the best time of each counts, so that other work on the
machine hits none of them alone. On a single core, and without a GPU, it is the
time of this process that counts, so that other work there hits none at all.
"""

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

# Before kerassl, since it adds the repository's root to the path.
from results import peak_memory  # isort: skip

from kerassl import recipes, runs

# Of the labels, which only some methods look at.
CLASSES = 10


class Repeated(keras.utils.PyDataset):
    """The same batch at each step.

    Args:
        batch: what `fit` takes.
        steps: int > 0.
    """

    def __init__(self, batch: Any, steps: int):
        super().__init__()
        self.batch = batch
        self.steps = steps

    def __len__(self) -> int:
        """Returns the number of steps."""
        return self.steps

    def __getitem__(self, index: int) -> Any:
        """Returns the batch."""
        return self.batch


class RandomBatches(Repeated):
    """Batches of images that are drawn anew at each step, as in training."""

    def __getitem__(self, index: int) -> Any:
        """Returns a batch of images in another order."""
        order = np.random.default_rng(index).permutation(len(self.batch))
        return self.batch[order], order % CLASSES


def compiled_augmenter(augmenter: Any, images: np.ndarray) -> Callable:
    """Returns a function that makes the views of the images, and waits."""
    backend = keras.config.backend()
    tensor = keras.ops.convert_to_tensor(images)
    if backend == "jax":
        import jax

        step = jax.jit(augmenter.stateless_call)
        state = [v.value for v in augmenter.non_trainable_variables]

        def views() -> dict:
            nonlocal state
            made, state = step([], state, tensor)
            return made

    elif backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(augmenter)

        def views() -> dict:
            return function(tensor)

    else:
        import torch

        def views() -> dict:
            with torch.no_grad():
                return augmenter(tensor)

    return lambda: {name: _wait(view) for name, view in views().items()}


def _wait(view: Any) -> Any:
    """Waits for a tensor by reading one number of it."""
    keras.ops.convert_to_numpy(view[:1, :1, :1, :1])
    return view


def ready(views: dict[str, Any], steps: int) -> Any:
    """Returns the views at each step, for `fit`, with no copy on the way."""
    size = next(iter(views.values())).shape[0]
    batch = (views, np.arange(size) % CLASSES)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensors(batch).repeat(steps)
    return Repeated(batch, steps)


def passes_alone(model: Any) -> Any:
    """Takes from a model all but the passes through its networks."""

    def objective(outputs: dict[str, Any]) -> dict[str, Any]:
        loss = sum(
            keras.ops.mean(keras.ops.square(keras.ops.cast(x, "float32")))
            for x in outputs.values()
        )
        return {"loss": loss, **dict.fromkeys(model.metric_names, 0.0)}

    model.objective = objective
    model.after_update = lambda: None
    queue = getattr(model, "queue", None)
    if queue is not None:
        queue.snapshot = lambda: keras.ops.zeros((1, queue.dim))
        queue.enqueue = lambda features: None
    return model


def measure(
    model: Any,
    same: Any,
    bare: Any,
    images: np.ndarray,
    steps: int,
    rounds: int,
) -> dict:
    """Returns the best seconds of each part, of `steps` steps.

    Args:
        model: the method.
        same: another of its kind, for ready views: after images TensorFlow
            would trace views of any size, which are slower.
        bare: a third one, through `passes_alone`.
        images: uint8 images of one batch.
        steps: int, of a round.
        rounds: int.
    """
    make_views = compiled_augmenter(model.augmenter, images)
    views = make_views()

    def fit(which: Any, batches: Any) -> None:
        which.fit(batches, shuffle=False, verbose=0)

    def augment() -> None:
        for _ in range(steps):
            make_views()

    parts: dict[str, Callable[[], None]] = {
        "whole": lambda: fit(model, RandomBatches(images, steps)),
        "encoder": lambda: fit(same, ready(views, steps)),
        "passes": lambda: fit(bare, ready(views, steps)),
        "views": augment,
    }
    fit(model, RandomBatches(images, 2))
    fit(same, ready(views, 2))
    fit(bare, ready(views, 2))
    is_alone = cores() == 1 and not gpu()
    clock = time.process_time if is_alone else time.perf_counter
    best = dict.fromkeys(parts, float("inf"))
    for _ in range(rounds):
        for name, part in parts.items():
            start = clock()
            part()
            best[name] = min(best[name], clock() - start)
    return best


def cores() -> int | None:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def processor() -> str:
    """Returns the name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpu() -> dict[str, Any]:
    """Returns the GPU's name and its largest memory in use, if there is one.

    JAX and TensorFlow count what compiled programs need, too.
    """
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        (first, *_) = jax.local_devices()
        if first.platform != "gpu":
            return {}
        name = first.device_kind
        peak = first.memory_stats()["peak_bytes_in_use"]
    elif backend == "tensorflow":
        import tensorflow as tf

        if not (found := tf.config.list_physical_devices("GPU")):
            return {}
        name = tf.config.experimental.get_device_details(found[0])[
            "device_name"
        ]
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    else:
        import torch

        if not torch.cuda.is_available():
            return {}
        name = torch.cuda.get_device_name()
        peak = torch.cuda.max_memory_allocated()
    return {"gpu": name, "gpu_memory_mb": round(peak / 2**20, 1)}


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Measure a method's training step, its encoder alone and "
        "its views alone, on the backend that KERAS_BACKEND names."
    )
    add = parser.add_argument
    add("method", help="such as simclr")
    add("--recipe", default="cpu", help="cpu, cifar or imagenet (cpu)")
    add("--encoder", help="such as resnet_nano (default: the recipe's)")
    add("--batch-size", type=int, default=256)
    add("--image-size", type=int, help="default: the recipe's, or 32")
    add("--channels", type=int, default=3, choices=(1, 3))
    for part in ("method-args", "views"):
        add(
            f"--{part}",
            type=json.loads,
            default={},
            metavar="JSON",
            help="changes to the recipe's, such as '{\"queue_size\": 65536}'",
        )
    add("--precision", default="float32", help="such as auto (float32)")
    add("--steps", type=int, default=10, help="steps of a round (10)")
    add("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    for name in ("steps", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    try:
        recipe = recipes.get(arguments.method, arguments.recipe)
        size = arguments.image_size or recipe.image_size or 32
        shape = (size, size, arguments.channels)
        recipe = recipe.replace(
            encoder=arguments.encoder,
            batch_size=arguments.batch_size,
            precision=arguments.precision,
            method_args={**recipe.method_args, **arguments.method_args},
            views={**recipe.views, **arguments.views},
        )
        model, same, bare = (
            recipes.build_model(recipe, shape, arguments.steps)
            for _ in range(3)
        )
    except ValueError as error:
        parser.error(str(error))
    images = np.random.default_rng(0).integers(
        0, 256, (arguments.batch_size, *shape), dtype="uint8"
    )
    seconds = measure(
        model,
        same,
        passes_alone(bare),
        images,
        arguments.steps,
        arguments.rounds,
    )
    samples = arguments.batch_size * arguments.steps
    ratio = seconds["whole"] / seconds["encoder"]
    count = len(model.augmenter.view_names)
    result = {
        "samples_per_second": round(samples / seconds["whole"], 1),
        "encoder_samples_per_second": round(samples / seconds["encoder"], 1),
        "step_ratio": round(max(1.0, ratio), 4),
        "step_ratio_raw": round(ratio, 4),
        "pass_samples_per_second": round(samples / seconds["passes"], 1),
        "method_ratio": round(seconds["encoder"] / seconds["passes"], 4),
        "views_per_second": round(count * samples / seconds["views"], 1),
        "peak_memory_mb": round(peak_memory(), 1),
        "method": arguments.method,
        "method_args": recipe.method_args,
        "views": recipe.views,
        "recipe": recipe.name,
        "encoder": recipe.encoder,
        "batch_size": arguments.batch_size,
        "image_size": size,
        "channels": arguments.channels,
        "precision": model.recipe.precision,
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        **runs.environment(),
        **gpu(),
        "cpu": processor(),
        "threads": cores(),
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
