"""What the choice of a method needs to know of images and of the machine."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from kerassl.auto import RELEASED, Facts
from kerassl.data.levels import decoder_for
from kerassl.data.load import find, peek_size
from kerassl.data.photos import Photos
from kerassl.environment import has_accelerator
from kerassl.value_range import Stated


def facts(
    data: str,
    *,
    image_size: int | None = None,
    limit: int | None = None,
    data_dir: str | None = None,
    value_range: Stated = None,
) -> Facts:
    """Looks at images, for `kerassl.recipes.choose`.

    Args:
        data: str, as in `kerassl.data.load`, of whose split `"train"` it
            reports. Files are listed, and not decoded.
        image_size: int or `None`, to which images will be resized.
        limit: as in `kerassl.data.load`.
        data_dir: as in `kerassl.data.load`.
        value_range: as in `kerassl.data.load`.

    Returns:
        A `Facts`.

    Raises:
        ValueError: as `kerassl.data.load`.
        FileNotFoundError: as `kerassl.data.load`.

    Example:
    ```python
    facts = kerassl.recipes.facts("folder:photos")
    kerassl.recipes.choose(facts).reasons
    ```
    """
    if image_size is None:
        image_size, _ = peek_size(data, data_dir=data_dir)
    images: Any
    images, labels, _ = find(
        data,
        image_size=image_size,
        limit=limit,
        data_dir=data_dir,
        value_range=value_range,
    )
    if isinstance(images, Photos):
        images.decoder = decoder_for(images, None, value_range)
    return Facts(
        images=len(images),
        image_size=image_size,
        channels=images.shape[-1] if len(images.shape) == 4 else 1,
        accelerator=has_accelerator(),
        photos=images.dtype == np.uint8,
        labels=labels is not None and bool((np.asarray(labels) >= 0).all()),
        released=_is_here(RELEASED),
    )


def _is_here(weights: str) -> bool:
    """Returns whether KerasHub has downloaded a preset before."""
    cache = os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub"
    name = weights.partition(":")[2]
    folder = Path(cache).expanduser() / "models"
    return any(folder.glob(f"*/*/*/{name}"))
