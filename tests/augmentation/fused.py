"""Images for the tests of views, and fused views of chosen numbers."""

import dataclasses
import functools

import numpy as np
from keras import ops
from PIL import Image
from sklearn.datasets import load_sample_images

from kerassl.augmentation import View
from kerassl.augmentation.pipeline import Pipeline
from tests.augmentation import reference
from tests.backends import compiled

# A view in which nothing happens but the resize to `size`.
STILL = View(
    32,
    crop_area=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip=0.0,
    jitter=0.0,
    grayscale=0.0,
    blur=0.0,
)


def smooth_images(count=64, size=32, channels=3, seed=0):
    """Colored blobs: smooth, as photographs are, and full of range."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 6, 6, channels)).astype("uint8")
    return np.stack(
        [
            reference.resized_crop(image, (0, 0, 6, 6), size, "bicubic")
            for image in coarse
        ]
    )


def photos(count=128, size=32):
    """Patches of scikit-learn's two photographs, at a third of their size."""
    rng = np.random.default_rng(0)
    patches = []
    for i in range(count):
        photo = load_photos()[i % 2]
        top, left = rng.integers(0, np.array(photo.shape[:2]) - size)
        patches.append(photo[top : top + size, left : left + size])
    return np.stack(patches)


@functools.cache
def load_photos():
    return [
        np.asarray(Image.fromarray(photo).reduce(3))
        for photo in load_sample_images().images
    ]


def still(**changes):
    """`STILL`, with some parameters changed."""
    return dataclasses.replace(STILL, **changes)


def uniforms(count, operations, **given):
    """Uniform numbers for built-in operations, some of them given by name."""
    rng = np.random.default_rng(1)
    columns = [
        (name, rng.random((count, width)))
        for operation in operations
        for name, width in getattr(operation, "uniforms", {}).items()
    ]
    for name, column in columns:
        if name in given:
            column[:] = given.pop(name)
    assert not given, given
    return np.concatenate([c for _, c in columns], axis=1).astype("float32")


def fused(images, operations, numbers):
    """Applies a pipeline to images with these uniform numbers."""
    made = compiled(lambda *arrays: Pipeline(operations)(ops, *arrays))(
        ops.convert_to_tensor(images), ops.convert_to_tensor(numbers)
    )
    return ops.convert_to_numpy(made)


def fused_view(images, view, **given):
    """Makes a `View` with some uniform numbers given by name."""
    operations = view.operations()
    numbers = uniforms(len(images), operations, **given)
    return fused(images, operations, numbers)
