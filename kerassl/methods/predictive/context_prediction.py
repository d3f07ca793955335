"""Context prediction: predict the position of a patch next to another."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation
from kerassl.losses import classification
from kerassl.methods.base import SelfSupervisedModel
from kerassl.methods.predictive.jigsaw import (
    TILES,
    encoder_of_tiles,
    features_of_tiles,
)

# The second patch relative to the first: (rows down, columns right).
POSITIONS = [
    (-1, -1),
    (-1, 0),
    (-1, 1),
    (0, -1),
    (0, 1),
    (1, -1),
    (1, 0),
    (1, 1),
]


def neighbors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns all ordered pairs of neighbors in a 3x3 grid.

    Returns:
        Three int arrays `(40,)`: the first tile, the second tile, and the index
        of its relative position in `POSITIONS`.
    """
    pairs = [
        (3 * row + column, 3 * (row + down) + column + right, position)
        for row in range(3)
        for column in range(3)
        for position, (down, right) in enumerate(POSITIONS)
        if 0 <= row + down < 3 and 0 <= column + right < 3
    ]
    first, second, position = np.array(pairs).T
    return first, second, position


@keras.saving.register_keras_serializable(package="kerassl")
class ContextPrediction(SelfSupervisedModel):
    """Predicting the relative position of two patches.

    A 3x3 grid of patches is cut out of each image, with gaps between them and a
    random shift of each. The encoder sees each patch separately. A classifier
    gets the features of two neighbors and predicts in which of eight directions
    the second is. All 40 ordered pairs of neighbors share the nine encoder
    passes.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone. It also has to take images of the size of the
            patches: ResNets do, and so do ViTs built for that size.
        projection_dim: int, the width of the projected features of a patch.
        hidden_dim: int, the width of the classifier's hidden layers.
        augmenter: a `TileAugmenter` with a grid of 3. By default
            `kerassl.augmentation.context_prediction` at the encoder's image
            size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if the augmenter doesn't make 3x3 patches, or the encoder
            can't take them.

    Metrics: `position_accuracy`, the fraction of pairs whose direction is
    predicted correctly. Chance is 0.125, with a loss of ln(8) = 2.079.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.ContextPrediction(encoder)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.fit(images, batch_size=256, epochs=100)
    ```

    Deviations from cdoersch/deepcontext: the loss is the mean over pairs, not
    their sum; any encoder instead of AlexNet's layers; the grid is 3x3 for
    every image, where larger images had larger grids. For those of the views,
    see `kerassl.augmentation.context_prediction`.

    Reference:
        - [Doersch et al., 2015](https://arxiv.org/abs/1505.05192)
    """

    metric_names = ("position_accuracy",)
    num_views = 1
    min_batch = 1
    default_views = staticmethod(augmentation.context_prediction)

    def __init__(
        self,
        encoder: Any,
        projection_dim: int = 1024,
        hidden_dim: int = 4096,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        self.projection_dim = projection_dim
        self.hidden_dim = hidden_dim
        self.patch_encoder = encoder_of_tiles(self)
        # Tensors, since NumPy arrays would be sent to the device in each step.
        first, second, position = neighbors()
        self.first = ops.convert_to_tensor(first, "int32")
        self.second = ops.convert_to_tensor(second, "int32")
        self.positions = ops.convert_to_tensor(
            np.eye(len(POSITIONS), dtype="float32")[position]
        )
        self.projector = self.head(
            "projector",
            self.encoder.output_shape[-1],
            (projection_dim,),
            output_bias=True,
        )
        self.classifier = self.head(
            "classifier",
            2 * projection_dim,
            (hidden_dim, hidden_dim, len(POSITIONS)),
            output_bias=True,
        )

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Projects patches, and classifies all pairs of neighbors."""
        features = features_of_tiles(
            self.patch_encoder, views["tiles"], training
        )
        features = ops.relu(self.projector(features, training=training))
        features = ops.reshape(features, (-1, TILES, self.projection_dim))
        pairs = ops.concatenate(
            [
                ops.take(features, self.first, axis=1),
                ops.take(features, self.second, axis=1),
            ],
            axis=-1,
        )
        pairs = ops.reshape(pairs, (-1, 2 * self.projection_dim))
        logits = self.classifier(pairs, training=training)
        shape = (-1, *self.positions.shape)
        return {"logits": ops.reshape(logits, shape)}

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Averages the cross-entropy over all pairs of all images."""
        found = classification(outputs["logits"], self.positions)
        return {"loss": found["loss"], "position_accuracy": found["accuracy"]}

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns ln(8), the loss of a guess."""
        return math.log(len(POSITIONS))
