"""Distillation: the encoder learns what a frozen, trained one sees."""

from pathlib import Path
from typing import Any

import keras
from keras import ops

from kerassl import augmentation, encoders
from kerassl.augmentation.geometry import resize_matrix
from kerassl.distributed import gather
from kerassl.layers import FeatureQueue
from kerassl.losses import similarity_distillation, unit_vectors
from kerassl.methods.base import SelfSupervisedModel
from kerassl.networks import set_trainable
from kerassl.registry import linked


def one_view(size: int) -> augmentation.ViewAugmenter:
    """Returns one of SimCLR's views, of larger crops."""
    return augmentation.simclr(size, crop_area=(0.14, 1.0), num_views=1)


def _resizing(extent: int, size: int) -> Any:
    """Returns the matrix that resizes a row of pixels, `(size, extent)`."""
    start, length = ops.zeros((1,)), extent * ops.ones((1,))
    return resize_matrix(ops, start, length, None, size, extent, "bilinear")[0]


@keras.saving.register_keras_serializable(package="kerassl")
class Distillation(SelfSupervisedModel):
    """Distillation of similarities from a frozen teacher.

    Student and teacher see the same view. A dense layer maps the student's
    features to the teacher's width. The loss compares how similar both find the
    image to others, the teacher's features in a queue
    (`kerassl.losses.similarity_distillation`).

    The student learns from the data that the teacher was trained on, too: don't
    report it beside methods that saw only these images.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone: the student.
        teacher: the same, trained, or what `kerassl.load_encoder` takes, such
            as the name of a preset or a folder. It is frozen, and runs in
            inference mode, with its own normalization and at its own image
            size, to which views are resized. It is saved with the model, so
            that a run can go on without its file.
        temperature: float > 0.
        queue_size: int. The number of the teacher's features to compare with,
            at least the (global) batch. The batch's own are among them.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.simclr` at the encoder's image size, with
            crops of 0.14 to 1 of the area.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, the teacher takes images
            of another number of channels or is the encoder itself, or the
            augmenter makes other than one view.
        FileNotFoundError: if there is no such teacher.

    Metrics: `teacher_similarity`, the mean cosine of the student's predictions
    and the teacher's features.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_nano", (32, 32, 3))
    model = kerassl.Distillation(
        encoder, teacher="simclr_resnet_nano_cifar10_fast_32px"
    )
    model.compile(kerassl.optimizers.AdamW(2e-3))
    model.fit(images, batch_size=128, epochs=10)
    ```

    Deviations from SEED's code: student and teacher have one temperature, as in
    LightlyTrain, where the code has 0.2 and 0.0001; the queue starts empty
    instead of with random vectors, and empty slots don't count; the student's
    head is one dense layer, as in LightlyTrain, whose mixup is left out.

    Reference:
        - [Fang et al., 2021, SEED](https://arxiv.org/abs/2101.04731)
    """

    metric_names = ("teacher_similarity",)
    collapse_advice = (
        "Try a lower learning rate, and check with `kerassl.evaluation.knn` "
        "that the teacher's own features are good on these images."
    )
    num_views = 1
    default_views = staticmethod(one_view)

    def __init__(
        self,
        encoder: Any,
        teacher: Any,
        temperature: float = 0.07,
        queue_size: int = 8192,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if temperature <= 0:
            raise ValueError(
                f"`temperature` must be above 0. Received: {temperature}"
            )
        super().__init__(encoder, augmenter, **kwargs)
        if isinstance(teacher, (str, Path)):
            teacher = linked("load_encoder")(teacher)
        self.teacher = encoders.as_encoder(teacher)
        if {id(w) for w in self.teacher.weights} & {
            id(w) for w in self.encoder.weights
        }:
            raise ValueError(
                "The teacher shares weights with the encoder that learns from "
                "it. Load or build it a second time."
            )
        channels = self.encoder.input_shape[-1]
        if self.teacher.input_shape[-1] != channels:
            raise ValueError(
                f"The encoder takes images of {channels} channels, and the "
                f"teacher of {self.teacher.input_shape[-1]}."
            )
        self.keep_frozen()
        self.temperature = temperature
        self.queue_size = queue_size
        width = self.teacher.output_shape[-1]
        self.projector = self.head(
            "projector",
            self.encoder.output_shape[-1],
            (width,),
            output_bias=True,
        )
        self.queue = FeatureQueue(queue_size, width, start="zeros")

    def keep_frozen(self) -> None:
        """Freezes the teacher."""
        set_trainable(self.teacher, False)

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Encodes the view with both networks, and updates the queue."""
        (name,) = self.augmenter.view_names
        view = views[name]
        features = self.encoder_of(name)(view, training=training)
        target = self.teacher(self._for_teacher(view), training=False)
        target = ops.stop_gradient(unit_vectors(target))
        own = gather(target)
        queue = ops.concatenate([own, self.queue.snapshot()])
        if training:
            self.queue.enqueue(own)
        return {
            "prediction": self.projector(features, training=training),
            "target": target,
            "queue": queue[: self.queue_size],
        }

    def _for_teacher(self, view: Any) -> Any:
        wanted = self.teacher.input_shape[1:3]
        if None not in wanted and tuple(view.shape[1:3]) != tuple(wanted):
            # As products: XLA has no antialiased resizing on TensorFlow.
            rows, columns = map(_resizing, view.shape[1:3], wanted)
            rows, columns = (ops.cast(m, view.dtype) for m in (rows, columns))
            view = ops.einsum("yi,nijc->nyjc", rows, view)
            view = ops.einsum("xj,nyjc->nyxc", columns, view)
        return ops.cast(view, self.teacher.compute_dtype)

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares the similarities to the queue with the teacher's."""
        return similarity_distillation(
            outputs["prediction"],
            outputs["target"],
            outputs["queue"],
            self.temperature,
        )
