"""SimCLR's views as torchvision makes them, and their speed."""

import argparse
import time
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms


def simclr_views(
    size: int, strength: float, blur: bool, interpolation: str
) -> transforms.Compose:
    """Returns SimCLR's random view: a PIL image in, a tensor in [0, 1] out."""
    jitter = transforms.ColorJitter(
        0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength
    )
    steps: list[Any] = [
        transforms.RandomResizedCrop(
            size,
            scale=(0.08, 1.0),
            interpolation=transforms.InterpolationMode(interpolation),
        ),
        transforms.RandomHorizontalFlip(),
        transforms.RandomApply([jitter], 0.8),
        transforms.RandomGrayscale(0.2),
    ]
    if blur:
        gaussian = transforms.GaussianBlur(23, (0.1, 2.0))
        steps.append(transforms.RandomApply([gaussian], 0.5))
    return transforms.Compose([*steps, transforms.ToTensor()])


class TwoViews(Dataset):
    """Two random views of each image."""

    def __init__(self, images: np.ndarray, transform: transforms.Compose):
        """Keeps the uint8 images (N, H, W, C) and the transform."""
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        """Returns how many images there are."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns two views of an image."""
        picture = Image.fromarray(self.images[index])
        return self.transform(picture), self.transform(picture)


def views_per_second(
    pictures: list[Image.Image], transform: transforms.Compose, repeats: int
) -> dict[str, Any]:
    """Returns the rate of the best repeat and of all."""
    rates = []
    for picture in pictures[:20]:
        transform(picture)
    for _ in range(repeats):
        start = time.perf_counter()
        for picture in pictures:
            transform(picture)
        rates.append(len(pictures) / (time.perf_counter() - start))
    return {
        "views_per_second": round(max(rates), 1),
        "repeats": [round(rate, 1) for rate in rates],
    }


def measure_views(
    images: np.ndarray, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measures SimCLR's views at 32 and 224 px in one process and thread.

    The sources at 224 px are images of 256 px, enlarged from the data set's: no
    step's time depends on what an image shows.
    """
    torch.set_num_threads(1)
    small = [Image.fromarray(image) for image in images[:2000]]
    large = [
        picture.resize((256, 256), Image.Resampling.BICUBIC)
        for picture in small[:200]
    ]
    kind, repeats = arguments.interpolation, arguments.repeats
    return {
        "interpolation": kind,
        "32": views_per_second(
            small, simclr_views(32, 0.5, False, kind), repeats
        ),
        "224": views_per_second(
            large, simclr_views(224, 1.0, True, kind), repeats
        ),
    }
