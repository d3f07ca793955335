"""Measures how fast photos are decoded and cut, on made JPEGs of 500x375.

    python scripts/photo_speed.py

Prints milliseconds of CPU per photo, so that other work on the machine matters
less, and by the clock how many photos one and two processes cut in a second.
`docs/data.md` and `docs/decisions.md` quote it.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

# Before kerassl, since it adds the repository's root to the path.
import results  # noqa: F401 # isort: skip

from kerassl.augmentation import ViewAugmenter, simclr
from kerassl.data import resize
from kerassl.data.cuts import CutOut
from kerassl.data.photos import Photos
from kerassl.data.records import Files
from kerassl.data.threads import Threads
from kerassl.data.workers import Workers

SIZE, CANVAS = 224, 512
BATCH, BATCHES = 128, 8


def make_photos(
    folder: Path, count: int, size: tuple[int, int] = (500, 375)
) -> list[Path]:
    """Saves JPEGs with shapes, gradients and grain."""
    rng = np.random.default_rng(0)
    paths = []
    folder.mkdir(exist_ok=True)
    for i in range(count):
        width, height = size if i % 4 else size[::-1]
        few = rng.integers(0, 256, (48, 64, 3)).astype("uint8")
        image = Image.fromarray(few).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(image) + rng.normal(0, 9, (height, width, 1))
        paths.append(folder / f"{i:04}.jpg")
        image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
        image.save(paths[-1], quality=90)
    return paths


def cost(task: Callable[[], object], photos: int, repeats: int) -> float:
    """Returns the milliseconds of CPU of a photo, the least of some repeats."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        task()
        best = min(best, time.process_time() - start)
    return 1000 * best / photos


def in_processes(count: int, photos: Photos, plan: Any) -> str:
    """Returns what some processes that cut photos take, in words."""
    rng = np.random.default_rng(0)
    pool = Workers(count)
    layout = {
        name: ((BATCH, size, size, 3), "uint8")
        for name, size in plan.sizes.items()
    }
    make = CutOut(plan, rng.random((BATCH, plan.num_uniforms)))

    def read(batches: int) -> None:
        for _ in range(batches):
            indices = rng.integers(0, len(photos), BATCH)
            _, *failed = pool.make(photos.records, indices, layout, make)
            assert not any(failed)

    read(2)  # They start.
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, own = time.perf_counter(), time.process_time()
    read(BATCHES)
    clock, own = time.perf_counter() - start, time.process_time() - own
    pool.close()
    done = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = done.ru_utime - others.ru_utime + done.ru_stime - others.ru_stime
    return (
        f"{BATCHES * BATCH / clock:.0f} photos a second by the clock; CPU for "
        f"each {1000 * used / BATCH / (BATCHES + 2):.2f} ms there, "
        f"{1e6 * own / BATCHES / BATCH:.0f} us here"
    )


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    augmenter = simclr(SIZE)
    plan: Any = augmenter.crop_plan
    with tempfile.TemporaryDirectory() as folder:
        paths = make_photos(Path(folder), options.photos)
        kilobytes = sum(p.stat().st_size for p in paths) / 1000 / len(paths)
        print(f"{len(paths)} JPEGs of 500x375, {kilobytes:.0f} kB each")
        print("resized by", "cykooz-resizer" if resize._fast() else "Pillow")
        photos = Photos(Files(paths), (SIZE, SIZE))
        photos._threads = Threads(1)
        indices = np.arange(len(paths))
        rng = np.random.default_rng(0)
        uniforms = rng.random((len(paths), plan.num_uniforms))

        def canvas() -> None:
            place = np.zeros((CANVAS, CANVAS, 3), "uint8")
            for path in paths:
                with Image.open(path) as file:
                    image = file.convert("RGB")
                    image.thumbnail((CANVAS, CANVAS))
                place[: image.height, : image.width] = image

        small = make_photos(Path(folder) / "tiny", len(paths), (16, 12))
        tiny = Photos(Files(small), (8, 8))
        tiny._threads = Threads(1)
        tiny_plan: Any = simclr(8).crop_plan
        few = 8
        whole = rng.integers(0, 256, (few, CANVAS, CANVAS, 3)).astype("uint8")
        cut = {
            name: whole[:, :size, :size] for name, size in plan.sizes.items()
        }
        device: ViewAugmenter = augmenter
        lines = {
            "resized, center cropped": lambda: photos.read(indices),
            "two crops cut while decoding": lambda: photos.read_cuts(
                indices, plan, uniforms
            ),
            f"decoded to a canvas of {CANVAS}x{CANVAS}": canvas,
            "two crops of a photo of 16x12 (nearly all of it Python)": lambda: (
                tiny.read_cuts(indices, tiny_plan, uniforms)
            ),
        }
        for name, task in lines.items():
            found = cost(task, len(paths), options.repeats)
            print(f"{name}: {found:.2f} ms of CPU")
        for count in (1, 2):
            print(f"two crops, {count} processes:", end=" ", flush=True)
            print(in_processes(count, photos, plan))
        views = {
            f"views from a canvas of {CANVAS}x{CANVAS}": whole,
            f"views from crops of {SIZE}x{SIZE}": cut,
        }
        for name, images in views.items():
            found = cost(lambda: device(images), few, options.repeats)
            print(f"{name}: {found:.1f} ms of CPU")


if __name__ == "__main__":
    main()
