"""Scenes with a class for each pixel, made of images on a dark ground."""

from typing import Any

import numpy as np

from kerassl.evaluation.labels import label_array

# Pixels above this are of the object.
DARK = 10


def scenes(
    images: Any,
    labels: Any,
    count: int,
    size: int = 56,
    objects: int = 2,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Makes scenes of objects at random places, and their masks.

    A small set to try segmentation on, such as from Fashion-MNIST, whose
    images show objects on black. The ground of a scene is noise of a random
    brightness; objects may cover each other.

    Args:
        images: array `(N, H, W, C)`, uint8, each an object on black, at most
            as large as a scene.
        labels: int array `(N,)`, from 0.
        count: int > 0, the number of scenes.
        size: int, height and width of a scene.
        objects: int > 0, the number of objects in a scene.
        seed: int.

    Returns:
        A pair: uint8 scenes `(count, size, size, C)`, and int64 masks
        `(count, size, size)`, 0 for the ground and 1 + label for objects.

    Raises:
        ValueError: if the images are larger than a scene, or aren't uint8.

    Example:
    ```python
    train = kerassl.data.load("fashion_mnist_small", "train")
    images, masks = kerassl.evaluation.scenes(*train, count=200)
    ```
    """
    images, labels = np.asarray(images), label_array(labels, "labels")
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(
            "Scenes need uint8 images (N, H, W, C). Received: "
            f"{images.shape} of {images.dtype}"
        )
    _, height, width, channels = images.shape
    if max(height, width) > size:
        raise ValueError(
            f"Images of {height}x{width} don't fit into scenes of "
            f"{size}x{size}. Give a larger `size`."
        )
    rng = np.random.default_rng(seed)
    made = rng.normal(0, 12, (count, size, size, channels))
    made += rng.uniform(20, 120, (count, 1, 1, channels))
    made = np.clip(made, 0, 255).astype("uint8")
    masks = np.zeros((count, size, size), "int64")
    for scene, mask in zip(made, masks):
        for index in rng.integers(0, len(images), objects):
            top = rng.integers(0, size - height + 1)
            left = rng.integers(0, size - width + 1)
            place = slice(top, top + height), slice(left, left + width)
            solid = images[index].max(-1) > DARK
            scene[place][solid] = images[index][solid]
            mask[place][solid] = 1 + int(labels[index])
    return made, masks
