"""Position embeddings of KerasHub's DINOv2, which files would lose."""

from typing import Any

import keras
from keras import ops

from kerassl.networks import all_layers


def keep_positions(model: keras.Model) -> None:
    """Copies trained positions to the variable that KerasHub saves.

    `DINOV2Backbone` trains the positions of its image size, but saves those of
    `position_embedding_shape`. It updates these only if the changes add up to
    less than 0; otherwise what was learned would be lost.

    Args:
        model: `keras.Model`. Positions that didn't change stay as they are.
    """
    for layer in all_layers(model):
        used = getattr(layer, "interpolated_position_embeddings", None)
        if used is None:
            continue
        saved = layer.position_embeddings
        if layer.image_shape == layer.position_embedding_shape:
            saved.assign(ops.copy(ops.convert_to_tensor(used)))
            continue
        change = _resized(layer, saved, layer.image_shape) - used
        if abs(ops.convert_to_numpy(change)).max() > 1e-6:
            shape = layer.position_embedding_shape
            saved.assign(_resized(layer, used, shape))


def _resized(layer: Any, positions: Any, shape: tuple[int, int]) -> Any:
    """Returns positions for another image size, as KerasHub makes them."""
    positions = ops.convert_to_tensor(positions)
    first, grid = positions[:, :1], positions[:, 1:]
    side, dim = round(grid.shape[1] ** 0.5), grid.shape[2]
    grid = ops.image.resize(
        ops.reshape(grid, (1, side, side, dim)),
        [length // layer.patch_size for length in shape],
        interpolation="bicubic",
        antialias=layer.antialias_in_interpolation,
        data_format="channels_last",
    )
    return ops.concatenate([first, ops.reshape(grid, (1, -1, dim))], axis=1)
