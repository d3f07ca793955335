"""Features of images, in inference mode."""

from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

from kerassl.data import check_images
from kerassl.encoders.feature_map import feature_map
from kerassl.encoders.stages import layer_features
from kerassl.execution import lent
from kerassl.training.inputs import Inputs
from kerassl.training.step import weights_kept


def embed(
    encoder: keras.Model,
    images: Any,
    layer: str | None = None,
    batch_size: int = 256,
    verbose: int | str = 0,
    *,
    patches: bool = False,
) -> np.ndarray:
    """Returns the features of images, in inference mode.

    Args:
        encoder: `keras.Model` from images to features.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255], of the
            encoder's size; or the result of `kerassl.data.load`; or any data
            set that Keras takes, of images or of dicts with the images under
            `"image"`. Labels are ignored.
        layer: str, the name of a stage or layer whose features to return; see
            `stages` and `stage_features`. `"stages"` concatenates the features
            of all stages. By default the encoder's output.
        batch_size: int, for arrays.
        verbose: as in `keras.Model.predict`.
        patches: bool. Whether to return the features of the patches of each
            image, or of the positions of a convolutional network's last map;
            see `feature_map`. Not together with `layer`.

    Returns:
        A float32 NumPy array `(N, D)`, or `(N, h, w, D)` of patches.

    Raises:
        ValueError: if the shape, dtype or range of the images is wrong, or
            there is no such layer, or no map of patches.

    Example:
    ```python
    features = kerassl.encoders.embed(encoder, images, layer="stage2")
    maps = kerassl.encoders.embed(encoder, images, patches=True)
    ```
    """
    model = encoder
    if layer is not None or patches:
        model = _kept(encoder, layer, patches)
    inputs = Inputs(encoder.input_shape[1:])
    images = inputs.read(images, batch_size)
    with inputs.named_errors(), weights_kept(model), lent(model):
        features = model.predict(images, batch_size=batch_size, verbose=verbose)
    return np.asarray(features, dtype="float32")


def features_model(
    encoder: keras.Model, layer: str | None = None, patches: bool = False
) -> keras.Model:
    """Returns the model from images to the features that `embed` returns.

    Args:
        encoder: as in `embed`.
        layer: as in `embed`.
        patches: as in `embed`.

    Returns:
        `keras.Model` from images to these features.

    Raises:
        ValueError: as in `embed`.
    """
    if patches and layer is not None:
        raise ValueError(
            "Patches are those of the encoder's last map: give `layer` or "
            f"`patches`, but not both. Received: layer={layer!r}"
        )
    if patches:
        return feature_map(encoder)
    return encoder if layer is None else layer_features(encoder, layer)


# Models are kept, since each new one is compiled again, and adds a node to each
# of the encoder's layers.
_MODELS: "WeakKeyDictionary[keras.Model, dict[tuple, keras.Model]]" = (
    WeakKeyDictionary()
)


def _kept(encoder: keras.Model, *asked: Any) -> keras.Model:
    models = _MODELS.setdefault(encoder, {})
    if asked not in models:
        models[asked] = features_model(encoder, *asked)
    return models[asked]


def checked_images(encoder: keras.Model, images: Any) -> np.ndarray:
    """Checks images for an encoder, and returns them as float32.

    Args:
        encoder: `keras.Model` with a known input shape.
        images: array `(N, H, W, C)`, uint8 or float in [0, 255].

    Returns:
        A float32 NumPy array of the same shape.

    Raises:
        ValueError: if the shape, dtype or range of the images is wrong.
    """
    check_images(images)
    shape = encoder.input_shape[1:]
    if tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"The encoder takes images of shape {shape}. "
            f"Received: {tuple(images.shape)}"
        )
    return keras.ops.convert_to_numpy(images).astype("float32")


def image_size(encoder: keras.Model) -> int:
    """Returns the height (and width) of the images that an encoder takes.

    Args:
        encoder: `keras.Model` with a known, square input.

    Returns:
        An int, in pixels.

    Raises:
        ValueError: if the input size is not known or not square.
    """
    height, width = encoder.input_shape[1:3]
    if height is None or height != width:
        raise ValueError(
            f"The encoder takes images of shape {encoder.input_shape[1:]}. "
            "Views and training crops are square and of a known size: build "
            "the encoder with a square `image_shape`. (A method also takes an "
            "`augmenter` of yours.)"
        )
    return height
