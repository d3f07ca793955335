"""Tiles, and what takes the short cuts away."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl import augmentation
from kerassl.augmentation import TileAugmenter
from kerassl.augmentation import tiles as functions
from tests.augmentation.fused import smooth_images, still
from tests.backends import compiled, examples


def view(size):
    return still(size=size)


def numbered(size, channels=3):
    """An image whose pixels tell their place: row, column, channel."""
    row, column = np.mgrid[:size, :size]
    image = row * 1000 + column * 10
    return (image[..., None] + np.arange(channels)).astype("float32")


@settings(max_examples=examples(25))
@given(
    size=st.integers(4, 20),
    tile=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    per_channel=st.booleans(),
    seed=st.integers(0, 99),
)
def test_cutting_is_exact(size, tile, channels, per_channel, seed):
    rng = np.random.default_rng(seed)
    image = numbered(size, channels)
    shape = (2, 5, channels if per_channel else 1)
    tops, lefts = rng.integers(0, size - tile + 1, (2, *shape))
    made = compiled(lambda *arrays: functions.cut(ops, *arrays, tile))(
        ops.convert_to_tensor(np.stack([image, image + 0.5])),
        ops.convert_to_tensor(tops.astype("float32")),
        ops.convert_to_tensor(lefts.astype("float32")),
    )
    made = ops.convert_to_numpy(made)
    for b in range(2):
        for t in range(5):
            for c in range(channels):
                k = c if per_channel else 0
                y, x = tops[b, t, k], lefts[b, t, k]
                np.testing.assert_array_equal(
                    made[b, t, :, :, c],
                    image[y : y + tile, x : x + tile, c] + 0.5 * b,
                )


def where(tiles, size):
    """The place of the first pixel of tiles of `numbered` / its maximum."""
    value = tiles[:, :, 0, 0, :]
    row, rest = np.divmod(np.round(value), 1000)
    return row, np.floor(rest / 10)


def test_the_grid_moves_and_each_tile_by_itself(monkeypatch):
    # The image itself as the view, since numbers beyond 255 would be clipped.
    size, tile, gap, jitter = 40, 8, 3, 2
    layer = TileAugmenter(view(size), tile, gap=gap, jitter=jitter, seed=0)
    rng = np.random.default_rng(0)

    def draw(count, numbers):
        return ops.convert_to_tensor(rng.random((count, numbers), "float32"))

    images = np.stack([numbered(size)] * 200)
    made = layer.finish(ops, {"view_1": ops.convert_to_tensor(images)}, draw)
    tiles = ops.convert_to_numpy(made["tiles"])
    assert tiles.shape == (200, 9, tile, tile, 3)
    row, column = where(tiles, size)
    assert (row == row[..., :1]).all()  # Channels lie on each other.
    row, column = row[..., 0], column[..., 0]
    nominal = np.arange(3) * (tile + gap)
    down = row.reshape(-1, 3, 3) - nominal[:, None]
    right = column.reshape(-1, 3, 3) - nominal
    room = size - (2 * (tile + gap) + tile + jitter)
    assert layer.room == room == 8
    for moved in (down, right):
        assert moved.min() == 0
        assert moved.max() == room + jitter
        spread = moved.reshape(200, 9)
        spread = spread.max(axis=1) - spread.min(axis=1)
        assert spread.max() == jitter  # Within an image: the jitter alone.
        assert spread.mean() > 1


def test_channels_shift_apart():
    size = 40
    layer = TileAugmenter(view(size), 8, channel_shift=2, seed=0)
    rng = np.random.default_rng(0)
    images = ops.convert_to_tensor(np.stack([numbered(size)] * 50))
    made = layer.finish(
        ops,
        {"view_1": images},
        lambda n, k: ops.convert_to_tensor(rng.random((n, k), "float32")),
    )
    row, _ = where(ops.convert_to_numpy(made["tiles"]), size)
    apart = row.max(axis=-1) - row.min(axis=-1)
    assert set(np.unique(apart)) == {0, 1, 2}


def test_projected_colors_lose_green_against_magenta():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    chosen = np.array([1.0, 0.0], "float32")[:, None, None, None]
    made = ops.convert_to_numpy(
        functions.project_colors(
            ops,
            ops.convert_to_tensor(images),
            ops.convert_to_tensor(chosen),
        )
    )
    # The paper's B = I - a^T a / (a a^T) with a = [-1, 2, -1].
    a = np.array([[-1.0, 2.0, -1.0]])
    matrix = np.eye(3) - a.T @ a / (a @ a.T)
    np.testing.assert_allclose(made[0], images[0] @ matrix.T, atol=1e-3)
    np.testing.assert_array_equal(made[1], images[1])
    gray = np.full((1, 2, 2, 3), 90.0, "float32")
    same = functions.project_colors(ops, ops.convert_to_tensor(gray), 1.0)
    np.testing.assert_allclose(ops.convert_to_numpy(same), gray, atol=1e-3)


def test_dropped_channels_are_gray_and_one_is_kept():
    images = smooth_images(64, 40)
    layer = TileAugmenter(view(40), 10, drop_channels=1.0, seed=0)
    tiles = ops.convert_to_numpy(layer(images)["tiles"])
    contrast = tiles.std(axis=(2, 3))
    assert ((contrast > 1e-3).sum(axis=-1) <= 1).all()
    kept = contrast.argmax(axis=-1)
    # Each tile has its own.
    assert set(np.unique(kept)) == {0, 1, 2}
    assert (kept != kept[:, :1]).any()
    np.testing.assert_allclose(tiles.mean(axis=(2, 3)), 127.5, atol=1e-2)


def test_normalized_tiles_have_one_contrast():
    images = smooth_images(16, 40)
    images[0] = 77
    layer = TileAugmenter(view(40), 10, normalize=True, seed=0)
    tiles = ops.convert_to_numpy(layer(images)["tiles"]).astype("float64")
    np.testing.assert_allclose(tiles.mean(axis=(2, 3, 4)), 127.5, atol=1e-2)
    contrast = tiles.std(axis=(2, 3, 4))
    assert contrast[0].max() < 1e-2  # Nothing is made of nothing.
    assert np.median(contrast[1:]) == pytest.approx(50, rel=0.02)


def test_two_calls_and_two_images_differ():
    images = np.repeat(smooth_images(1, 40), 2, axis=0)
    layer = augmentation.context_prediction(40)
    first, second = (
        ops.convert_to_numpy(layer(images)["tiles"]) for _ in range(2)
    )
    assert np.abs(first[0] - first[1]).max() > 1
    assert np.abs(first[0] - second[0]).max() > 1


def test_in_a_tf_data_pipeline():
    tf = pytest.importorskip("tensorflow")
    images = smooth_images(4, 40)
    layer = augmentation.jigsaw(40)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(4).map(layer)
    tiles = next(iter(dataset))["tiles"].numpy()
    assert tiles.shape == layer.compute_output_shape(images.shape)["tiles"]
    assert np.isfinite(tiles).all()
    single = tf.data.Dataset.from_tensor_slices(images).map(layer)
    assert next(iter(single))["tiles"].shape == tiles.shape[1:]


@pytest.mark.parametrize("make", ["jigsaw", "context_prediction"])
@pytest.mark.parametrize("size", [32, 28, 64, 224, 255, 384])
def test_the_papers_tiles_fit_every_size(make, size):
    layer = getattr(augmentation, make)(size)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()
    assert 0 <= layer.room <= size // 8 + 3
    assert layer.tile_size >= size // 5


def test_the_papers_numbers():
    layer = augmentation.jigsaw(255)
    assert (layer.tile_size, layer.gap) == (64, 21)
    assert (layer.jitter, layer.channel_shift) == (19, 2)
    layer = augmentation.context_prediction(384)
    assert (layer.tile_size, layer.gap, layer.jitter) == (96, 41, 14)


@pytest.mark.parametrize("make", ["jigsaw", "context_prediction"])
def test_tiles_that_are_too_large_are_what_is_named(make):
    with pytest.raises(ValueError, match="The view has 32"):
        getattr(augmentation, make)(32, tile_size=12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(tile_size=12), "take 36 pixels. The view has 32"),
        (dict(tile_size=0), "tile_size=0"),
        (dict(tile_size=4, grid=1), "grid=1"),
        (dict(tile_size=4, jitter=-1), "jitter=-1"),
        (dict(tile_size=4, drop_channels=1.5), "drop_channels"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TileAugmenter(view(32), **arguments)
