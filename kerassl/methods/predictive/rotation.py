"""Rotation: predict by which angle an image was rotated."""

import math
from typing import Any

import keras
from keras import ops

from kerassl import augmentation
from kerassl.losses import classification
from kerassl.methods.base import SelfSupervisedModel

TURNS = 4


@keras.saving.register_keras_serializable(package="kerassl")
class Rotation(SelfSupervisedModel):
    """Predicting image rotations.

    Each image, cropped and flipped, is rotated by 0, 90, 180 and 270 degrees,
    and all four are in the batch. A linear classifier on the features predicts
    the angle.

    The features that transfer best are often not those of the last layer: see
    `kerassl.encoders.stages`.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone, for square images.
        augmenter: a `ViewAugmenter` of one view. By default
            `kerassl.augmentation.crop_flip` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the augmenter doesn't make exactly one view.

    Metrics: `rotation_accuracy`, the fraction of angles predicted correctly.
    Chance is 0.25, with a loss of ln(4) = 1.386.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.Rotation(encoder)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True))
    model.fit(images, batch_size=128, epochs=200)
    ```

    Deviations from gidariss/FeatureLearningRotNet: on CIFAR-10, random crops
    are resized, where the authors pad images and crop at full size. On
    ImageNet, their crops cover 0.08 to 1 of the area, where the default here is
    0.2 to 1, and are resized with a bilinear filter, here with a bicubic one.

    Reference:
        - [Gidaris et al., 2018](https://arxiv.org/abs/1803.07728)
    """

    metric_names = ("rotation_accuracy",)
    num_views = 1
    min_batch = 1
    default_views = staticmethod(augmentation.crop_flip)

    def __init__(
        self,
        encoder: Any,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        self.classifier = self.head(
            "classifier",
            self.encoder.output_shape[-1],
            (TURNS,),
            output_bias=True,
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Classifies the four rotations of each image, in one pass."""
        (name,) = self.augmenter.view_names
        turned = ops.concatenate(turns(views[name]))
        features = self.encoder_of(name)(turned, training=training)
        logits = self.classifier(features, training=training)
        return {"logits": ops.reshape(logits, (TURNS, -1, TURNS))}

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Averages the cross-entropy over all rotations of all images."""
        found = classification(outputs["logits"], ops.eye(TURNS)[:, None, :])
        return {"loss": found["loss"], "rotation_accuracy": found["accuracy"]}

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns ln(4), the loss of a guess."""
        return math.log(TURNS)


def turns(images: Any) -> list[Any]:
    """Returns square images rotated by 0, 90, 180 and 270 degrees.

    Rotations are counterclockwise and exact: axes are swapped and reversed.

    Args:
        images: tensor `(N, S, S, C)`.

    Returns:
        A list of four tensors of that shape.
    """
    swapped = ops.transpose(images, (0, 2, 1, 3))
    return [
        images,
        ops.flip(swapped, axis=1),
        ops.flip(images, axis=(1, 2)),
        ops.flip(swapped, axis=2),
    ]
