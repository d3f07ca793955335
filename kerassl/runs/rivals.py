"""Frozen encoders of others, to measure beside one's own."""

from pathlib import Path
from typing import Any, NamedTuple

import keras
from keras import layers

from kerassl import encoders
from kerassl.image_format import LAST
from kerassl.presets import load_encoder
from kerassl.presets.load import KERASHUB, full_name, load_released
from kerassl.runs.subject import check_finite, load_size
from kerassl.runs.weights import is_public

# As `kerassl.data.load` resizes.
RESIZING: dict[str, Any] = dict(
    interpolation="bilinear", antialias=True, crop_to_aspect_ratio=True
)
# The random weights, which every protocol measures anyway.
RANDOM = "random"
# What the encoder and its floors are called beside others.
ENCODER, FLOOR, SCRATCH = (
    "encoder",
    "random weights",
    "training from scratch",
)


class Rival(NamedTuple):
    """A frozen encoder, and how it wants its images.

    Attributes:
        encoder: `keras.Model` from images to features.
        size: `(height, width)` of the images that it was trained on, or
            `None` if it takes any.
        resizing: dict of arguments of `keras.layers.Resizing`, as images were
            resized for its training.
    """

    encoder: keras.Model
    size: tuple[int, int] | None
    resizing: dict[str, Any]

    def at(self, image_shape: tuple[int, int, int]) -> keras.Model:
        """Returns the encoder for images of another shape.

        Args:
            image_shape: `(height, width, channels)` of the images. They are
                resized as the rival's own preprocessing does, and gray ones
                are repeated if it takes colors.

        Raises:
            ValueError: if the images have colors, and it takes gray ones.
        """
        channels = self.encoder.input_shape[-1]
        size = self.size or image_shape[:2]
        if image_shape == (*size, channels):
            return self.encoder
        if image_shape[-1] not in (1, channels):
            raise ValueError(
                f"The encoder takes images of {channels} channels. Received: "
                f"{image_shape}"
            )
        x = images = keras.Input(image_shape, name="images")
        if image_shape[:2] != size:
            resize = layers.Resizing(*size, **self.resizing, data_format=LAST)
            x = resize(x)
        if image_shape[-1] != channels:
            x = layers.Concatenate()([x] * channels)
        return encoders.accepted(
            keras.Model(images, self.encoder(x), name=self.encoder.name)
        )


def open_rival(source: str | Path) -> Rival:
    """Loads an encoder to measure beside another one.

    Args:
        source: as in `kerassl.load_encoder`.

    Returns:
        A `Rival`.

    Raises:
        ValueError: if its weights aren't finite, or it isn't an encoder.
        FileNotFoundError: if it doesn't exist, or can't be fetched.
    """
    if full_name(source).startswith(KERASHUB):
        return _released(source)
    encoder = load_encoder(source)
    check_finite(encoder, source)
    return Rival(encoder, load_size(encoder), RESIZING)


def rival_names(sources: list[str]) -> dict[str, str]:
    """Returns short names of rivals, for tables and files.

    Args:
        sources: list of str, as in `open_rival`; `"random"` is left out.

    Returns:
        A dict from a name to its source.

    Raises:
        ValueError: if two have the same name, or one that means this encoder
            or its random weights.
    """
    names: dict[str, str] = {}
    for source in sources:
        if source == RANDOM:
            continue
        # Not the path, which may say more than should be published.
        name = source if is_public(source) else Path(source).resolve().name
        if name in (ENCODER, FLOOR, SCRATCH):
            raise ValueError(
                f"An encoder to compare can't be called {name!r}, since that "
                f"is a row of the table. Rename {source}."
            )
        if names.setdefault(name, source) != source:
            raise ValueError(
                f"Two encoders to compare are called {name}: {names[name]} "
                f"and {source}. Rename one."
            )
    return names


def _released(source: str | Path) -> Rival:
    """Loads a preset of KerasHub."""
    encoder, converter = load_released(source)
    if converter is None:
        return Rival(encoder, load_size(encoder), RESIZING)
    size = load_size(encoder) or converter.image_size
    resizing = dict(
        interpolation=converter.interpolation,
        antialias=converter.antialias,
        crop_to_aspect_ratio=converter.crop_to_aspect_ratio,
        pad_to_aspect_ratio=converter.pad_to_aspect_ratio,
    )
    return Rival(encoder, size, resizing)
