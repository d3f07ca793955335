"""A Keras model that trains on images without labels."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerassl.data import ImageBatches, ImageData
from kerassl.distributed import (
    batch_parts,
    process,
    share_accumulated,
    share_weights,
)
from kerassl.execution import LentModel
from kerassl.layers.saved_positions import keep_positions
from kerassl.training.forms import any_array, batch_sizes, is_arrays
from kerassl.training.inputs import Inputs
from kerassl.training.lockstep import check_lockstep
from kerassl.training.monitors import with_monitors
from kerassl.training.pixels import PixelWatch
from kerassl.training.random_state import load_seeds, save_seeds
from kerassl.training.rematerialization import check_rematerialized
from kerassl.training.step import (
    build_optimizer,
    follow_frozen,
    train_step,
    unshared,
    weights_kept,
)
from kerassl.training.uploads import rows_ahead


class ImageModel(LentModel):
    """Passes images to Keras's training loop, and labels only if needed.

    All methods that read data do so through `Inputs`: `fit` with its
    `validation_data`, `evaluate`, `predict`, and their `..._on_batch` variants.
    Training steps are Keras's own, followed by the subclass's `after_update`.
    Files also hold the state of seeds.

    A subclass defines which data it accepts (`inputs_for`), and may refuse
    batches that it can't train on (`check_batch`).

    Args:
        **kwargs: the arguments of `keras.Model`.
    """

    #: The scalars besides `"loss"` that the model logs.
    metric_names: tuple[str, ...] = ()
    #: The smallest batch that the model can train on.
    min_batch: int = 1
    #: Whether the objective needs the images' labels, integers `(N,)`.
    needs_labels: bool = False

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        #: The global batch size of the last `fit`, or `None` if unknown.
        self.batch_size: int | None = None
        # Shared by `train_on_batch` and its variants.
        self._pixels = PixelWatch()
        self._validation: Inputs | None = None

    def inputs_for(self, **kwargs: Any) -> Inputs:
        """Returns the reader for the data of one call.

        Args:
            **kwargs: the arguments of `Inputs` that the model doesn't set.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks `inputs_for`.")

    def check_batch(self, size: int) -> None:
        """Refuses a batch that the model can't train on.

        Args:
            size: int, the number of images, of all processes.

        Raises:
            ValueError: with advice.
        """
        if size < self.min_batch:
            raise ValueError(
                f"{type(self).__name__} needs several images, to compare or "
                "for batch normalization, and can't train on a batch of "
                f"{size} (maybe the last one). Choose a `batch_size` that "
                "leaves no single image, or drop it."
            )

    def compile(self, optimizer: Any = "rmsprop", **kwargs: Any) -> None:
        """Configures the model for training, as `keras.Model.compile` does.

        Args:
            optimizer: the name of an optimizer, or an instance.
            **kwargs: the other arguments of `keras.Model.compile`, except
                `loss` and the metrics: the method brings its own.

        Raises:
            ValueError: if a loss or metrics are given, or a `keras.RematScope`
                covers layers that it can't.
        """
        given = [
            name
            for name in ("loss", "loss_weights", "metrics", "weighted_metrics")
            if kwargs.get(name) is not None
        ]
        if given:
            raise ValueError(
                f"{type(self).__name__} brings its own loss and metrics. Leave "
                f"out {', '.join(given)}; to measure with labels, use "
                "`kerassl.callbacks.KNNMonitor`."
            )
        check_rematerialized(self)
        super().compile(optimizer=optimizer, **kwargs)
        self._compiles_by_default = kwargs.get("jit_compile", "auto") == "auto"
        self._scales_loss = kwargs.get("auto_scale_loss", True)
        follow_frozen(self)

    def keep_frozen(self) -> None:
        """Freezes again what must not learn; by default nothing.

        It is called before training, since thawing a model thaws all in it.
        """

    def get_compile_config(self) -> dict:
        """Returns the arguments of `compile`, for a file."""
        config = super().get_compile_config()
        if config:
            config["auto_scale_loss"] = self._scales_loss
            if self._compiles_by_default:
                # Keras has what "auto" is on this backend.
                config["jit_compile"] = "auto"
        return config

    def compile_from_config(self, config: dict) -> None:
        """Compiles with a saved optimizer; Keras calls it on loading."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        build_optimizer(self)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains on images, as `keras.Model.fit` does.

        Labels are ignored, unless the method needs them (`needs_labels`), and
        so is what follows them in a batch.

        Args:
            x: the data; see the class. The result of `kerassl.data.load`, or
                its images, is reshuffled each epoch, in the same order in
                every `fit`.
            *args: as in `keras.Model.fit`.
            **kwargs: as in `keras.Model.fit`. `validation_data` may be
                anything that `x` may be.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: if images have the wrong shape, type or range, labels
                are needed and missing, weights of images or classes are given,
                or a batch is too small. It is raised before the step that would
                use them, and before the first step where that is known.
        """
        given = _bound(super().fit, x, *args, **kwargs)
        self._refuse_weights(given)
        follow_frozen(self)
        given["callbacks"] = with_monitors(
            given.get("callbacks"), self.metric_names
        )
        batch_size = given.get("batch_size")
        check_size = self._size_check(trains=True)
        reads: dict = dict(in_step=True, needs_labels=self.needs_labels)
        training = self.inputs_for(check_size=check_size, **reads)
        shuffle = given.get("shuffle", True)
        given["x"] = training.read(x, batch_size, shuffle, given.get("y"))
        if isinstance(x, ImageData) or hasattr(x, "read"):
            if hasattr(x, "read"):
                given.pop("y", None)  # It is with the images now.
            # `ImageBatches` shuffles images; Keras would shuffle batches.
            x, given["shuffle"] = given["x"], False
        elif not (is_arrays(x) or isinstance(x, keras.utils.PyDataset)):
            # Keras would warn that it can't shuffle, though nobody asked.
            given.setdefault("shuffle", False)
        self.batch_size = None
        split = given.get("validation_split", 0.0)
        if given.get("validation_data") is not None:
            split = 0.0  # Keras ignores it then.
        check_lockstep(x, batch_size, split, given.get("steps_per_epoch"))
        for size in batch_sizes(x, batch_size, split):
            check_size(size)
        validation = self.inputs_for(check_size=self._size_check(), **reads)
        size = int(given.get("validation_batch_size") or batch_size or 32)
        steps = given.get("validation_steps")
        if given.get("validation_data") is not None:
            found = keras.utils.unpack_x_y_sample_weight(
                given["validation_data"]
            )
            self._refuse_weights({"validation_data's sample_weight": found[2]})
            validation.read(found[0], size, labels=found[1])
            _check_known(validation.data, validation, size, steps)
            if is_arrays(validation.data):
                _copy_ahead(validation, size)
            given["validation_data"] = (validation.data, validation.labels)
        elif split and is_arrays(x):
            count = len(any_array(x))
            # Stands for the rows that Keras holds out.
            held = np.empty(count - math.floor(count * (1 - split)))
            _check_known(held, validation, size, steps)
        share_weights(self)
        # Before `weights_kept` notes what is there.
        self.keep_frozen()
        build_optimizer(self)
        self._validation = validation
        try:
            with (
                training.named_errors(),
                validation.named_errors(),
                weights_kept(self) as note,
            ):
                if not isinstance(
                    given["callbacks"], keras.callbacks.CallbackList
                ):
                    # The last one: others may change weights there.
                    given["callbacks"] = [
                        *keras.tree.flatten(given["callbacks"] or []),
                        keras.callbacks.LambdaCallback(
                            on_epoch_begin=lambda epoch, logs: note()
                        ),
                    ]
                history = super().fit(**_for_keras(training, given, True))
            share_accumulated(self)
            keep_positions(self)
            return history
        finally:
            self._validation = None
            unshared(self)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Computes the loss and the metrics, as `keras.Model.evaluate` does.

        Args:
            x: the data, as for `fit`.
            *args: as in `keras.Model.evaluate`.
            **kwargs: as in `keras.Model.evaluate`.

        Returns:
            As `keras.Model.evaluate`.

        Raises:
            ValueError: if images have the wrong shape, type or range.
        """
        if self._validation is not None and x is self._validation.data:
            # `fit` calls this with validation data that it has read already.
            return super().evaluate(x, *args, **kwargs)
        given = _bound(super().evaluate, x, *args, **kwargs)
        self._refuse_weights(given)
        options = given.pop("kwargs", {})
        inputs = self.inputs_for(
            check_size=self._size_check(),
            in_step=True,
            needs_labels=self.needs_labels,
        )
        size = given.get("batch_size")
        given["x"] = inputs.read(x, size, labels=given.get("y"))
        if hasattr(x, "read"):
            given.pop("y", None)
        _check_known(inputs.data, inputs, size, given.get("steps"))
        with inputs.named_errors(), weights_kept(self):
            return super().evaluate(**_for_keras(inputs, given), **options)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the model's outputs, as `keras.Model.predict` does.

        They are what the objective needs, such as projections, from batch to
        batch: also what has no row per image, such as a queue. For features of
        images take `embed`.

        Args:
            x: the data, as for `fit`.
            *args: as in `keras.Model.predict`.
            **kwargs: as in `keras.Model.predict`.

        Returns:
            NumPy arrays.

        Raises:
            ValueError: if images have the wrong shape, type or range.
        """
        given = _bound(super().predict, x, *args, **kwargs)
        inputs = self.inputs_for()
        given["x"] = inputs.read(x, given.get("batch_size"))
        with inputs.named_errors(), weights_kept(self):
            return super().predict(**_for_keras(inputs, given))

    def train_on_batch(
        self, x: Any, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Takes a step, as `keras.Model.train_on_batch` does.

        Args:
            x: images or a dict, like a batch of the data of `fit`.
            y: labels, which are ignored unless the method needs them.
            *args: as in `keras.Model.train_on_batch`.
            **kwargs: as in `keras.Model.train_on_batch`.

        Returns:
            As `keras.Model.train_on_batch`.

        Raises:
            ValueError: if the images have the wrong shape, type or range, or
                are too few, or labels are needed and missing.
        """
        inputs = self.inputs_for(
            check_size=self._size_check(trains=True),
            pixels=self._pixels,
            needs_labels=self.needs_labels,
        )
        given = _bound(super().train_on_batch, x, y, *args, **kwargs)
        self._refuse_weights(given)
        x, y = (*inputs.batch(x, y), None)[:2]
        return super().train_on_batch(**given | {"x": x, "y": y})

    def test_on_batch(
        self, x: Any, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Computes a batch's loss, as `keras.Model.test_on_batch` does.

        Args:
            x: as in `train_on_batch`.
            y: as in `train_on_batch`.
            *args: as in `keras.Model.test_on_batch`.
            **kwargs: as in `keras.Model.test_on_batch`.

        Returns:
            As `keras.Model.test_on_batch`.

        Raises:
            ValueError: if the images have the wrong shape, type or range, or
                labels are needed and missing.
        """
        inputs = self.inputs_for(
            pixels=self._pixels, needs_labels=self.needs_labels
        )
        given = _bound(super().test_on_batch, x, y, *args, **kwargs)
        self._refuse_weights(given)
        x, y = (*inputs.batch(x, y), None)[:2]
        return super().test_on_batch(**given | {"x": x, "y": y})

    def predict_on_batch(self, x: Any) -> Any:
        """Returns the model's outputs for a batch.

        Args:
            x: as in `train_on_batch`.

        Returns:
            As `keras.Model.predict_on_batch`.

        Raises:
            ValueError: if the images have the wrong shape, type or range.
        """
        (x,) = self.inputs_for(pixels=self._pixels).batch(x)
        return super().predict_on_batch(x)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` and `train_on_batch` call per step."""
        self.keep_frozen()
        build_optimizer(self)
        super().make_train_function(force)

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """Runs Keras's step, then `after_update`."""
        return train_step(self, super().train_step, *args, **kwargs)

    def save_own_variables(self, store: Any) -> None:
        """Saves the model's own weights and the state of all its seeds."""
        keep_positions(self)
        super().save_own_variables(store)
        save_seeds(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        super().load_own_variables(load_seeds(self, store))

    def _refuse_weights(self, given: dict[str, Any]) -> None:
        """Refuses weights of images or classes, which would have no effect."""
        names = [
            name
            for name, value in given.items()
            if value is not None and name.endswith("_weight")
        ]
        if names:
            raise ValueError(
                f"{type(self).__name__} weights all images alike. Leave out "
                f"{', '.join(names)}."
            )

    def _size_check(self, trains: bool = False) -> Callable[[int], None]:
        """Returns a check for the size of a batch in this process.

        Devices are counted here, since TensorFlow's reader threads don't see
        the strategy.
        """
        processes = process()[1]
        devices = max(batch_parts() // processes, 1)

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


def _bound(method: Callable, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Returns the arguments of a call by name."""
    return inspect.signature(method).bind(*args, **kwargs).arguments


def _check_known(
    x: Any, inputs: Inputs, batch_size: int | None, steps: int | None
) -> None:
    """Checks batch sizes of data that `Inputs` doesn't read batch by batch."""
    check_lockstep(x, batch_size, steps=steps)
    if inputs.check_size and (is_arrays(x) or isinstance(x, ImageBatches)):
        for size in batch_sizes(x, batch_size):
            inputs.check_size(size)


def _for_keras(
    inputs: Inputs, given: dict[str, Any], trains: bool = False
) -> dict[str, Any]:
    """Gives arrays their labels, if needed, and copies both to a GPU ahead.

    Keras refuses labels with data sets.
    """
    if not is_arrays(given["x"]):
        return given
    given = {name: value for name, value in given.items() if name != "y"}
    shuffle = given.get("shuffle", trains)
    stay = given.get("validation_split") or shuffle == "batch"
    if not stay and _copy_ahead(inputs, given.get("batch_size") or 32, shuffle):
        given |= {"x": inputs.data, **({"shuffle": False} if trains else {})}
    if inputs.labels is not None:
        given["y"] = inputs.labels
    return given


def _copy_ahead(inputs: Inputs, batch_size: int, shuffle: bool = False) -> bool:
    """Makes arrays a loader that copies to a GPU, if there is one."""
    x = inputs.data
    if inputs.labels is not None:
        x = (x, inputs.labels)
    ahead = rows_ahead(x, batch_size, shuffle)
    if ahead is x:
        return False
    inputs.data, inputs.labels = ahead, None
    return True
