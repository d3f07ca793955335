"""A Keras model that reads images from wherever Keras does, and looks first."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from kerassl.data import ImageBatches, ImageData
from kerassl.distributed import device_count, process, share_weights
from kerassl.training.inputs import Inputs, batch_sizes
from kerassl.training.pixels import PixelWatch
from kerassl.training.step import weights_kept


class ImageModel(keras.Model):
    """Hands Keras the images of what a user gives, and no labels.

    All that reads data goes through `Inputs`: `fit` with its
    `validation_data`, `evaluate`, `predict`, and their likes for one batch.

    A subclass says what it takes (`inputs_for`), and which batches it can't
    train on (`check_batch`).

    Args:
        **kwargs: the arguments of `keras.Model`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        #: The number of images in a batch of the last `fit`, where known: of
        #: all processes.
        self.batch_size: int | None = None
        # What `train_on_batch` and its likes have seen.
        self._pixels = PixelWatch()
        self._validation: Inputs | None = None

    def inputs_for(self, **kwargs: Any) -> Inputs:
        """Returns what reads the data of one call.

        Args:
            **kwargs: the arguments of `Inputs` besides what the model needs.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks `inputs_for`.")

    def check_batch(self, size: int) -> None:
        """Refuses a batch that can't be trained on.

        Args:
            size: int, the number of images, of all processes.

        Raises:
            ValueError: naming the cure.
        """

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains on images, as `keras.Model.fit` does; labels are ignored.

        Args:
            x: the data; see the class. What `kerassl.data.load` returns, or
                the images of it, is shuffled anew each epoch, the same way in
                each `fit`.
            *args: as in `keras.Model.fit`.
            **kwargs: as in `keras.Model.fit`. `validation_data` may be all
                that `x` may be.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: if images have another shape, type or range than they
                need, or a batch is too small: before the step that would see
                them, and before the first one where that is known.
        """
        given = bound(super().fit, x, *args, **kwargs)
        batch_size = given.get("batch_size")
        check_size = self._size_check(trains=True)
        training = self.inputs_for(check_size=check_size)
        given["x"] = training.read(x, batch_size, given.get("shuffle", True))
        if isinstance(x, ImageData) or hasattr(x, "read"):
            # Its batches are shuffled, and not their order.
            x, given["shuffle"] = given["x"], False
        elif not (_is_array(x) or isinstance(x, keras.utils.PyDataset)):
            # Keras would warn that it can't, though nobody asked.
            given.setdefault("shuffle", False)
        self.batch_size = None
        split = given.get("validation_split", 0.0)
        for size in batch_sizes(x, batch_size, split):
            check_size(size)
        validation = self.inputs_for(check_size=self._size_check())
        if given.get("validation_data") is not None:
            found = keras.utils.unpack_x_y_sample_weight(
                given["validation_data"]
            )
            size = int(given.get("validation_batch_size") or batch_size or 32)
            given["validation_data"] = (validation.read(found[0], size),)
            _check_known(validation, size)
        share_weights(self)
        self._validation = validation
        try:
            with (
                training.named_errors(),
                validation.named_errors(),
                weights_kept(self),
            ):
                return super().fit(**_without_labels(given))
        finally:
            self._validation = None

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Computes the loss and the metrics, as `keras.Model.evaluate` does.

        Args:
            x: the data, as for `fit`.
            *args: as in `keras.Model.evaluate`.
            **kwargs: as in `keras.Model.evaluate`.

        Returns:
            As `keras.Model.evaluate`.

        Raises:
            ValueError: if images have another shape, type or range.
        """
        if self._validation is not None and x is self._validation.data:
            # That of `fit`, which read it.
            return super().evaluate(x, *args, **kwargs)
        given = bound(super().evaluate, x, *args, **kwargs)
        options = given.pop("kwargs", {})
        inputs = self.inputs_for(check_size=self._size_check())
        given["x"] = inputs.read(x, given.get("batch_size"))
        _check_known(inputs, given.get("batch_size"))
        with inputs.named_errors(), weights_kept(self):
            return super().evaluate(**_without_labels(given), **options)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns what calling the model does, as `keras.Model.predict`.

        Args:
            x: the data, as for `fit`.
            *args: as in `keras.Model.predict`.
            **kwargs: as in `keras.Model.predict`.

        Returns:
            NumPy arrays.

        Raises:
            ValueError: if images have another shape, type or range.
        """
        given = bound(super().predict, x, *args, **kwargs)
        inputs = self.inputs_for()
        given["x"] = inputs.read(x, given.get("batch_size"))
        with inputs.named_errors(), weights_kept(self):
            return super().predict(**given)

    def train_on_batch(
        self, x: Any, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Takes a step, as `keras.Model.train_on_batch` does.

        Args:
            x: images, or a dict, as in the data of `fit`.
            y: labels, which are ignored.
            *args: as in `keras.Model.train_on_batch`.
            **kwargs: as in `keras.Model.train_on_batch`.

        Returns:
            As `keras.Model.train_on_batch`.

        Raises:
            ValueError: if the images have another shape, type or range, or
                are too few.
        """
        inputs = self.inputs_for(
            check_size=self._size_check(trains=True), pixels=self._pixels
        )
        return super().train_on_batch(inputs.batch(x), None, *args, **kwargs)

    def test_on_batch(
        self, x: Any, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Computes a batch's loss, as `keras.Model.test_on_batch` does.

        Args:
            x: as in `train_on_batch`.
            y: labels, which are ignored.
            *args: as in `keras.Model.test_on_batch`.
            **kwargs: as in `keras.Model.test_on_batch`.

        Returns:
            As `keras.Model.test_on_batch`.

        Raises:
            ValueError: if the images have another shape, type or range.
        """
        x = self.inputs_for(pixels=self._pixels).batch(x)
        return super().test_on_batch(x, None, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Returns what calling the model on a batch does.

        Args:
            x: as in `train_on_batch`.

        Returns:
            As `keras.Model.predict_on_batch`.

        Raises:
            ValueError: if the images have another shape, type or range.
        """
        x = self.inputs_for(pixels=self._pixels).batch(x)
        return super().predict_on_batch(x)

    def _size_check(self, trains: bool = False) -> Callable[[int], None]:
        """Returns a check of a batch of this process, for any thread.

        Devices are counted now: TensorFlow's threads that read don't see them.
        """
        processes = process()[1]
        devices = max(device_count() // processes, 1)

        def check(size: int) -> None:
            if trains:
                self.check_batch(size * processes)
                self.batch_size = max(self.batch_size or 0, size * processes)
            if size % devices:
                raise ValueError(
                    f"A batch of {size} images (maybe the last one) can't be "
                    f"shared out to {devices} devices. Choose a `batch_size` "
                    "that leaves a multiple of it, or drop it."
                )

        return check


def bound(method: Callable, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Returns arguments by their names, wherever Keras has them."""
    return inspect.signature(method).bind(*args, **kwargs).arguments


def _check_known(inputs: Inputs, batch_size: int | None) -> None:
    """Checks the batches of data that `Inputs` doesn't see batch by batch."""
    x = inputs.data
    if inputs.check_size and (_is_array(x) or isinstance(x, ImageBatches)):
        for size in batch_sizes(x, batch_size):
            inputs.check_size(size)


def _without_labels(given: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the labels of arrays; data sets must not come with any."""
    is_array = _is_array(given["x"])
    return {k: v for k, v in given.items() if k != "y" or not is_array}


def _is_array(x: Any) -> bool:
    return isinstance(x, Mapping) or hasattr(x, "shape")
