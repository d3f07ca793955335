"""Builds the encoder of a verified preset."""

from typing import Any, NamedTuple

import keras
import numpy as np

from kerassl.encoders.assembly import accepted, pooled
from kerassl.encoders.normalization import rescaling
from kerassl.image_format import channels_last
from kerassl.layers.positions import bicubic_matrix
from kerassl.presets.format.architecture import (
    Architecture,
    Weight,
    check_order,
)
from kerassl.presets.format.backbones import ViT
from kerassl.presets.format.dinov2 import DINOv2
from kerassl.presets.format.graph import Graph
from kerassl.presets.format.info import INFO, PresetError, PresetInfo, check
from kerassl.presets.format.positions import DINO, IBOT, dino_bicubic


class Preset(NamedTuple):
    """The content of a preset, verified.

    Attributes:
        info: `PresetInfo`.
        architecture: `Architecture`, not built.
        arrays: the weights, in the order of `model.weights`.
    """

    info: PresetInfo
    architecture: Architecture
    arrays: list[np.ndarray]


def build_encoder(
    preset: Preset, image_shape: tuple[int | None, ...] | None = None
) -> keras.Model:
    """Builds the encoder of a verified preset, from images to features.

    Args:
        preset: `Preset`.
        image_shape: as in `load_encoder`.

    Returns:
        A Functional `keras.Model`.

    Raises:
        PresetError: if the architecture can't take such images, or this
            version of Keras orders the weights differently.
    """
    shape = preset.info.image_shape if image_shape is None else image_shape
    expected = _check_shape(preset, shape)
    arrays = preset.arrays
    if (
        isinstance(preset.architecture, (ViT, DINOv2))
        and shape != preset.info.image_shape
    ):
        # Converted checkpoints name their method.
        is_dino = preset.info.training.get("method") in (DINO, IBOT)
        matrix = dino_bicubic if is_dino else bicubic_matrix
        arrays = preset.architecture.resized(arrays, shape, matrix)
    if [w.shape for w in expected] != [a.shape for a in arrays]:
        raise PresetError(
            f"{preset.info.name} is tied to images of "
            f"{preset.info.image_shape}: with {shape}, the shapes of its "
            "weights would change."
        )
    with channels_last():
        encoder = _make(preset, shape, expected)
    encoder.set_weights(arrays)
    return accepted(encoder)


def check_build(preset: Preset) -> None:
    """Refuses a preset that Keras can't build.

    Builds the layers as `build_encoder` does, but creates no weights.

    Raises:
        PresetError: as `build_encoder`.
    """
    shape = preset.info.image_shape
    with channels_last(), keras.StatelessScope(initialize_variables=False):
        _make(preset, shape, _check_shape(preset, shape))


def _check_shape(preset: Preset, shape: tuple[int | None, ...]) -> list[Weight]:
    """Returns the weights for images of a shape."""
    info = preset.info
    if len(shape) != 3 or shape[-1] != info.image_shape[-1]:
        raise PresetError(
            f"`image_shape` must be (height, width, {info.image_shape[-1]}): "
            f"{info.name} was trained on images of {info.image_shape}. "
            f"Received: {shape}"
        )
    return preset.architecture.layout(shape).weights


def _left_out(info: PresetInfo, architecture: Architecture) -> int:
    """Returns how many of the first tokens aren't averaged."""
    if info.output != "patches":
        return 0
    check(
        isinstance(architecture, (ViT, DINOv2)),
        f"{INFO}: `output` is 'patches', which only a ViT has.",
    )
    return architecture.first_tokens  # type: ignore[attr-defined]


def _make(
    preset: Preset, shape: tuple[int | None, ...], expected: list[Weight]
) -> keras.Model:
    """Returns the encoder, without the preset's weights."""
    info, architecture, _ = preset
    try:
        images = keras.Input(shape, dtype="float32", name="images")
        x: Any = images
        if info.normalization is not None:
            x = rescaling(**info.normalization, dtype="float32")(x)
        x = architecture.apply(x)
        if info.output != "features":
            taken = (
                isinstance(architecture, Graph) and "pool" in architecture.nodes
            )
            x = pooled(
                x,
                info.output == "class_token",
                name="features" if taken else "pool",
                dtype="float32",
                left_out=_left_out(info, architecture),
            )
        encoder = keras.Model(images, x, name=info.architecture)
    except (PresetError, ImportError):
        raise
    except Exception as error:
        raise PresetError(
            f"Keras {keras.__version__} can't build the encoder of "
            f"{info.name}: {type(error).__name__}: {error}"
        ) from error
    check_order(encoder, expected)
    check(
        encoder.output_shape == (None, info.features),
        f"The encoder of {info.name} returns {encoder.output_shape}, and "
        f"{INFO} says {info.features} features.",
    )
    return encoder
