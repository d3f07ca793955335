"""Builds encoders by name, and makes encoders of other models."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kerassl.choices import check_choice
from kerassl.encoders.kerashub import (
    RESNETS,
    VITS,
    resnet_backbone,
    vit_backbone,
)
from kerassl.encoders.resnet import small_resnet

# The mean and standard deviation of ImageNet's channels, of [0, 1] pixels.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SMALL_RESNETS: dict[str, dict] = {
    "resnet_nano": dict(widths=(32, 64, 128), blocks=(1, 1, 1), stem_strides=2),
    "resnet_18_small": dict(widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2)),
    "resnet_50_small": dict(
        widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), bottleneck=True
    ),
}


def names() -> list[str]:
    """Returns the names that `build` knows."""
    return [*SMALL_RESNETS, *RESNETS, *VITS]


def build(
    name: str,
    image_shape: Sequence[int],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    patch_size: int | None = None,
) -> keras.Model:
    """Builds an untrained encoder by name.

    The encoder takes images `(N, H, W, C)`, uint8 or float in [0, 255],
    normalises them itself, and returns pooled features `(N, D)`: the average
    over the last feature map, or a ViT's class token.

    | name | features | parameters | made for |
    |---|---|---|---|
    | `resnet_nano` | 128 | 0.3 M | CPUs and tests, 28 to 64 px |
    | `resnet_18_small` | 512 | 11.2 M | the field's CIFAR encoder |
    | `resnet_50_small` | 2048 | 23.5 M | the same, larger |
    | `resnet_18` | 512 | 11.2 M | 64 px and more |
    | `resnet_50` | 2048 | 23.5 M | the papers' ImageNet encoder |
    | `vit_nano` | 96 | 0.7 M | CPUs and tests |
    | `vit_tiny` | 192 | 5.5 M | |
    | `vit_small` | 384 | 21.7 M | |
    | `vit_base` | 768 | 85.8 M | MAE's and MoCo v3's |

    The small ResNets are graphs of core Keras layers with a 3x3 stem. The
    others are stock KerasHub backbones, to be had from the encoder as
    `encoder.get_layer("backbone")`.

    Args:
        name: str, one of the table's.
        image_shape: `(height, width, channels)`, 1 or 3 channels.
        mean: the mean of each channel, of pixels in [0, 1]. By default
            ImageNet's, or 0.5 for one channel.
        std: the standard deviation likewise. By default ImageNet's, or 0.25.
        patch_size: int, for ViTs. By default 4 up to 48 px, 8 up to 112 px, and
            16 above.

    Returns:
        A Functional `keras.Model`.

    Raises:
        ValueError: if the name is unknown, with the nearest ones, or the shape
            doesn't fit.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    features = encoder.predict(images)          # (N, 512)
    ```
    """
    check_choice("encoder", name, names())
    shape = tuple(image_shape)
    if len(shape) != 3 or shape[-1] not in (1, 3) or None in shape:
        raise ValueError(
            "`image_shape` must be (height, width, channels) with 1 or 3 "
            f"channels. Received: {image_shape}"
        )
    if patch_size is not None and name not in VITS:
        raise ValueError(f"`patch_size` is for ViTs, and {name} is none.")
    inputs = keras.Input(shape, name="images")
    x = _normalization(shape[-1], mean, std)(inputs)
    if name in SMALL_RESNETS:
        features = small_resnet(x, **SMALL_RESNETS[name])
    elif name in RESNETS:
        # Open in size, so that `at_size` works.
        backbone = resnet_backbone(name, (None, None, shape[-1]))
        features = _pooled(backbone, x)
    else:
        features = _pooled(vit_backbone(name, shape, patch_size), x)
    return keras.Model(inputs, features, name=name)


def as_encoder(model: Any) -> keras.Model:
    """Makes an encoder of a model: one from images to features `(N, D)`.

    A model with an output of rank 2 is returned as it is. One with a feature
    map `(N, H, W, D)` gets average pooling. Of tokens `(N, T, D)` the class
    token is taken if the model has one (`use_class_token`, as in KerasHub),
    else the mean.

    Such a model has to normalise its images, which come as [0, 255], by itself;
    the encoders of `build` do.

    Args:
        model: `keras.Model` with one input `(N, H, W, C)` and one output, or a
            KerasHub or KerasCV backbone.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: if the model isn't built, or of another form.

    Example:
    ```python
    backbone = keras_hub.models.Backbone.from_preset("resnet_18_imagenet")
    encoder = kerassl.encoders.as_encoder(backbone)
    ```
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "An encoder is a `keras.Model` from images to features, or one of "
            f"the names {names()} given to `kerassl.encoders.build`. "
            f"Received: {model!r}"
        )
    try:
        inputs, outputs = model.input_shape, model.output_shape
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"The shapes of {model.name!r} are not known. Make it a Functional "
            "model, `keras.Model(inputs, outputs)`."
        ) from error
    if not isinstance(inputs, tuple) or len(inputs) != 4:
        raise ValueError(
            "An encoder takes one batch of images (N, H, W, C). "
            f"{model.name!r} takes {inputs}."
        )
    if not isinstance(outputs, tuple) or len(outputs) not in (2, 3, 4):
        raise ValueError(
            "An encoder returns features (N, D), a map (N, H, W, D) or tokens "
            f"(N, T, D). {model.name!r} returns {outputs}."
        )
    if len(outputs) == 2:
        return model
    images = keras.Input(inputs[1:], name="images")
    return keras.Model(images, _pooled(model, images), name=model.name)


def at_size(encoder: keras.Model, size: int) -> keras.Model:
    """Returns the same layers, with the same weights, for another image size.

    Multi-crop needs it: one encoder sees large and small views.

    Args:
        encoder: Functional `keras.Model` from images to features.
        size: int, height and width of the images.

    Returns:
        A `keras.Model` that shares all layers; the encoder itself if it takes
        that size.

    Raises:
        ValueError: if a layer is tied to one size, as a ViT's positions are.
    """
    height, width, channels = encoder.input_shape[1:]
    if height in (None, size) and width in (None, size):
        return encoder
    try:
        return keras.models.clone_model(
            encoder,
            input_tensors=keras.Input((size, size, channels), name="images"),
            clone_function=lambda layer: layer,
        )
    except ValueError as error:
        raise ValueError(
            f"The encoder {encoder.name!r} can't take images of "
            f"{size}x{size} beside {height}x{width}: {error} Take a ResNet, or "
            "views of one size."
        ) from error


def _pooled(model: keras.Model, images: Any) -> Any:
    return pooled(model(images), getattr(model, "use_class_token", False))


def pooled(
    x: Any, class_token: bool, name: str = "pool", dtype: Any = None
) -> Any:
    """Returns features of a map or tokens, as `as_encoder` says.

    Args:
        x: tensor `(N, H, W, D)`, `(N, T, D)` or `(N, D)`.
        class_token: bool. Whether the first token is one.
        name: str, of the layer that returns the features.
        dtype: of the layers; by default that of Keras's policy.

    Returns:
        A tensor `(N, D)`.
    """
    # Core layers alone, so that the encoder loads without kerassl.
    same: dict[str, Any] = dict(name=name, dtype=dtype)
    if len(x.shape) == 2:
        return layers.Identity(**same)(x)
    if len(x.shape) == 4:
        return layers.GlobalAveragePooling2D(**same)(x)
    if not class_token:
        return layers.GlobalAveragePooling1D(**same)(x)
    token = layers.Cropping1D(
        (0, x.shape[1] - 1), name=f"{name}_token", dtype=dtype
    )(x)
    return layers.Reshape((x.shape[-1],), **same)(token)


def _normalization(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> keras.layers.Layer:
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else (0.5,)
    if std is None:
        std = IMAGENET_STD if channels == 3 else (0.25,)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ValueError(
                f"`{name}` needs a number for each of the {channels} channels, "
                f"of pixels in [0, 1]. Received: {values}"
            )
    return layers.Rescaling(
        scale=[1 / (255 * s) for s in std],
        offset=[-m / s for m, s in zip(mean, std)],
        name="normalization",
    )
