"""Times a training step beside the same step in plain PyTorch.

    KERAS_BACKEND=torch python scripts/comparisons/compare_steps.py

SimCLR with `resnet_nano`, on views that are ready: kerassl's step in `fit`, and
that of `torch_simclr.py` with feature maps in both memory layouts. They take
turns in one process, since other work on a machine changes its speed by more
than they differ. The last line is a JSON object with the images per second of
each (the median of the rounds), and the median over the rounds of kerassl's
speed over that of plain PyTorch with channels last: `ratio` by the clock, and
`cpu_ratio` by the processor's time, which other work disturbs less. For the
latter use one thread (`OMP_NUM_THREADS=1`), since waiting threads count too.

    KERAS_BACKEND=torch python scripts/comparisons/compare_steps.py --host

measures what a step costs the host: the processor's time of a step whose
batch and feature maps are so small that nothing but Python and the calls of
kernels counts. The network has the 53 convolutions of ResNet-50. `host_ms`
are milliseconds of kerassl's `train_on_batch`, of a step of its `fit` (with its
share of what an epoch costs), and of plain PyTorch's step; `host_ratio` has the
medians of the first two over the last.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras  # noqa: E402
import torch  # noqa: E402
from benchmark import Repeated, compiled_augmenter, processor  # noqa: E402
from torch_simclr import (  # noqa: E402
    SimCLR,
    bottlenecks,
    to_tensor,
    train_step,
)

import kerassl  # noqa: E402
from kerassl.encoders.resnet import small_resnet  # noqa: E402

RATE, TEMPERATURE = 0.12, 0.2


def kerassl_steps(images: np.ndarray, steps: int) -> Callable[[], None]:
    """Returns a function that takes so many steps of kerassl."""
    keras.utils.set_random_seed(0)
    model = kerassl.SimCLR(
        kerassl.encoders.build("resnet_nano", images.shape[1:]),
        projection_dim=64,
        temperature=TEMPERATURE,
    )
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9))
    views = compiled_augmenter(model.augmenter, images)()
    batches = Repeated(views, steps)
    return lambda: model.fit(batches, shuffle=False, verbose=0)


def plain_steps(
    images: np.ndarray, steps: int, layout: torch.memory_format
) -> Callable[[], None]:
    """Returns a function that takes so many steps of plain PyTorch."""
    torch.manual_seed(0)
    model: torch.nn.Module = SimCLR().train()
    model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    batch = to_tensor(images).contiguous(memory_format=layout)
    views = batch, batch.flip(-1).contiguous(memory_format=layout)

    def run() -> None:
        for _ in range(steps):
            train_step(model, optimizer, views, TEMPERATURE)

    return run


def host_steps() -> dict[str, Callable[[int], None]]:
    """Returns functions that take so many tiny steps, on one thread."""
    torch.set_num_threads(1)
    keras.utils.set_random_seed(0)
    counts, width, size = (3, 4, 6, 3), 4, 4
    images = np.random.default_rng(0).integers(
        0, 256, (size, 32, 32, 3), dtype="uint8"
    )
    inputs = keras.Input(images.shape[1:])
    features = small_resnet(
        keras.layers.Rescaling(1 / 255)(inputs),
        (width,) * 4,
        counts,
        bottleneck=True,
        stem_strides=2,
    )
    model = kerassl.SimCLR(
        keras.Model(inputs, features),
        projection_dim=8,
        temperature=TEMPERATURE,
    )
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9))
    made = compiled_augmenter(model.augmenter, images)()

    def on_batch(steps: int) -> None:
        for _ in range(steps):
            model.train_on_batch(made)

    def fit(steps: int) -> None:
        model.fit(Repeated(made, steps), shuffle=False, verbose=0)

    network: torch.nn.Module = SimCLR(
        bottlenecks(width, counts), 4 * width, 8
    ).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # As on a GPU, with a few kernels for all parameters.
    sgd = torch.optim.SGD(
        network.parameters(), lr=RATE, momentum=0.9, foreach=True
    )
    batch = to_tensor(images).contiguous(memory_format=torch.channels_last)

    def plain(steps: int) -> None:
        for _ in range(steps):
            train_step(network, sgd, (batch, batch), TEMPERATURE)

    return {"train_on_batch": on_batch, "fit": fit, "plain": plain}


def host_times(steps: int, rounds: int) -> dict[str, Any]:
    """Returns the host's milliseconds a step, and their ratio."""
    runs = host_steps()
    for run in runs.values():
        run(3)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run(steps)
            found[name].append(1e3 * (time.process_time() - start) / steps)
    plain = found["plain"]
    return {
        "host_ms": {
            name: round(float(np.median(times)), 2)
            for name, times in found.items()
        },
        "host_ratio": {
            name: round(float(np.median(np.divide(found[name], plain))), 3)
            for name in ("train_on_batch", "fit")
        },
        "rounds": rounds,
    }


def report(result: dict[str, Any]) -> int:
    """Prints a result, and where it was measured."""
    record = {
        **result,
        "threads": torch.get_num_threads(),
        "cpu": processor(),
        "load": os.getloadavg()[0],
        **kerassl.environment.environment(),
    }
    print(json.dumps(record))
    return 0


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Time a step of SimCLR beside plain PyTorch."
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="of a round (4)")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument(
        "--host", action="store_true", help="the host's time, of tiny steps"
    )
    options = parser.parse_args()
    if keras.config.backend() != "torch":
        parser.error("KERAS_BACKEND must be torch")
    if options.host:
        return report(host_times(options.steps, options.rounds))
    size, steps = options.batch_size, options.steps
    images = np.random.default_rng(0).integers(
        0, 256, (size, 32, 32, 3), dtype="uint8"
    )
    runs = {
        "kerassl": kerassl_steps(images, steps),
        "plain": plain_steps(images, steps, torch.contiguous_format),
        "plain_channels_last": plain_steps(images, steps, torch.channels_last),
    }
    for run in runs.values():
        run()
    clocks = {"ratio": time.perf_counter, "cpu_ratio": time.process_time}
    seconds: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in runs} for kind in clocks
    }
    for _ in range(options.rounds):
        for name, run in runs.items():
            start = {kind: clock() for kind, clock in clocks.items()}
            run()
            for kind, clock in clocks.items():
                seconds[kind][name].append(clock() - start[kind])
    result = {
        name: round(size * steps / float(np.median(times)), 1)
        for name, times in seconds["ratio"].items()
    }
    for kind, times in seconds.items():
        pairs = zip(times["plain_channels_last"], times["kerassl"])
        result[kind] = round(float(np.median([a / b for a, b in pairs])), 3)
    return report({**result, "batch_size": size, "rounds": options.rounds})


if __name__ == "__main__":
    sys.exit(main())
