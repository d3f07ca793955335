"""Times SimCLR end to end beside lightly, on the same encoder.

    KERAS_BACKEND=torch python scripts/comparisons/compare_lightly.py
    KERAS_BACKEND=torch python scripts/comparisons/compare_lightly.py \
        --epochs 10 --seeds 0 1 2

It needs lightly 1.6 (`pip install lightly`) and CIFAR-10. Both libraries train
`resnet_nano` on the first 10,000 images with their own views, projector and
loss: kerassl with `fit`, lightly as its users write it, with two loader
processes. They take turns, each in a process of its own. For each run a JSON
line gives, in images (two views each) per second,

- `wall`: of the epochs after the first, in which the loader starts;
- `cpu`: per second of CPU time, of the whole training with its loader;

and `knn`, the accuracy on the first 2,000 test images (k = 20, T = 0.07). The
last line has the medians of kerassl's figures over lightly's.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# For this checkout's kerassl, which is imported later.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

EPOCHS, BATCH_SIZE, IMAGES, TEST_IMAGES = 3, 256, 10_000, 2_000
RATE, TEMPERATURE = 0.12, 0.2
Features = Callable[[np.ndarray], np.ndarray]


def cpu_seconds() -> float:
    """Returns the CPU time of this process and its ended children."""
    used = [
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def train_kerassl(
    images: np.ndarray, epochs: int, seed: int, ended: Callable[[], None]
) -> Features:
    """Trains as a user of kerassl does; calls `ended` after each epoch."""
    import keras

    import kerassl

    keras.utils.set_random_seed(seed)
    model = kerassl.SimCLR(
        kerassl.encoders.build("resnet_nano", images.shape[1:]),
        projection_dim=64,
        temperature=TEMPERATURE,
    )
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9))
    model.fit(
        kerassl.data.ImageData(images).batches(
            BATCH_SIZE, shuffle=True, seed=seed, drop_remainder=True
        ),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: ended()
            )
        ],
    )
    return model.embed


def train_lightly(
    images: np.ndarray, epochs: int, seed: int, ended: Callable[[], None]
) -> Features:
    """Trains as a user of lightly does; calls `ended` after each epoch."""
    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torch_simclr import SimCLR, to_tensor

    class Views(Dataset):
        """Two views of an image, made when it is asked for."""

        # The strength of color and the missing blur are SimCLR's for CIFAR-10,
        # and those of kerassl's views.
        transform = SimCLRTransform(
            input_size=32, cj_strength=0.5, gaussian_blur=0.0
        )

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            return self.transform(Image.fromarray(images[index]))

    torch.manual_seed(seed)
    # Lightly's views are normalized, so the encoder isn't asked to do it.
    network = SimCLR()
    encoder = network.encoder
    head = SimCLRProjectionHead(128, 128, 64)
    criterion = NTXentLoss(TEMPERATURE)
    optimizer = torch.optim.SGD(
        [*encoder.parameters(), *head.parameters()], RATE, momentum=0.9
    )
    loader = DataLoader(
        Views(),
        BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
    )
    for _ in range(epochs):
        for first, second in loader:
            loss = criterion(head(encoder(first)), head(encoder(second)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ended()

    def embed(images: np.ndarray) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return np.concatenate(
                [
                    network.embed(to_tensor(images[start : start + 500]))
                    for start in range(0, len(images), 500)
                ]
            )

    return embed


def run(library: str, epochs: int, seed: int) -> dict[str, Any]:
    """Trains once, in this process, and returns the figures."""
    import kerassl

    data = kerassl.data.load("cifar10", "train", limit=IMAGES)
    test = kerassl.data.load("cifar10", "test", limit=TEST_IMAGES)
    images = np.asarray(data.images)
    train = {"kerassl": train_kerassl, "lightly": train_lightly}[library]
    times: list[float] = []
    used = cpu_seconds()
    embed = train(
        images, epochs, seed, lambda: times.append(time.perf_counter())
    )
    # By now lightly's loader is gone, and its processes are counted.
    used = cpu_seconds() - used
    seen = IMAGES // BATCH_SIZE * BATCH_SIZE
    scores = kerassl.evaluation.knn(
        embed(images),
        data.labels,
        embed(np.asarray(test.images)),
        test.labels,
    )
    return {
        "library": library,
        "seed": seed,
        "epochs": epochs,
        "wall": round(seen * (epochs - 1) / (times[-1] - times[0]), 1),
        "cpu": round(seen * epochs / used, 1),
        "knn": round(float(scores["accuracy"]), 4),
    }


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Time SimCLR end to end beside lightly."
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=["kerassl", "lightly"])
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs must be at least 2: the first isn't timed")
    if options.only:
        for seed in options.seeds:
            print(json.dumps(run(options.only, options.epochs, seed)))
        return 0
    records: dict[str, list[dict[str, Any]]] = {"kerassl": [], "lightly": []}
    for seed in options.seeds:
        for library, done in records.items():
            command = [sys.executable, __file__, "--only", library]
            command += ["--epochs", str(options.epochs), "--seeds", str(seed)]
            output = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True
            ).stdout.splitlines()[-1]
            print(output, flush=True)
            done.append(json.loads(output))
    ratios = {
        f"{figure}_ratio": round(
            float(
                np.median(
                    [
                        ours[figure] / theirs[figure]
                        for ours, theirs in zip(*records.values())
                    ]
                )
            ),
            3,
        )
        for figure in ("wall", "cpu", "knn")
    }
    print(json.dumps({**ratios, "load": os.getloadavg()[0]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
