"""VISReg: LeJEPA with a term each for the projections' scale and shape."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl.distributed import gather
from kerassl.losses import visreg
from kerassl.methods.regularization.lejepa import LeJEPA


@keras.saving.register_keras_serializable(package="kerassl")
class VISReg(LeJEPA):
    """Variance, invariance and sketching regularization.

    As in LeJEPA, the projections of any number of views are drawn to an image's
    mean, and over the batch each view's projections have to look like samples
    of a standard normal distribution. In place of one test there are three
    terms (`kerassl.losses.visreg`): the mean is drawn to 0, the standard
    deviation to 1, and the sorted projections along random directions to the
    normal distribution's quantiles. Unlike the test's, the scale's gradient
    doesn't vanish when the projections collapse.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone.
        projection_dim: int. The width of the projections.
        hidden_dim: int. The width of the projector's two hidden layers.
        num_directions: int > 0. The number of random directions in a step.
        regularization_weight: float in (0, 1), the share of the three terms in
            the loss. The paper has 0.9 for ImageNet, and 0.6 for small data.
        augmenter: as in `LeJEPA`.
        seed: int or `None`, for the directions.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, there are fewer than two
            views, or the encoder can't take the small ones.

    Metrics: `invariance`, `center`, `scale` and `shape`, the unweighted terms.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.VISReg(encoder, regularization_weight=0.6)
    model.compile(kerassl.optimizers.AdamW(9e-4, weight_decay=5e-4))
    model.fit(images, batch_size=256, epochs=200)
    ```

    Deviations: written from the paper's formulas. The projector has ReLU in
    place of GELU. All views pass it as one batch, with common batch statistics.
    On several devices the terms take the samples of all of them.

    Reference:
        - [Wu et al., 2026](https://arxiv.org/abs/2606.02572)
    """

    metric_names: tuple[str, ...] = (
        "invariance",
        "center",
        "scale",
        "shape",
    )
    collapse_advice = (
        "Try a larger `regularization_weight` (0.9), a lower learning rate, or "
        "a longer warmup."
    )

    def __init__(
        self,
        encoder: Any,
        projection_dim: int = 256,
        hidden_dim: int = 2048,
        num_directions: int = 2048,
        regularization_weight: float = 0.9,
        augmenter: keras.layers.Layer | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            encoder,
            projection_dim,
            hidden_dim,
            num_directions,
            regularization_weight,
            augmenter,
            seed,
            **kwargs,
        )

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares the projections of the global batch with a Gaussian."""
        return visreg(
            outputs["projections"],
            outputs["directions"],
            self.num_large_views,
            self.regularization_weight,
            gather(outputs["projections"]),
        )

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns the regularization of projections that are all 0.

        Their scale is off by 1, and their shape by the quantiles' own variance.
        """
        if batch_size is None:
            return None
        shares = np.arange(1, batch_size + 1) / (batch_size + 1)
        quantiles = 2**0.5 * ops.convert_to_numpy(ops.erfinv(2 * shares - 1))
        return float(
            self.regularization_weight
            * (0.9998 + np.mean(quantiles.astype("float64") ** 2))
        )
