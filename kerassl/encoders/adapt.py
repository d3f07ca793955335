"""Turns other models into encoders: adds normalization and pooling."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kerassl.choices import check_choice
from kerassl.encoders.assembly import accepted, encoder_around, is_accepted
from kerassl.encoders.kerashub import (
    OF_IMAGENET,
    backbone_and_converter,
    hub_name,
)
from kerassl.encoders.normalization import (
    INCLUDED,
    is_converter,
    normalization_layer,
    normalizes,
    standardization,
)
from kerassl.image_format import FIRST, flat_layers, pinned
from kerassl.names import ENCODERS

POOLS = (
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
)
# Names of the last layer of classifiers, in Keras and in KerasHub.
HEADS = ("predictions", "logits")
TRANSPOSING = ("Permute", "Transpose", "Moveaxis")


def as_encoder(
    model: Any,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalization: Any = None,
    pooling: str | None = None,
) -> keras.Model:
    """Makes an encoder of a model: from images in [0, 255] to features.

    An encoder normalizes its images itself. If the model is found to do so
    already, nothing is added: it starts with a `Rescaling` or `Normalization`,
    or with arithmetic such as `images / 255`, possibly in an inner model. That
    is the case for MobileNetV3, EfficientNet and ConvNeXt of
    `keras.applications`, and for KerasCV's backbones with `include_rescaling`.
    Of a KerasHub classifier the backbone is taken, with the normalization of
    its preset's image converter. KerasHub's `DINOV2Backbone` gets ImageNet's
    mean and standard deviation, as all its presets. For any other model, pass
    the normalization that it was trained with.

    Features `(N, D)` are returned as they are. A feature map `(N, H, W, D)` is
    averaged. Of tokens `(N, T, D)` the class token is taken, as the authors of
    ViT, DeiT, DINO, DINOv2 and DINOv3 do, if the model is a KerasHub class
    known to have one, or has a true attribute `use_class_token`. Tokens that
    are known to belong only to patches are averaged. Of others nothing is
    known, and `pooling` has to say what to do.

    Args:
        model: `keras.Model` with one input `(N, H, W, C)` and one output, a
            KerasHub or KerasCV backbone, or a KerasHub `ImageClassifier`.
        mean: the mean of each channel in training, for pixels in [0, 1]. If
            only `std` is given, ImageNet's, or 0.5 for one channel.
        std: the standard deviation likewise. If only `mean` is given,
            ImageNet's, or 0.25 for one channel.
        normalization: alternative to `mean` and `std`: a KerasHub image
            converter (its resizing is ignored, views have the right size); a
            layer or function from images in [0, 255] to the model's inputs,
            such as `keras.applications.mobilenet_v2.preprocess_input`; or
            `"included"`, if the model normalizes images in a way that isn't
            found.
        pooling: `"class"`, the class token; or `"mean"`, the mean over the
            tokens of patches, without class, distillation and register tokens.
            Only for models that return tokens.

    Returns:
        A `keras.Model` from images `(N, H, W, C)` to features `(N, D)`: the
        given model, if nothing has to be added.

    Raises:
        ValueError: if the model isn't built, is a classifier, or has other
            inputs or outputs; if its normalization or its tokens aren't known;
            or if images would be normalized twice.

    Example:
    ```python
    classifier = keras_hub.models.ImageClassifier.from_preset(
        "resnet_18_imagenet"
    )
    encoder = kerassl.encoders.as_encoder(classifier)

    backbone = keras_hub.models.Backbone.from_preset(
        "dinov2_small", image_shape=(224, 224, 3)
    )
    encoder = kerassl.encoders.as_encoder(backbone)    # (N, 384)

    backbone = keras_hub.models.Backbone.from_preset(
        "vit_base_patch16_224_imagenet"
    )
    encoder = kerassl.encoders.as_encoder(
        backbone,
        normalization=keras_hub.layers.ImageConverter.from_preset(
            "vit_base_patch16_224_imagenet"
        ),
        pooling="mean",
    )

    encoder = kerassl.encoders.as_encoder(
        keras.applications.DenseNet121((64, 64, 3), include_top=False),
        normalization=keras.applications.densenet.preprocess_input,
    )
    ```
    """
    given = any(x is not None for x in (mean, std, normalization, pooling))
    if pooling is not None:
        check_choice("pooling", pooling, ["class", "mean"])
    if not isinstance(model, keras.Model):
        raise ValueError(
            "An encoder is a `keras.Model` from images to features. Build one "
            f"by name with `kerassl.encoders.build`: {', '.join(ENCODERS)}. "
            f"Received: {model!r}"
        )
    if is_accepted(model) and not given:
        return pinned(model)
    model, converter = backbone_and_converter(model)
    inputs, outputs = _shapes(model)
    _check_format(model, inputs)
    _check_features(model)
    if pooling is not None and len(outputs) != 3:
        raise ValueError(
            "`pooling` is for models that return tokens (N, T, D). "
            f"{model.name!r} returns {outputs}."
        )
    before = _before(model, inputs[-1], mean, std, normalization, converter)
    if before is None and len(outputs) == 2:
        return accepted(model)
    return encoder_around(model, before, inputs[1:], model.name, pooling)


def _shapes(model: keras.Model) -> tuple[tuple, tuple]:
    try:
        inputs, outputs = model.input_shape, model.output_shape
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"The shapes of {model.name!r} are unknown. Make it a Functional "
            "model, `keras.Model(inputs, outputs)`."
        ) from error
    # Only Functional models can return a dict here, and a Sequential may lack
    # `output`. Keras gives the shape of a single one as if it was a tensor.
    with contextlib.suppress(AttributeError, ValueError):
        if isinstance(model.output, dict):
            outputs = {name: x.shape for name, x in model.output.items()}
    if not isinstance(inputs, tuple) or len(inputs) != 4:
        raise ValueError(
            "An encoder takes one batch of images (N, H, W, C). "
            f"{model.name!r} takes {inputs}."
        )
    if not isinstance(outputs, tuple) or len(outputs) not in (2, 3, 4):
        raise ValueError(
            "An encoder returns features (N, D), a map (N, H, W, D) or tokens "
            f"(N, T, D). {model.name!r} returns {outputs}."
            + (
                " Take one of them: `keras.Model(model.input, "
                "model.output[NAME])`."
                if isinstance(outputs, dict)
                else ""
            )
        )
    return inputs, outputs


def _check_format(model: keras.Model, inputs: tuple) -> None:
    """Refuses a model that expects channels first."""
    found = list(flat_layers(model))
    if any(type(layer).__name__ in TRANSPOSING for layer in found):
        return
    for layer in found:
        if getattr(layer, "data_format", None) == FIRST:
            raise ValueError(
                f"The layer {layer.name!r} of {model.name!r} is channels "
                "first, but images here are channels last (N, H, W, C), "
                "whatever `keras.config.image_data_format()` says. Make it "
                'with `data_format="channels_last"`, or after '
                '`keras.config.set_image_data_format("channels_last")`. Its '
                f"input shape is {inputs}."
            )


def _check_features(model: keras.Model) -> None:
    """Refuses a classifier, whose outputs are not features."""
    found = list(flat_layers(model))
    ends = [x for x in found if not isinstance(x, (layers.Dropout, POOLS))]
    head = ends[-1]
    while len(ends) > 1 and _passes(head):
        ends.pop()
        head = ends[-1]
    is_softmax = type(head).__name__ == "Softmax" or (
        getattr(head, "activation", None) is keras.activations.softmax
    )
    if is_softmax or (isinstance(head, layers.Dense) and head.name in HEADS):
        pools = [x.name for x in found if isinstance(x, POOLS)]
        cut = next(
            (x.name for x in model.layers if x.name in pools[-1:]), "..."
        )
        raise ValueError(
            f"{model.name!r} is a classifier: its last layer, {head.name!r}, "
            "returns classes, not features. Make it without its head "
            "(`include_top=False` in `keras.applications`), or remove that: "
            f"`keras.Model(model.input, model.get_layer({cut!r}).output)`."
        )


def _passes(layer: Any) -> bool:
    if isinstance(layer, layers.Activation):
        return layer.activation is keras.activations.linear
    return isinstance(layer, layers.Identity)


def _before(
    model: keras.Model,
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    normalization: Any,
    converter: Any,
) -> Any:
    """Returns the normalization to add; `None` if the model does it itself."""
    if normalization is not None and (mean is not None or std is not None):
        raise ValueError(
            "Give `normalization`, or `mean` and `std`, but not both."
        )
    if isinstance(normalization, str) and normalization == INCLUDED:
        return None
    if is_converter(normalization):
        normalization, converter = None, normalization
    found = None
    if mean is not None or std is not None:
        found = standardization(channels, mean, std)
        converter = None
    elif normalization is not None:
        found = normalization_layer(normalization, channels)
        converter = None
    if found is not None and normalizes(model):
        raise ValueError(
            f"{model.name!r} already starts with a normalization, so images "
            "would be normalized twice. Leave out `mean`, `std` and "
            "`normalization`."
        )
    if converter is not None:
        found = normalization_layer(converter, channels)
    if found is None and not normalizes(model):
        if hub_name(model) in OF_IMAGENET and channels == 3:
            return standardization(channels, None, None)
        raise ValueError(
            f"{model.name!r} isn't seen to normalize images, which are in "
            "[0, 255]. Pass the normalization that it was trained with: "
            "`kerassl.encoders.as_encoder(model, mean=..., std=...)`, for "
            "pixels in [0, 1]; or `normalization=`, its KerasHub image "
            'converter, a layer or a function; or `normalization="included"`, '
            "if the model does it in some other way."
        )
    return found
