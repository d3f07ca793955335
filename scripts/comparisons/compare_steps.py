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
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras  # noqa: E402
import torch  # noqa: E402
from benchmark import Repeated, compiled_augmenter, processor  # noqa: E402
from torch_simclr import SimCLR, to_tensor, train_step  # noqa: E402

import kerassl  # noqa: E402

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


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Time a step of SimCLR beside plain PyTorch."
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="of a round (4)")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    if keras.config.backend() != "torch":
        parser.error("KERAS_BACKEND must be torch")
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
    record = {
        **result,
        "batch_size": size,
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "cpu": processor(),
        "load": os.getloadavg()[0],
        **kerassl.environment.environment(),
    }
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
