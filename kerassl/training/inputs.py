"""Checks the data that users pass, and converts it for Keras."""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerassl.data import ImageBatches, ImageData
from kerassl.data.arrays import check_dtype, check_header, dtype_name
from kerassl.data.cuts import CropPlan
from kerassl.data.photos import Photos
from kerassl.distributed import in_step
from kerassl.training.forms import (
    any_array,
    first_part,
    is_arrays,
    is_loader,
    labels_of,
    select,
)
from kerassl.training.pixels import PixelWatch
from kerassl.training.uploads import uploads

# The number of images checked in an array that isn't in memory: enough to
# notice another scale.
SAMPLED_IMAGES = 1000


class Inputs:
    """Reads the data of one `fit`, `evaluate` or `predict`.

    It accepts arrays, dicts of arrays, `tf.data`, `PyDataset`, torch
    `DataLoader`, generators, and the result of `kerassl.data.load`. From each
    batch it keeps the images, or the ready-made views. Labels, unless they are
    needed, and other entries of a dict (such as the string `id` of TensorFlow
    Datasets) don't reach Keras. Images are checked on the host, before a step
    uses them.

    Args:
        shape: `(height, width, channels)` of the images, with `None` for any
            height or width.
        views: the names of ready-made views that a dict may hold instead of
            `"image"`.
        drawn: names that may accompany them; see `SelfSupervisedModel.draw`.
        check_size: callable that takes the number of images in a batch and
            raises a `ValueError` if it isn't allowed; or `None`.
        in_step: bool. Whether all processes must read batches of the same
            sizes, since their steps wait for each other.
        pixels: `PixelWatch` that has seen earlier batches, if there were any.
        plan: `kerassl.data.cuts.CropPlan`, by which photos are cut while they
            are decoded; or `None` to resize them.
        needs_labels: bool. Whether batches are `(x, labels)`, not `(x,)`.
            Labels are the second part of a pair, or under `"label"` in a dict.
    """

    def __init__(
        self,
        shape: Sequence[int | None],
        views: Sequence[str] = (),
        drawn: Sequence[str] = (),
        check_size: Callable[[int], None] | None = None,
        in_step: bool = False,
        pixels: PixelWatch | None = None,
        plan: CropPlan | None = None,
        needs_labels: bool = False,
    ):
        self.shape = tuple(shape)
        self.views = tuple(views)
        self.drawn = tuple(drawn)
        self.check_size = check_size
        self.in_step = in_step
        self.pixels = PixelWatch() if pixels is None else pixels
        self.plan = plan
        self.needs_labels = needs_labels
        #: The result of `read`, and the labels that belong to arrays.
        self.data: Any = None
        self.labels: Any = None
        self.error: ValueError | None = None

    def __getstate__(self) -> dict:
        """Omits the model, since `PyDataset` may send this to processes."""
        left_out = ("check_size", "data", "labels", "error")
        return {**vars(self), **dict.fromkeys(left_out)}

    def read(
        self,
        data: Any,
        batch_size: int | None = None,
        shuffle: bool = False,
        labels: Any = None,
    ) -> Any:
        """Returns data for Keras, of images or of dicts of views.

        Arrays are checked now, batches when they are read.

        Args:
            data: see the class.
            batch_size: int, for `ImageData`; by default 32, as in Keras.
            shuffle: bool, for `ImageData`.
            labels: the labels that were given with arrays or photos, or
                `None`.

        Raises:
            ValueError: if the data has the wrong type, images have the wrong
                shape, type or range, or labels are needed and missing; -1
                is a missing one.
        """
        self.data = self._readable(data, batch_size, shuffle, labels)
        if is_arrays(self.data):
            count = len(any_array(data))
            self.labels = self._needed(labels_of((data, labels)), count)
        return self.data

    def batch(self, batch: Any, labels: Any = None) -> tuple:
        """Returns the images or views of a batch, checked, and needed labels.

        Args:
            batch: images, a dict, or a tuple that begins with one of these.
            labels: the labels, if the batch doesn't hold them.

        Raises:
            ValueError: as for `read`, or if `check_size` refuses the batch.
        """
        try:
            x = select(first_part(batch), self.views, self.drawn)
            images = self._images(x)
            for name, array in images.items():
                self._check_form(array, name)
                self.pixels.look(array, name, name not in self.views)
            count = len(any_array(images))
            if self.check_size is not None:
                self.check_size(count)
            if labels is None:
                labels = labels_of(batch)
            labels = self._needed(labels, count)
        except ValueError as error:
            self.error = error
            raise
        return (x,) if labels is None else (x, labels)

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Re-raises errors of `batch` that TensorFlow wrapped in its own."""
        try:
            yield
        except Exception as error:
            if self.error is None or error is self.error:
                raise
            raise self.error from None

    # === Kinds of data ===

    def _readable(
        self, data: Any, batch_size: int | None, shuffle: bool, labels: Any
    ) -> Any:
        if hasattr(data, "read"):  # `Photos`.
            data = ImageData(data, self._needed(labels, len(data)))
        seed = None
        if isinstance(data, ImageData):
            labels = self._needed(data.labels, len(data.images))
            data = ImageData(data.images, labels)
            data = data.batches(batch_size or 32, shuffle=shuffle)
            # Their epochs begin at 0 in each `fit`; crops should not.
            seed = int(np.random.randint(2**31))
        if isinstance(data, ImageBatches):
            # Passed on itself, since its owner reads its epoch counter.
            data.cut(self.plan, seed)
            self._look_at_arrays({"image": data.images})
            self._needed(data.labels, len(data.images))
            if found := uploads():
                data.upload(found)
            return data
        if isinstance(data, keras.utils.PyDataset):
            return _ReadBatches(data, self)
        if hasattr(data, "element_spec"):  # tf.data
            # A data set of `tf.distribute` has no `map`.
            return self._mapped(data) if hasattr(data, "map") else data
        if is_loader(data):
            return self._loader(data)
        if isinstance(data, types.GeneratorType):
            return self._each(data)
        if is_arrays(data):
            return self._look_at_arrays(data)
        if isinstance(data, (list, tuple)):
            raise ValueError(
                f"Images must be one array (N, height, width, channels): "
                f"`np.stack` makes one. Received: {type(data).__name__}"
            )
        return data

    def _each(self, batches: Any) -> Iterator[tuple]:
        if self.in_step:
            batches = in_step(batches, lambda batch: len(any_array(batch)))
        checked = (self.batch(batch) for batch in batches)
        found = uploads()
        return found.ahead(checked) if found else checked

    def _look_at_arrays(self, data: Any) -> Any:
        x = select(data, self.views, self.drawn)
        for name, images in self._images(x).items():
            self._check_form(images, name)
            if dtype_name(images) == "uint8" or isinstance(images, Photos):
                continue  # All values are valid.
            if type(images) is not np.ndarray and len(images):
                # The array is in a file or on a device.
                images = images[:: -(-len(images) // SAMPLED_IMAGES)]
            self.pixels.look(images, name, name not in self.views)
        return x

    def _mapped(self, data: Any) -> Any:
        tf = sys.modules["tensorflow"]
        x = select(first_part(data.element_spec), self.views, self.drawn)
        specs = self._images(x)
        for name, spec in specs.items():
            if not isinstance(spec, tf.TensorSpec):
                raise ValueError(
                    f"`{name}` must be images of one size: resize them before "
                    f"they are batched. Found: {spec}"
                )
            if spec.shape.rank is not None:
                self._check_form(spec, name)
        # For uint8 the shape is enough, since all values are valid.
        whole = {n: dtype_name(spec) != "uint8" for n, spec in specs.items()}
        self._needed(labels_of(data.element_spec))

        def look(*found: np.ndarray) -> None:
            images = {
                name: array if whole[name] else _OfShape(array)
                for name, array in zip(specs, found)
            }
            self.batch(images, *found[len(specs) :])

        def read(*batch: Any) -> tuple:
            x = select(first_part(batch), self.views, self.drawn)
            images = self._images(x)
            found = [
                image if whole[name] else tf.shape(image)
                for name, image in images.items()
            ]
            labels = [labels_of(batch)] if self.needs_labels else []
            looked = tf.numpy_function(look, found + labels, [])
            with tf.control_dependencies([looked]):
                return tf.nest.map_structure(tf.identity, (x, *labels))

        return data.map(tf.autograph.experimental.do_not_convert(read))

    def _loader(self, loader: Any) -> Any:
        import torch  # Installed, since the loader is torch's.

        inputs = self

        class Batches(torch.utils.data.IterableDataset):
            def __iter__(self) -> Iterator[tuple]:
                return inputs._each(loader)

        class SizedBatches(Batches):
            def __len__(self) -> int:
                return len(loader)

        is_sized = hasattr(loader.dataset, "__len__")
        # Its own generator keeps this loader from changing the user's order.
        return torch.utils.data.DataLoader(
            SizedBatches() if is_sized else Batches(),
            batch_size=None,
            generator=torch.Generator(torch.get_default_device()),
        )

    # === Checks ===

    def _images(self, x: Any) -> dict[str, Any]:
        if not isinstance(x, Mapping):
            return {"image": x}
        return {name: x[name] for name in self.views}

    def _needed(self, labels: Any, count: int | None = None) -> Any:
        """Returns labels that are needed, after checking them, or `None`."""
        if not self.needs_labels:
            return None
        if isinstance(labels, (list, tuple)):
            labels = np.asarray(labels)
        check_labels(labels, count)
        return labels

    def _check_form(self, images: Any, name: str) -> None:
        if not hasattr(images, "shape") or not hasattr(images, "dtype"):
            raise ValueError(
                f"`{name}` must be an array of shape (N, height, width, "
                f"channels). Received: {type(images).__name__}"
            )
        shape = tuple(images.shape)
        *size, channels = self.shape
        if name in self.views:
            check_dtype(dtype_name(images), name)
            if len(shape) < 4 or shape[-1] not in (None, channels):
                raise ValueError(
                    f"`{name}` must be of shape (N, height, width, {channels})"
                    f", with {channels} channels last. Received: shape={shape}"
                )
            return
        check_header(shape, dtype_name(images), name)
        if shape[-1] != channels:
            raise ValueError(
                f"The encoder takes images of {channels} channels. Found "
                f"images of shape {shape[1:]}."
            )
        for needed, found in zip(size, shape[1:3]):
            if None not in (needed, found) and needed != found:
                raise ValueError(
                    f"The encoder takes images of shape {self.shape}. Resize "
                    f"them first. Found images of shape {shape[1:]}."
                )


def check_labels(labels: Any, count: int | None = None) -> None:
    """Checks the labels that a method learns from.

    Args:
        labels: an array, a tensor, or the specification of one. Those on an
            accelerator aren't read, since that would wait for it.
        count: int, the number of images, or `None` if it isn't known.

    Raises:
        ValueError: if they aren't integers `(N,)` or `(N, 1)`, one for each
            image, or one is negative, which stands for no label.
    """
    form, cure = getattr(labels, "shape", None), ""
    if form is None:
        found = "no labels" if labels is None else type(labels).__name__
    else:
        if getattr(form, "rank", 0) is None:
            return  # Of `tf.data`, whose batches are checked as they are read.
        form = tuple(form)
        found = f"{dtype_name(labels)} of shape {form}"
        # `keras.datasets.cifar10` has a column of labels.
        is_one_each = bool(form) and form[1:] in ((), (1,))
        is_whole = is_one_each and count in (None, form[0])
        if is_whole and "int" in dtype_name(labels):
            if not _is_near(labels) or (np.asarray(labels) >= 0).all():
                return
            found = "numbers below 0, which stand for no label"
        elif len(form) == 2 and not is_one_each:
            cure = ". For one-hot labels, use `labels.argmax(axis=1)`"
    raise ValueError(
        "The method learns from labels: integers (N,), one for each image, "
        f"from 0 on. Found: {found}{cure}"
    )


def _is_near(array: Any) -> bool:
    """Returns whether the CPU holds an array, so that a look is cheap."""
    device = str(getattr(array, "device", ""))
    return isinstance(array, np.ndarray) or "cpu" in device.lower()


class _OfShape:
    """A stand-in for uint8 images of which only the shape is known."""

    dtype = np.dtype("uint8")

    def __init__(self, shape: np.ndarray):
        self.shape = tuple(shape.tolist())

    def __len__(self) -> int:
        return self.shape[0]


class _ReadBatches(keras.utils.PyDataset):
    """A `PyDataset` with only the images of a user's `PyDataset`."""

    def __init__(self, data: keras.utils.PyDataset, inputs: Inputs):
        super().__init__(
            data.workers, data.use_multiprocessing, data.max_queue_size
        )
        self.data = data
        self.inputs = inputs
        # Other processes than this one can't use its GPU.
        self.uploads = None if data.use_multiprocessing else uploads()

    @property
    def num_batches(self) -> int | None:
        return self.data.num_batches

    def __getitem__(self, index: int) -> tuple:
        batch = self.inputs.batch(self.data[index])
        found = self.uploads
        return found.end(found.begin(batch)) if found else batch

    def on_epoch_begin(self) -> None:
        self.data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.data.on_epoch_end()
