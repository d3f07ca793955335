"""Loads encoders from presets, the Hub and `.keras` files."""

import difflib
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kerassl import encoders, registry
from kerassl.models import in_float32, load_keras_file
from kerassl.names import BEST, ENCODER, ENCODERS, START, split_library
from kerassl.networks import set_trainable, trained_encoder
from kerassl.presets.extract import plain_name, published
from kerassl.presets.format.build import Preset, build_encoder
from kerassl.presets.format.info import INFO, PresetError, PresetInfo
from kerassl.presets.format.verify import open_preset
from kerassl.run_folder import encoder_file

INDEX = "index.json"
HUB = "hf://"
KERASHUB = "hub:"
# Released weights by short names: presets of KerasHub.
RELEASED = {
    "dinov2_small": "hub:dinov2_small",
    "dinov2_base": "hub:dinov2_base",
    "imagenet": "hub:resnet_50_imagenet",
}


def load_encoder(
    source: str | Path,
    *,
    image_shape: Sequence[int] | None = None,
    revision: str | None = None,
    trainable: bool = True,
) -> keras.Model:
    """Loads an encoder from a preset, or from a trusted `.keras` file.

    A preset may come from anybody: it is verified first, as by
    `verify_preset`, and no code from it runs. Load `.keras` files and folders
    of runs only if you trust them, since Keras reads them.

    Args:
        source: one of
            - a name of `list_presets()`;
            - `"hf://owner/name"` or `"hf://owner/name@revision"`, a preset on
              the Hugging Face Hub;
            - the folder of a preset;
            - a folder with an `encoder.keras`, such as that of a run, whose
              `encoder.best.keras` is taken if there is one;
            - a `.keras` file of an encoder or of a training model;
            - `"hub:NAME"`, `"hub:hf://owner/name"` or `"hub:FOLDER"`, a preset
              of KerasHub with a vision backbone, with the normalization of its
              image converter;
            - `"dinov2_small"`, `"dinov2_base"`, or `"imagenet"`, a ResNet-50:
              short for KerasHub's released weights.
        image_shape: `(height, width, channels)` of the images to encode, by
            default as in training. The channels can't change. A ViT's
            positions are interpolated.
        revision: str, a branch, a tag or a commit's SHA, for the Hub.
        trainable: bool. `False` freezes all layers, including the statistics
            of batch normalization.

    Returns:
        A Functional `keras.Model` from images `(N, H, W, C)` in [0, 255] to
        features `(N, D)`, in float32.

    Raises:
        FileNotFoundError: if there is no such encoder; says what was looked
            for.
        PresetError: if the preset is refused, or can't take such images.
        ValueError: if Keras or KerasHub can't load it, or it isn't an encoder.

    Example:
    ```python
    encoder = kerassl.load_encoder("hf://ada/resnet@v1", trainable=False)
    images = keras.Input((32, 32, 3))
    labels = keras.layers.Dense(10)(encoder(images))
    classifier = keras.Model(images, labels)
    ```
    """
    shape = None if image_shape is None else tuple(image_shape)
    # With a revision, `open_source` refuses KerasHub's presets.
    if full_name(source).startswith(KERASHUB) and revision is None:
        encoder = (
            encoders.build(full_name(source), shape)
            if shape
            else load_released(source)[0]
        )
    elif (preset := open_source(source, revision)) is not None:
        encoder = build_encoder(preset, shape)
    else:
        encoder = _own_encoder(source)
        if shape not in (None, encoder.input_shape[1:]):
            preset = published(encoder, name=plain_name(encoder.name))
            encoder = build_encoder(preset, shape)
    set_trainable(encoder, trainable)
    return encoder


def full_name(source: str | Path) -> str:
    """Returns a source, with short names of released weights written out.

    Args:
        source: as in `load_encoder`. A local path comes before a short name.
    """
    name = str(source)
    if name in RELEASED and not Path(name).exists():
        return RELEASED[name]
    return name


def list_presets() -> list[PresetInfo]:
    """Returns the presets that come with kerassl.

    Returns:
        A list of `PresetInfo`. Their names can be passed to `load_encoder`.
    """
    return [PresetInfo.from_dict(entry["info"]) for entry in _index().values()]


def locate(
    source: str | Path, revision: str | None = None
) -> tuple[Path, bool, dict[str, Any] | None]:
    """Finds a preset, and downloads it if it is on the Hub.

    Args:
        source: as in `load_encoder`.
        revision: likewise.

    Returns:
        The folder; whether its files may be links, as in huggingface_hub's
        cache; and the expected content of `kerassl.json` if it is known.

    Raises:
        FileNotFoundError: if there is no such preset.
    """
    entry = _index().get(str(source))
    pinned = None
    if entry is not None and not Path(source).exists():
        where = str(entry["source"])
        source = where if where.startswith(HUB) else zoo() / where
        if revision is None:
            revision, pinned = entry["revision"], entry["info"]
    if str(source).startswith(HUB):
        from kerassl.presets.download import download

        return download(str(source), revision), True, pinned
    if revision is not None:
        raise PresetError(
            f"`revision` is for presets on the Hub, {HUB}owner/name. "
            f"Received: {source}"
        )
    path = Path(source)
    if not path.exists():
        names = difflib.get_close_matches(str(source), _index())
        raise FileNotFoundError(
            f"There is no encoder {source}. Looked for a preset of this name"
            + (f" (nearest: {', '.join(names)})" if names else "")
            + f", a preset's folder with {INFO}, a folder with {ENCODER}, such "
            f"as a run's, and a .keras file. For the Hub give {HUB}owner/name, "
            f"for a preset of KerasHub {KERASHUB}NAME."
            + _untrained_note(str(source))
        )
    return path, False, pinned


def _untrained_note(name: str) -> str:
    """Says, for an error, that a name is that of an untrained encoder."""
    if name not in ENCODERS and split_library(name)[0] != "keras":
        return ""
    return (
        f" By {name}, `--encoder` and `kerassl.encoders.build` make an "
        "untrained encoder."
    )


def open_source(
    source: str | Path, revision: str | None = None
) -> Preset | None:
    """Finds and verifies a preset.

    Args:
        source: as in `load_encoder`.
        revision: likewise.

    Returns:
        A `Preset`; `None` if the source isn't one, but perhaps a `.keras` file.

    Raises:
        FileNotFoundError: if there is nothing there.
        PresetError: if the preset is refused.
    """
    return _opened(source, revision)[1]


def _opened(
    source: str | Path, revision: str | None
) -> tuple[Path, Preset | None]:
    """Returns where a source is, and what it holds if it is a preset."""
    folder, links, pinned = locate(source, revision)
    if not links and (folder.is_file() or not (folder / INFO).exists()):
        return folder, None
    preset = open_preset(folder, links)
    if pinned is not None and preset.info != PresetInfo.from_dict(pinned):
        raise PresetError(
            f"{source} isn't what was published by that name: its {INFO} "
            "differs."
        )
    return folder, preset


def preset_path(source: str | Path, revision: str | None = None) -> Path:
    """Returns the folder of a verified preset, for other programs to read.

    Args:
        source: a name of `list_presets()`, `"hf://owner/name"`, which is
            downloaded, or a preset's folder.
        revision: as in `load_encoder`.

    Returns:
        A path. Don't change the files of a named preset or one from the Hub,
        which may be links: for a folder to publish, call `download_preset`.

    Raises:
        FileNotFoundError: if there is no such preset.
        PresetError: if it is refused, or isn't a preset.

    Example:
    ```python
    folder = kerassl.presets.preset_path("simclr_resnet_nano_cifar10")
    model = keras.saving.load_model(folder)
    ```
    """
    folder, preset = _opened(source, revision)
    if preset is None:
        raise PresetError(
            f"{source} has no {INFO}, so it is not a preset. "
            "`kerassl.runs.save_preset` makes one from a run's folder."
        )
    return folder.resolve()


def _own_encoder(source: str | Path) -> keras.Model:
    path = Path(source)
    if path.is_dir():
        path = encoder_file(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no encoder in {source}. Looked for {path} and {INFO}: "
            f"an encoder is a preset, a folder with {ENCODER}, such as a "
            "run's, or a .keras file."
        )
    encoder = load_keras_file(path)
    encoder = in_float32(trained_encoder(encoder))
    # It was an encoder in a run, so its normalization was accepted.
    own = path.name in (ENCODER, START, BEST)
    if own and isinstance(encoder, keras.Model):
        encoders.accepted(encoder)
    return encoders.as_encoder(encoder)


def load_released(source: str | Path) -> tuple[keras.Model, Any]:
    """Loads a preset of KerasHub, with its normalization.

    Args:
        source: `"hub:"` and a preset's name, address or folder, or a short
            name.

    Returns:
        The encoder, and KerasHub's image converter or `None`.

    Raises:
        FileNotFoundError: if it can't be fetched.
        ValueError: if there is none, or it holds no vision backbone.
    """
    name = full_name(source).removeprefix(KERASHUB)
    backbone, converter = encoders.released(name)
    return encoders.as_encoder(backbone, normalization=converter), converter


def zoo() -> Path:
    """Returns the folder of the presets that come with kerassl."""
    package = Path(__file__).parent
    # In a wheel they are inside the package, in a checkout beside it.
    inside = package / "zoo"
    return inside if inside.is_dir() else package.parents[1] / "presets"


@functools.cache
def _index() -> dict[str, dict[str, Any]]:
    """Returns a dict of name to `source`, `revision` and `info`.

    A source is an address on the Hub (`hf://...`, with its revision), or the
    name of a folder in the zoo.
    """
    path = zoo() / INDEX
    return json.loads(path.read_text(encoding="utf-8"))["presets"]


registry.link(load_encoder=load_encoder)
