"""How many CPU cores decode photos as fast as training steps use them."""

import contextlib
import dataclasses
import time
from typing import Any

import keras
import numpy as np

from kerassl import recipes
from kerassl.data import ImageBatches
from kerassl.data.cuts import CutOut, Maker, Resized
from kerassl.data.photos import Photos
from kerassl.environment import has_accelerator

# Steps that warm up, and all of them.
_FIRST, _STEPS = 2, 6
_SAMPLE = 64
# A CPU needs no large batch to be busy.
_CPU_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Feeding:
    """What feeding the training steps takes.

    Args:
        images_per_second: float, of the steps alone, on this machine.
        seconds: float, the time of one CPU core to decode an image and cut its
            views.
    """

    images_per_second: float
    seconds: float

    @property
    def cores(self) -> float:
        """How many cores decode as many images as the steps use."""
        return self.images_per_second * self.seconds


def measure_feeding(recipe: recipes.Recipe, photos: Photos) -> Feeding:
    """Measures the training steps of a recipe, and the decoding they need.

    Args:
        recipe: `kerassl.recipes.Recipe`. On a CPU, batches have 32 images at
            most.
        photos: `Photos` of the recipe's size, at least a batch of them.

    Returns:
        A `Feeding`.

    Raises:
        ValueError: if there are too few photos, or as for `build_model`.
    """
    size = recipe.batch_size
    if not has_accelerator():
        size = min(size, _CPU_BATCH)
    if len(photos) < size:
        raise ValueError(
            f"A batch of {size} images is needed to measure its step. Found "
            f"{len(photos)}."
        )
    channels = photos.shape[-1]
    if channels not in (1, 3) and not recipe.normalization:
        # Any will do: the speed doesn't depend on it.
        any_one = {"mean": [0.5] * channels, "std": [0.25] * channels}
        recipe = recipe.replace(normalization=any_one)
    model = recipes.build_model(recipe, photos.shape[1:], _STEPS)
    batches = _Same(photos, photos.labels, batch_size=size)
    batches.steps_per_epoch = _STEPS
    clock = _Clock()
    model.fit(batches, shuffle=False, verbose=0, callbacks=[clock])
    steps = _STEPS - 1 - _FIRST
    taken = clock.times[1] - clock.times[0]
    plan = getattr(model.augmenter, "crop_plan", None)
    return Feeding(size * steps / taken, _cost(photos, plan))


class _Same(ImageBatches):
    """The first batch again and again, so that a step waits for none."""

    batch: Any = None

    @property
    def batch_sizes(self) -> list[int]:
        """All are alike."""
        return [self.batch_size]

    def __getitem__(self, index: int) -> Any:
        if self.batch is None:
            self.batch = super().__getitem__(0)
        return self.batch


class _Clock(keras.callbacks.Callback):
    """Notes when some steps have ended, also on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Waits for the device, and looks at the time."""
        if batch in (_FIRST, _STEPS - 1):
            keras.ops.convert_to_numpy(self.model.trainable_variables[0])
            self.times.append(time.perf_counter())


def _cost(photos: Photos, plan: Any) -> float:
    """Returns the seconds of a core that a photo takes."""
    chosen = photos.limited(_SAMPLE)
    make: Maker = Resized(photos.size, photos.decoder)
    if plan is not None:
        rng = np.random.default_rng(0)
        uniforms = rng.random((len(chosen), plan.num_uniforms))
        make = CutOut(plan, uniforms, photos.decoder)
    times = []
    # The first one also imports what decodes it.
    for row in [0, *range(len(chosen))]:
        start = time.thread_time()
        # `inspect` names what can't be read.
        with contextlib.suppress(Exception):
            make(chosen.records.source(row), row)
            times.append(time.thread_time() - start)
    if not times:
        raise ValueError(
            f"None of {len(chosen)} images can be read, such as "
            f"{chosen.records.name(0)!r}."
        )
    return float(np.mean(times[1:] or times))
