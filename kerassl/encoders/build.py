"""Builds encoders by name."""

import numbers
from collections.abc import Iterable, Sequence

import keras

from kerassl.choices import check_choice
from kerassl.encoders.assembly import accepted, encoder_around
from kerassl.encoders.kerashub import (
    DINOV2S,
    RESNETS,
    VITS,
    dinov2_backbone,
    resnet_backbone,
    vit_backbone,
)
from kerassl.encoders.libraries import from_library
from kerassl.encoders.normalization import standardization
from kerassl.encoders.resnet import small_resnet
from kerassl.names import check_encoder_name, split_library
from kerassl.value_range import MAX_CHANNELS

SMALL_RESNETS: dict[str, dict] = {
    "resnet_nano": dict(widths=(32, 64, 128), blocks=(1, 1, 1), stem_strides=2),
    "resnet_18_small": dict(widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2)),
    "resnet_50_small": dict(
        widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), bottleneck=True
    ),
}


def names() -> list[str]:
    """Returns the names that `build` knows."""
    return [*SMALL_RESNETS, *RESNETS, *VITS, *DINOV2S]


def build(
    name: str,
    image_shape: Sequence[int],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    patch_size: int | None = None,
    pooling: str | None = None,
) -> keras.Model:
    """Builds an encoder by name.

    The encoder takes images `(N, H, W, C)`, uint8 or float in [0, 255],
    normalizes them, and returns features `(N, D)`: the average of the last
    feature map, or the class token of a ViT.

    All but `hub:PRESET` are untrained.

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
    | `dinov2_small` | 384 | 21.6 M | DINOv2's, untrained, patches of 14 px |
    | `dinov2_base` | 768 | 85.7 M | the same, larger |
    | `keras:NAME` | | | `keras.applications.NAME`, untrained |
    | `hub:PRESET` | | | KerasHub's preset, with its weights |

    A model of `keras.applications` has the `preprocess_input` that belongs to
    it. A preset of KerasHub, such as `hub:resnet_18_imagenet`,
    `hub:hf://OWNER/REPOSITORY` or a folder, has the normalization of its image
    converter, and the class token if it has one. Its position embeddings are
    interpolated if it was made for images of another size.

    The small ResNets are graphs of core Keras layers with a 3x3 stem. The
    others contain a stock KerasHub backbone, `encoder.get_layer("backbone")`.

    Args:
        name: str, a name in the table. KerasHub downloads presets, and reads
            them as it does: load only those that you trust.
        image_shape: `(height, width, channels)`, 1 to 16 channels.
        mean: the mean of each channel, for pixels in [0, 1]. By default that
            of the library's model, ImageNet's, or 0.5 for one channel; other
            numbers of channels need it. `kerassl data stats` measures both.
        std: the standard deviation likewise. By default that of the library's
            model, ImageNet's, or 0.25 for one channel.
        patch_size: int, only for `vit_...`. By default 4 up to 48 px, 8 up to
            112 px, and 16 above.
        pooling: only of `vit_...` and `dinov2_...`: `"class"`, the class token,
            by default; or `"mean"`, the mean of the patches' tokens, for
            methods that don't train the class token.

    Returns:
        A Functional `keras.Model`.

    Raises:
        ValueError: if the name is unknown (the message lists the nearest), the
            shape, patch size or pooling doesn't fit, or a preset of KerasHub
            has no normalization.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    features = encoder.predict(images)          # (N, 512)

    encoder = kerassl.encoders.build("keras:MobileNetV3Small", (64, 64, 3))
    encoder = kerassl.encoders.build("hub:dinov2_small", (224, 224, 3))
    ```
    """
    check_encoder_name(name)
    shape = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    is_whole = all(isinstance(n, numbers.Integral) and n > 0 for n in shape)
    if len(shape) != 3 or not is_whole or shape[-1] > MAX_CHANNELS:
        raise ValueError(
            "`image_shape` must be (height, width, channels) with 1 to "
            f"{MAX_CHANNELS} channels. Received: {image_shape}"
        )
    if patch_size is not None and name not in VITS:
        raise ValueError(
            f"`patch_size` is only for ViTs `vit_...`, not for {name}."
        )
    if pooling is not None:
        check_choice("pooling", pooling, ["class", "mean"])
        if name not in VITS and name not in DINOV2S:
            raise ValueError(
                "`pooling` is only for `vit_...` and `dinov2_...`, not for "
                f"{name}."
            )
    if split_library(name)[0]:
        return from_library(name, shape, mean, std)
    normalization = standardization(shape[-1], mean, std)
    if name in SMALL_RESNETS:
        inputs = keras.Input(shape, name="images")
        features = small_resnet(normalization(inputs), **SMALL_RESNETS[name])
        return accepted(keras.Model(inputs, features, name=name))
    if name in RESNETS:
        # Without a fixed size, so that `at_size` works.
        backbone = resnet_backbone(name, (None, None, shape[-1]))
    elif name in DINOV2S:
        backbone = dinov2_backbone(name, shape)
    else:
        backbone = vit_backbone(name, shape, patch_size)
    return encoder_around(backbone, normalization, shape, name, pooling)
