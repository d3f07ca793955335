"""Operations for any number of channels, beside NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from kerassl.augmentation import (
    ChannelDrop,
    ChannelJitter,
    ColorJitter,
    GaussianNoise,
    RandomGrayscale,
    RandomVerticalFlip,
    ViewAugmenter,
    any_channels,
    simclr,
)
from kerassl.augmentation.operations import columns
from tests.backends import examples


def images(channels, count=3, size=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 255, (count, size, size, channels)).astype("float32")


def uniforms(operation, count=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, operation.num_uniforms)).astype("float32")


def apply(operation, x, u):
    return ops.convert_to_numpy(operation.apply(ops, x, ops.array(u)))


def scaled(x, brightness, contrast, brightness_first):
    """One channel `(H, W)` in [0, 255]: both changes, in NumPy."""
    for is_brightness in (brightness_first, not brightness_first):
        mean = 0.0 if is_brightness else x.mean()
        factor = brightness if is_brightness else contrast
        x = np.clip(mean + factor * (x - mean), 0, 255)
    return x


def factors(strength, drawn):
    low = max(0, 1 - strength)
    return low + (1 + strength - low) * drawn


@settings(max_examples=examples(12))
@given(
    channels=st.sampled_from([1, 2, 6, 16]),
    brightness=st.floats(0, 1.5, width=32),
    contrast=st.floats(0, 1.5, width=32),
    seed=st.integers(0, 99),
)
def test_channel_jitter(channels, brightness, contrast, seed):
    operation = ChannelJitter(brightness, contrast, probability=0.7)
    x, u = images(channels, seed=seed), uniforms(operation, seed=seed)
    found = apply(operation, x, u)
    drawn = columns(u, operation.uniforms)
    for i in range(len(x)):
        first = drawn["order"][i, 0] <= drawn["order"][i, 1]
        for c in range(channels):
            wanted = x[i, ..., c]
            if drawn["jitter"][i, 0] < 0.7:
                wanted = scaled(
                    wanted,
                    factors(brightness, drawn["brightness"][i, c]),
                    factors(contrast, drawn["contrast"][i, c]),
                    first,
                )
            np.testing.assert_allclose(found[i, ..., c], wanted, atol=1e-2)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_color_jitter_without_colors(channels):
    operation = ColorJitter(probability=1.0)
    x, u = images(channels), uniforms(operation)
    found = apply(operation, x, u)
    drawn = columns(u, operation.uniforms)
    for i in range(len(x)):
        for c in range(channels):
            wanted = scaled(
                x[i, ..., c],
                factors(0.8, drawn["brightness"][i, 0]),
                factors(0.8, drawn["contrast"][i, 0]),
                drawn["order"][i, 0] <= drawn["order"][i, 1],
            )
            np.testing.assert_allclose(found[i, ..., c], wanted, atol=1e-2)
    gray = RandomGrayscale(1.0)
    np.testing.assert_allclose(apply(gray, x, uniforms(gray)), x, atol=1e-3)


def test_dropped_channels():
    x = images(6, count=400, size=2) + 1
    operation = ChannelDrop(0.3)
    found = apply(operation, x, uniforms(operation, 400))
    kept = (found > 0).all((1, 2))
    np.testing.assert_array_equal(kept, (found > 0).any((1, 2)))
    np.testing.assert_allclose(found, x * kept[:, None, None], rtol=1e-5)
    assert abs(kept.mean() - 0.7) < 0.03
    # At least one remains.
    operation = ChannelDrop(1.0)
    found = apply(operation, x, uniforms(operation, 400))
    np.testing.assert_array_equal((found > 0).all((1, 2)).sum(-1), 1)


def normal(seeds, channels, pixels):
    """`GaussianNoise`'s numbers of one image `(C, P)`, in whole numbers."""
    prime = 1019
    seeds = np.floor(seeds * prime).astype("int64")
    place, channel = np.arange(pixels), np.arange(channels)[:, None]

    def uniform(first, second):
        x = (first + place % prime) ** 3 % prime
        for more in (place // prime, channel, second, 1, 2):
            x = (x + more) ** 3 % prime
        return (x + 0.5) / prime

    radius = np.sqrt(-2 * np.log(uniform(*seeds[:2])))
    return radius * np.cos(2 * np.pi * uniform(*seeds[2:]))


def test_noise():
    operation = GaussianNoise(0.5, (10.0, 10.0))
    x = np.full((8, 48, 48, 6), 128, "float32")
    u = uniforms(operation, 8)
    found = apply(operation, x, u) - x
    drawn = columns(u, operation.uniforms)
    noisy = drawn["noise"][:, 0] < 0.5
    assert 0 < noisy.sum() < 8
    for i in range(8):
        wanted = 10 * normal(drawn["seeds"][i], 6, 48 * 48) * noisy[i]
        wanted = wanted.reshape(6, 48, 48).transpose(1, 2, 0)
        np.testing.assert_allclose(found[i], wanted, atol=5e-3)
    noise = found[noisy]
    assert abs(noise.mean()) < 0.3 and abs(noise.std() - 10) < 0.3
    # Neighbors, channels and images are independent.
    for one, other in (
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[..., 1:], noise[..., :-1]),
        (noise[1:], noise[:-1]),
    ):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    share = np.mean(np.abs(noise) < 10)
    assert abs(share - 0.683) < 0.02


def test_vertical_flip():
    x = images(2, count=6)
    operation = RandomVerticalFlip(0.5)
    u = uniforms(operation, 6)
    (made,) = ViewAugmenter([operation], 1)(x).values()
    rows, none = operation.matrices(ops, ops.array(u), 8, 8)
    assert none is None
    found = np.einsum("bij,bjwc->biwc", ops.convert_to_numpy(rows), x)
    wanted = np.where(u[:, 0, None, None, None] < 0.5, x[:, ::-1], x)
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    assert made.shape == x.shape


@pytest.mark.parametrize("channels", [1, 2, 6, 16])
def test_views_of_any_channels(channels):
    x = images(channels, count=4, size=24)
    both = (
        any_channels(16, vertical_flip=0.5, blur=0.5, drop=0.2, seed=0),
        simclr(16, blur=0.5, seed=0),
    )
    for augmenter in both:
        views = {k: ops.convert_to_numpy(v) for k, v in augmenter(x).items()}
        for view in views.values():
            assert view.shape == (4, 16, 16, channels)
            assert view.min() >= 0 and view.max() <= 255
        assert not np.allclose(views["view_1"], views["view_2"])
        again = type(augmenter).from_config(augmenter.get_config())
        assert again.views == augmenter.views
    assert not both[0].needs_color and both[1].needs_color
    with pytest.raises(ValueError, match="1 to 16 channels"):
        both[0](images(17))
