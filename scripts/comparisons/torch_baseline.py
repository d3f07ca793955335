r"""SimCLR in plain PyTorch with torchvision's views: the outside baseline.

What a user without kerassl would write, to compare scores and speed. It needs
torch, torchvision, NumPy and Pillow but not Keras or kerassl, and reads
CIFAR-10 from an .npz file with `x_train`, `y_train`, `x_test` and `y_test`
(images uint8, NHWC):

    python scripts/comparisons/torch_baseline.py --data cifar10.npz --seed 0
    python scripts/comparisons/torch_baseline.py --data cifar10.npz --views-only

Each run prints a JSON line. Weights start from torch's defaults; `--init he`
takes kerassl's instead: He's normal distribution of fan-in in the encoder and
Glorot's uniform one in the projector. Data and scores are those of
`compare_views.py`: the first 10,000 training images, and kNN (k = 20,
temperature 0.07) from all of them to the first 2,000 test images. For that
script's warmup over a tenth of the steps, set `--warmup-steps`; the default is
none.

Two training speeds, both in images (two views each) per second:

- `samples_per_second`: end to end, with the loader. Excludes the first epoch,
  in which the workers start, or with one epoch the first step.
- `bare_samples_per_second`: only the training step, on views that are ready;
  the best of five repeats after the run.
"""

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch_simclr import (
    SimCLR,
    initialize_as_keras,
    to_tensor,
    train_step,
)
from torch_views import TwoViews, measure_views, simclr_views

TEST_IMAGES = 2000

# Training.


def rate_at(step: int, total: int, warmup: int) -> float:
    """Returns the share of the learning rate: a linear rise, then a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: nn.Module, images: np.ndarray, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Trains the model and returns the rate and the last epoch's loss."""
    transform = simclr_views(32, 0.5, False, arguments.interpolation)
    loader = DataLoader(
        TwoViews(images, transform),
        batch_size=arguments.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=arguments.learning_rate, momentum=0.9
    )
    total = arguments.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_at(step, total, arguments.warmup_steps)
    )
    model.train()
    begin = start = time.perf_counter()
    counted = 0
    losses: list[float] = []
    for epoch in range(arguments.epochs):
        losses = []
        for step, views in enumerate(loader):
            losses.append(
                train_step(model, optimizer, views, arguments.temperature)
            )
            schedule.step()
            counted += 1
            if arguments.epochs == 1 and step == 0:
                start, counted = time.perf_counter(), 0
        if arguments.epochs > 1 and epoch == 0:
            start, counted = time.perf_counter(), 0
    end = time.perf_counter()
    rate = counted * arguments.batch_size / (end - start)
    return {
        "loss": round(float(np.mean(losses)), 4),
        "seconds": round(end - begin, 1),
        "samples_per_second": round(rate, 1),
    }


def bare_rate(
    images: np.ndarray, arguments: argparse.Namespace, steps: int = 10
) -> float:
    """Returns the images per second of the training step, on ready views."""
    model = SimCLR().train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=arguments.learning_rate, momentum=0.9
    )
    batch = to_tensor(images[: arguments.batch_size])
    views = (batch, batch.flip(-1))
    best = math.inf
    for _ in range(6):  # The first one, a warm-up, is never the best.
        start = time.perf_counter()
        for _ in range(steps):
            train_step(model, optimizer, views, arguments.temperature)
        best = min(best, time.perf_counter() - start)
    return round(steps * len(batch) / best, 1)


# Evaluation.


@torch.no_grad()
def features(model: SimCLR, images: np.ndarray) -> torch.Tensor:
    """Returns the normalized features of uint8 images."""
    model.eval()
    blocks = [
        model.embed(to_tensor(images[start : start + 500]))
        for start in range(0, len(images), 500)
    ]
    return functional.normalize(torch.cat(blocks))


def knn(
    model: SimCLR,
    bank: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Returns the accuracy of weighted nearest neighbors."""
    labels = torch.from_numpy(bank[1])
    similarities = features(model, test[0]) @ features(model, bank[0]).T
    values, nearest = similarities.topk(k)
    weights = torch.exp(values / temperature)
    one_hot = functional.one_hot(labels)[nearest]
    predicted = (weights[..., None] * one_hot).sum(1).argmax(1)
    correct = predicted == torch.from_numpy(test[1])
    return round(correct.float().mean().item(), 4)


# The command line.


def versions() -> dict[str, str]:
    """Returns what it ran on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def run(data: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains once and returns the scores and rates."""
    limit = arguments.images
    bank = data["x_train"][:limit], data["y_train"][:limit].astype("int64")
    test = (
        data["x_test"][:TEST_IMAGES],
        data["y_test"][:TEST_IMAGES].astype("int64"),
    )
    model = SimCLR()
    if arguments.init == "he":
        initialize_as_keras(model)
    untrained = knn(model, bank, test)
    trained = train(model, bank[0], arguments)
    return {
        "epochs": arguments.epochs,
        "knn": knn(model, bank, test),
        "knn_untrained": untrained,
        **trained,
        "bare_samples_per_second": bare_rate(bank[0], arguments),
        "images": len(bank[0]),
        "batch_size": arguments.batch_size,
        "warmup_steps": arguments.warmup_steps,
        "interpolation": arguments.interpolation,
        "init": arguments.init,
        "workers": arguments.workers,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="SimCLR in plain PyTorch with torchvision's views."
    )
    parser.add_argument("--data", type=Path, required=True, help="an .npz file")
    parser.add_argument("--views-only", action="store_true")
    parser.add_argument("--repeats", type=int, default=7, help="of the views")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=0.12)
    parser.add_argument("--warmup-steps", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument(
        "--interpolation", choices=["bilinear", "bicubic"], default="bicubic"
    )
    parser.add_argument("--init", choices=["torch", "he"], default="torch")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.images < arguments.batch_size:
        parser.error("--images must be at least --batch-size")

    torch.manual_seed(arguments.seed)
    with np.load(arguments.data) as data:
        if arguments.views_only:
            record = measure_views(data["x_train"][:2000], arguments)
        else:
            record = run(data, arguments)
    record |= {"seed": arguments.seed, "versions": versions()}
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
