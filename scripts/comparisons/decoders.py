"""Compares libraries that decode a JPEG and cut two bicubic crops of 224 px.

    pip install simplejpeg cykooz-resizer opencv-python-headless
    python scripts/comparisons/decoders.py

Prints, of each that is installed, milliseconds of CPU per JPEG of 500x375, and
the mean difference to Pillow's pixels in levels, that of the worst crop. All
see the same files and boxes. `docs/decisions.md` quotes it.
"""

import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from photo_speed import make_photos

from kerassl.augmentation import simclr
from kerassl.data import resize

SIZE, COUNT, ROUNDS = 224, 60, 6
FILTER = Image.Resampling.BICUBIC
# Left, top, right, bottom.
Box = tuple[int, int, int, int]
Way = Callable[[Path, list[Box]], list[np.ndarray]]


def read_pillow(path: Path) -> Image.Image:
    """Decodes with Pillow."""
    with Image.open(path) as file:
        file.load()
        return file


def by_pillow(image: Image.Image, boxes: list[Box]) -> list[np.ndarray]:
    """Resizes with Pillow."""
    return [np.asarray(image.resize((SIZE, SIZE), FILTER, b)) for b in boxes]


def by_cykooz(image: Image.Image, boxes: list[Box]) -> list[np.ndarray]:
    """Resizes as kerassl does where cykooz-resizer is installed."""
    return [resize.resize_box(image, b, (SIZE, SIZE), "bicubic") for b in boxes]


def ways() -> dict[str, Way]:
    """Returns the ways whose libraries are installed."""
    there = {
        name: importlib.util.find_spec(name) is not None
        for name in ("simplejpeg", "cykooz_resizer", "torch", "cv2")
    }
    found: dict[str, Way] = {
        "Pillow": lambda path, boxes: by_pillow(read_pillow(path), boxes),
        "Pillow, decoding only": lambda path, boxes: [
            np.empty(0) for _ in [read_pillow(path)]
        ],
    }
    if there["cykooz_resizer"]:
        found["Pillow, cykooz-resizer"] = lambda path, boxes: by_cykooz(
            read_pillow(path), boxes
        )
    if there["simplejpeg"]:
        import simplejpeg

        def read(path: Path) -> Image.Image:
            pixels = simplejpeg.decode_jpeg(path.read_bytes(), "RGB")
            return Image.fromarray(pixels)

        found["simplejpeg, Pillow"] = lambda path, boxes: by_pillow(
            read(path), boxes
        )

        def read_checked(path: Path, fast: bool = False) -> Image.Image:
            with Image.open(path) as file:  # For the EXIF block and the mode.
                file.getexif()
                raw = path.read_bytes()
            return Image.fromarray(
                simplejpeg.decode_jpeg(raw, "RGB", fastdct=fast)
            )

        if there["cykooz_resizer"]:
            found["simplejpeg and Pillow's header, cykooz-resizer"] = (
                lambda path, boxes: by_cykooz(read_checked(path), boxes)
            )
            found["the same with the fast DCT"] = lambda path, boxes: by_cykooz(
                read_checked(path, True), boxes
            )
            found["simplejpeg, cykooz-resizer"] = lambda path, boxes: by_cykooz(
                read(path), boxes
            )
    if there["torch"]:
        import torch

        torch.set_num_threads(1)

        def by_torch(path: Path, boxes: list[Box]) -> list[np.ndarray]:
            pixels = torch.from_numpy(np.array(read_pillow(path)))
            pixels = pixels.permute(2, 0, 1)[None]
            return [
                torch.nn.functional.interpolate(
                    pixels[:, :, top:bottom, left:right],
                    (SIZE, SIZE),
                    mode="bicubic",
                    antialias=True,
                )[0]
                .permute(1, 2, 0)
                .numpy()
                for left, top, right, bottom in boxes
            ]

        found["Pillow, PyTorch"] = by_torch
    if there["cv2"]:
        import cv2

        cv2.setNumThreads(1)

        def by_opencv(path: Path, boxes: list[Box]) -> list[np.ndarray]:
            raw = np.fromfile(path, "uint8")
            pixels = cv2.imdecode(raw, cv2.IMREAD_COLOR_RGB)
            return [
                cv2.resize(
                    pixels[top:bottom, left:right],
                    (SIZE, SIZE),
                    # It has no cubic filter with antialiasing.
                    interpolation=cv2.INTER_AREA
                    if min(bottom - top, right - left) > SIZE
                    else cv2.INTER_CUBIC,
                )
                for left, top, right, bottom in boxes
            ]

        found["OpenCV, its area filter"] = by_opencv
    return found


def tensorflow_ways(
    paths: list[Path], boxes: list[list[Box]]
) -> dict[str, Callable[[], list[list[np.ndarray]]]]:
    """Returns what cuts all photos in the threads of tf.data, one here."""
    if importlib.util.find_spec("tensorflow") is None:
        return {}
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    windows = [
        [
            (top, left, bottom - top, right - left)
            for left, top, right, bottom in b
        ]
        for b in boxes
    ]

    def cut(antialias: bool) -> Callable[[], list[list[np.ndarray]]]:
        def one(path: Any, window: Any) -> list[Any]:
            raw, made = tf.io.read_file(path), []
            for i in range(2):
                pixels = tf.io.decode_and_crop_jpeg(
                    raw, window[i], 3, dct_method="INTEGER_ACCURATE"
                )
                pixels = tf.image.resize(
                    pixels, (SIZE, SIZE), "bicubic", antialias=antialias
                )
                pixels = tf.clip_by_value(tf.round(pixels), 0, 255)
                made.append(tf.cast(pixels, "uint8"))
            return made

        texts = [str(path) for path in paths]
        data = tf.data.Dataset.from_tensor_slices((texts, windows))
        data = data.map(one, num_parallel_calls=1)
        return lambda: [list(pair) for pair in data.as_numpy_iterator()]

    return {
        "TensorFlow, decode_and_crop_jpeg": cut(True),
        "TensorFlow, without antialiasing": cut(False),
    }


def main() -> None:
    """Prints a line for each way."""
    plan: Any = simclr(SIZE).crop_plan
    uniforms = np.random.default_rng(0).random((COUNT, plan.num_uniforms))
    with tempfile.TemporaryDirectory() as folder:
        paths = make_photos(Path(folder), COUNT)
        boxes: list[list[Box]] = []
        for path, numbers in zip(paths, uniforms.tolist()):
            with Image.open(path) as file:
                cuts = plan.cuts(numbers, file.height, file.width)
            boxes.append(
                [
                    (c.left, c.top, c.left + c.width, c.top + c.height)
                    for c in cuts
                ]
            )

        def all_by(way: Way) -> Callable[[], list[list[np.ndarray]]]:
            return lambda: [way(path, b) for path, b in zip(paths, boxes)]

        known = ways()
        right = all_by(known["Pillow"])()
        tasks = {name: all_by(way) for name, way in known.items()}
        tasks |= tensorflow_ways(paths, boxes)
        best = dict.fromkeys(tasks, float("inf"))
        for _ in range(ROUNDS):  # In turns: the machine may be busy.
            for name, task in tasks.items():
                start = time.process_time()
                task()
                spent = time.process_time() - start
                best[name] = min(best[name], 1000 * spent / COUNT)
        for name, task in tasks.items():
            off = "" if "only" in name else f", {worst(task(), right):.2f} off"
            print(f"{name}: {best[name]:.2f} ms of CPU{off}")


def worst(made: list[list[np.ndarray]], right: list[list[np.ndarray]]) -> float:
    """Returns the largest mean difference of a crop."""
    return max(
        float(np.abs(one.astype("float32") - other).mean())
        for pair, others in zip(made, right)
        for one, other in zip(pair, others)
    )


if __name__ == "__main__":
    main()
