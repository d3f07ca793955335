"""The loss of MAE and SimMIM: the error of hidden patches."""

from typing import Any

from keras import ops

from kerassl.losses.numbers import at_least


def masked_reconstruction(
    predictions: Any, targets: Any, mask: Any, absolute: bool = False
) -> dict[str, Any]:
    """Computes the mean squared, or absolute, error of the hidden patches.

    Args:
        predictions: tensor that broadcasts to `(N, L, P)`: L patches of P
            pixel values.
        targets: tensor `(N, L, P)`.
        mask: tensor `(N, L)`, 1 for hidden patches and 0 for visible ones.
        absolute: bool. `False` is MAE's squared error, `True` SimMIM's absolute
            one.

    Returns:
        A dict with `"loss"`, a float32 scalar: 0 if no patch is hidden.

    Reference:
        - [He et al., 2021](https://arxiv.org/abs/2111.06377)
        - facebookresearch/mae, `models_mae.py`
        - [Xie et al., 2021, SimMIM](https://arxiv.org/abs/2111.09886)
    """
    predictions = ops.cast(predictions, "float32")
    targets = ops.cast(targets, "float32")
    mask = ops.cast(mask, "float32")
    errors = predictions - targets
    errors = ops.abs(errors) if absolute else ops.square(errors)
    errors = ops.mean(errors, axis=-1)
    return {"loss": ops.sum(errors * mask) / at_least(ops.sum(mask), 1.0)}


def normalize_patches(patches: Any) -> tuple[Any, Any, Any]:
    """Normalizes each patch with its own mean and variance.

    The variance is the unbiased one, divided by P - 1, as in the authors' code.

    Args:
        patches: tensor `(N, L, P)`, P >= 2.

    Returns:
        Three float32 tensors: the normalized patches `(N, L, P)`, their means
        and their standard deviations, both `(N, L, 1)`.
    """
    patches = ops.cast(patches, "float32")
    mean = ops.mean(patches, axis=-1, keepdims=True)
    centered = patches - mean
    degrees = patches.shape[-1] - 1
    variance = ops.sum(ops.square(centered), axis=-1, keepdims=True) / degrees
    std = ops.sqrt(variance + 1e-6)
    return centered / std, mean, std


def visible_color(patches: Any, mask: Any, channels: int) -> Any:
    """Returns patches with the mean color of an image's visible patches.

    Args:
        patches: tensor `(N, L, P)`, channels last within a patch.
        mask: tensor `(N, L)`, 1 for hidden patches; at least one is visible.
        channels: int, a divisor of P.

    Returns:
        A float32 tensor `(N, 1, P)`.
    """
    patches = ops.cast(patches, "float32")
    visible = 1.0 - ops.cast(mask, "float32")
    pixels = patches.shape[-1] // channels
    means = ops.sum(patches * visible[..., None], axis=1) / ops.sum(
        visible, axis=1, keepdims=True
    )
    color = ops.mean(ops.reshape(means, (-1, pixels, channels)), axis=1)
    return ops.tile(color[:, None, :], (1, 1, pixels))
