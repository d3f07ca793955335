"""One encoder for images of several sizes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerassl
from kerassl import encoders
from kerassl.augmentation import View, ViewAugmenter
from kerassl.layers import MomentumNetwork, TokensAtSize, bicubic_matrix
from kerassl.layers.positions import parts_of
from tests.encoders import test_adapt, test_graph
from tests.encoders.test_encoders import WIDTHS, pixels

BACKEND = keras.backend.backend()


def make_vit():
    return test_adapt.vit()


def make_dinov2():
    return test_graph.dinov2()


# === Any encoder ===


@pytest.mark.parametrize("name", ["resnet_nano", "resnet_18", "vit_nano"])
def test_another_size_shares_all_weights(name):
    encoder = encoders.build(name, (32, 32, 3))
    small = encoders.at_size(encoder, 20)
    assert small.input_shape == (None, 20, 20, 3)
    assert small.output_shape == encoder.output_shape
    assert encoder.input_shape == (None, 32, 32, 3)
    assert [id(w) for w in small.weights] == [id(w) for w in encoder.weights]
    assert len(small.trainable_weights) == len(encoder.trainable_weights)
    x = pixels((20, 20, 3))
    before = encoders.embed(small, x)
    assert before.shape == (2, WIDTHS[name])
    assert np.isfinite(before).all()
    # A fresh encoder of that size with these weights is the same.
    if name == "resnet_nano":
        fresh = encoders.build(name, (20, 20, 3))
        fresh.set_weights(encoder.get_weights())
        np.testing.assert_allclose(
            encoders.embed(fresh, x), before, rtol=1e-4, atol=1e-5
        )
    # A change in one shows in the other, both ways.
    encoder.set_weights([0.5 * w for w in encoder.get_weights()])
    changed = encoders.embed(small, x)
    assert np.abs(changed - before).max() > 1e-4
    # Statistics too: batch normalization learns from both sizes.
    statistics = [v for v in encoder.weights if "moving_mean" in v.path]
    old = [ops.convert_to_numpy(v) for v in statistics]
    small(ops.convert_to_tensor(x.astype("float32")), training=True)
    assert all(
        np.abs(a - ops.convert_to_numpy(v)).max() > 0
        for a, v in zip(old, statistics)
    )


def test_a_size_can_come_back():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    again = encoders.at_size(encoders.at_size(encoder, 20), 32)
    x = pixels((32, 32, 3))
    np.testing.assert_array_equal(
        encoders.embed(again, x), encoders.embed(encoder, x)
    )
    for size in (20, 28):  # Not of the first alone.
        assert encoders.at_size(encoder, size).input_shape[1] == size


@pytest.mark.parametrize("name", ["resnet_nano", "resnet_18", "vit_nano"])
def test_the_same_size_is_the_encoder_itself(name):
    encoder = encoders.build(name, (32, 32, 3))
    assert encoders.at_size(encoder, 32) is encoder


def test_an_open_size_is_the_encoder_itself():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3)(inputs)
    encoder = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    assert encoders.at_size(encoder, 17) is encoder


def swin():
    import keras_hub

    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(32, 32, 3),
        patch_size=4,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 1),
        window_size=4,
    )
    return encoders.as_encoder(backbone, mean=[0.5] * 3, std=[0.5] * 3)


def flat():
    inputs = keras.Input((32, 32, 3))
    x = layers.Flatten()(layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, layers.Dense(5)(x))


def subclassed():
    class Encoder(keras.Model):
        input_shape, output_shape = (None, 32, 32, 3), (None, 3)

        def call(self, x):
            return ops.mean(x, axis=(1, 2))

    return Encoder()


@pytest.mark.parametrize(
    "make",
    [
        lambda: encoders.build("vit_tiny", (32, 32, 3), patch_size=8),
        swin,
        flat,
        subclassed,
    ],
    ids=["vit", "swin", "flat", "subclassed"],
)
def test_what_is_tied_to_one_size_is_refused(make):
    with pytest.raises(ValueError, match="can't take images of 20x20"):
        encoders.at_size(make(), 20)


def test_a_sequential_model_is_taken():
    encoder = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(4, 3),
            layers.GlobalAveragePooling2D(),
        ]
    )
    small = encoders.at_size(encoder, 20)
    assert small.input_shape == (None, 20, 20, 3)
    assert [id(w) for w in small.weights] == [id(w) for w in encoder.weights]
    x = pixels((20, 20, 3))
    assert encoders.embed(small, x).shape == (2, 4)
    assert encoders.embed(encoder, pixels((32, 32, 3))).shape == (2, 4)


@pytest.mark.parametrize("make", ["fixed_resnet", "dinov3"])
def test_a_backbone_is_tied_only_by_its_input(make):
    encoders_of = {"fixed_resnet": fixed_resnet, "dinov3": fixed_dinov3}[make]
    encoder, expected = encoders_of(32), encoders_of(48)
    expected.set_weights(encoder.get_weights())
    small = encoders.at_size(encoder, 48)
    assert [id(w) for w in small.weights] == [id(w) for w in encoder.weights]
    x = pixels((48, 48, 3))
    np.testing.assert_allclose(
        encoders.embed(small, x), encoders.embed(expected, x), 1e-4, 1e-5
    )


def fixed_resnet(size):
    """As a user may bring it: KerasHub's own, for one size."""
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(size, size, 3),
    )
    return encoders.as_encoder(backbone, mean=[0.5] * 3, std=[0.5] * 3)


def fixed_dinov3(size):
    import keras_hub

    backbone = keras_hub.models.DINOV3Backbone(
        patch_size=8,
        intermediate_dim=16,
        image_shape=(size, size, 3),
        **test_adapt.SIZES,
    )
    return encoders.as_encoder(backbone, mean=[0.5] * 3, std=[0.5] * 3)


def test_the_size_of_patches():
    small = encoders.build("vit_nano", (64, 64, 3))
    large = encoders.build("dinov2_small", (28, 28, 3))
    resnet = encoders.build("resnet_nano", (64, 64, 3))
    made = small, large, fixed_dinov3(32), resnet
    assert [encoders.patch_size(encoder) for encoder in made] == [8, 14, 8, 1]


# === Positions ===


@pytest.mark.parametrize("new", [1, 5, 6, 13, 14, 20])
@pytest.mark.parametrize("antialias,offset", [(1, 0), (0, 0), (0, 0.1)])
def test_the_matrix_is_pytorchs_interpolation(new, antialias, offset):
    import torch

    grid = np.random.default_rng(0).normal(size=(14, 9)).astype("float32")
    found = bicubic_matrix(14, new, bool(antialias), offset) @ grid
    size: dict = dict(size=(new, 9))
    if offset:  # As DINO and DINOv2 call it.
        size = dict(scale_factor=((new + offset) / 14, (9 + offset) / 9))
        found = found @ bicubic_matrix(9, 9, False, offset).T
    expected = torch.nn.functional.interpolate(
        torch.tensor(grid)[None, None],
        mode="bicubic",
        antialias=bool(antialias),
        **size,
    )
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-5)


def by_pytorch(positions, new, **options):
    """Returns positions of a square grid `(L, D)` at another size."""
    import torch

    side = round(len(positions) ** 0.5)
    grid = torch.tensor(positions.reshape(1, side, side, -1))
    grid = torch.nn.functional.interpolate(
        grid.permute(0, 3, 1, 2), mode="bicubic", **options
    )
    assert grid.shape[2:] == (new, new)
    return grid.permute(0, 2, 3, 1).reshape(new * new, -1).numpy()


@pytest.mark.parametrize("size", [8, 24, 40])
@pytest.mark.parametrize(
    "make",
    [
        make_vit,
        lambda: test_adapt.vit(use_class_token=False),
        test_graph.deit,
        make_dinov2,
        lambda: test_graph.dinov2(registers=0),
    ],
    ids=["vit", "no_class", "deit", "registers", "dinov2"],
)
def test_tokens_have_interpolated_positions(make, size):
    backbone = make()
    embedding = backbone.layers[1]
    rng = np.random.default_rng(0)
    for weight in embedding.weights:
        weight.assign(rng.normal(size=weight.shape))
    parts = parts_of(embedding)
    table = ops.convert_to_numpy(parts.positions).reshape(-1, 8)
    new, count = size // 8, len(table) - 4
    options: dict = dict(size=(new, new), antialias=True)
    if hasattr(embedding, "antialias_in_interpolation"):
        # The authors' way, for models without registers and so for ours.
        options = dict(scale_factor=(new + 0.1) / 2)
    x = pixels((size, size, 3)).astype("float32")
    patches = ops.convert_to_numpy(parts.patches(x)).reshape(2, -1, 8)
    expected = patches + by_pytorch(table[count:], new, **options)
    layer = TokensAtSize(embedding, size)
    found = ops.convert_to_numpy(layer(x))
    assert found.shape[1] == layer.first_tokens + new * new
    np.testing.assert_allclose(found[:, layer.first_tokens :], expected, 1e-3)
    # The other tokens are those of the layer itself.
    own = ops.convert_to_numpy(embedding(pixels((16, 16, 3)).astype("float32")))
    assert own.shape[1] == layer.first_tokens + 4
    np.testing.assert_allclose(
        found[:, : layer.first_tokens],
        own[:, : layer.first_tokens],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("make", [make_vit, make_dinov2])
def test_at_its_own_size_tokens_are_equal(make):
    embedding = make().layers[1]
    embedding.antialias_in_interpolation = True  # No offset.
    x = pixels((16, 16, 3)).astype("float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(TokensAtSize(embedding, 16)(x)),
        ops.convert_to_numpy(embedding(x)),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.every_backend
@pytest.mark.parametrize("make", [make_vit, make_dinov2])
def test_gradients_reach_the_trained_positions(make):
    embedding = make().layers[1]
    layer = TokensAtSize(embedding, 24)
    inputs = keras.Input((24, 24, 3))
    model = keras.Model(inputs, layer(inputs))
    weights = np.random.default_rng(0).normal(size=model.output_shape[1:])
    weights = weights.astype("float32")
    model.compile(
        "sgd", lambda y, tokens: ops.sum(ops.multiply(tokens, weights))
    )
    model.optimizer.learning_rate = 1.0
    positions = parts_of(embedding).positions
    before = ops.convert_to_numpy(positions).reshape(-1, 8)
    model.train_on_batch(pixels((24, 24, 3), 1), np.zeros((1, 1)))
    change = ops.convert_to_numpy(positions).reshape(-1, 8) - before
    np.testing.assert_allclose(change[0], -weights[0], rtol=1e-3, atol=1e-4)
    offset = 0.1 if hasattr(embedding, "image_shape") else 0.0
    matrix = bicubic_matrix(2, 3, not offset, offset)
    grid = weights[layer.first_tokens :].reshape(3, 3, 8)
    expected = -np.einsum("ah,bw,abd->hwd", matrix, matrix, grid)
    np.testing.assert_allclose(
        change[1:], expected.reshape(4, 8), rtol=1e-3, atol=1e-4
    )


# === ViTs ===


@pytest.mark.parametrize("make", [make_vit, make_dinov2, test_graph.dinov3])
@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_a_vit_at_another_size_has_its_stages_and_its_map(make, pooling):
    encoder = encoders.as_encoder(
        make(), mean=[0.5] * 3, std=[0.2] * 3, pooling=pooling
    )
    small = encoders.at_size(encoder, 24)
    assert small.output_shape == (None, 8)
    assert [id(w) for w in small.weights] == [id(w) for w in encoder.weights]
    assert encoders.stages(small) == encoders.stages(encoder)
    x = pixels((24, 24, 3))
    features = encoders.embed(small, x)
    stage = encoders.embed(small, x, layer=encoders.stages(small)[-1])
    np.testing.assert_allclose(stage, features, rtol=1e-4, atol=1e-5)
    maps = encoders.embed(encoders.feature_map(small), x)
    assert maps.shape == (2, 3, 3, 8)
    again, x = encoders.at_size(small, 16), pixels((16, 16, 3))
    np.testing.assert_array_equal(
        test_adapt.features(again, x), test_adapt.features(encoder, x)
    )
    if pooling == "mean":
        np.testing.assert_allclose(
            maps.mean((1, 2)), features, rtol=1e-4, atol=1e-5
        )


def swav(encoder):
    augmenter = ViewAugmenter(
        [View(16, blur=0.0), View(16, blur=0.0), View(8, blur=0.0)]
    )
    return kerassl.SwAV(
        encoder,
        num_prototypes=8,
        hidden_dim=8,
        projection_dim=8,
        freeze_prototypes_steps=0,
        augmenter=augmenter,
    )


@pytest.mark.parametrize(
    "make,policy",
    [
        pytest.param(
            make_vit, "mixed_bfloat16", marks=pytest.mark.every_backend
        ),
        (make_dinov2, "float32"),
    ],
)
def test_swav_trains_one_at_two_sizes(make, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = swav(encoders.as_encoder(make(), mean=[0.5] * 3, std=[0.2] * 3))
    # Only the small view passes through the interpolation.
    model.compile(keras.optimizers.SGD(0.1))
    trained = parts_of(
        next(
            layer
            for layer in kerassl.networks.all_layers(model)
            if isinstance(layer, TokensAtSize)
        ).embedding
    ).positions
    before = ops.convert_to_numpy(trained).copy()
    history = model.fit(pixels((16, 16, 3), 16), batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.abs(ops.convert_to_numpy(trained) - before).max() > 0
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = pixels((16, 16, 3))
    np.testing.assert_array_equal(loaded.embed(x), model.embed(x))
    assert list(loaded.encoders_by_size) == ["16", "8"]


def test_frozen_layers_of_one_stay_frozen_in_files(tmp_path):
    model = swav(encoders.as_encoder(make_vit(), mean=[0.5] * 3))
    model.encoder.layers[2].layers[1].trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.encoder.layers[2].layers[1].trainable
    assert len(loaded.trainable_weights) == len(model.trainable_weights)


def test_one_at_another_size_can_not_be_copied():
    encoder = encoders.as_encoder(make_vit(), mean=[0.5] * 3)
    with pytest.raises(ValueError, match="Save or copy the encoder"):
        MomentumNetwork(encoders.at_size(encoder, 24))
    # But that of a copy can be made.
    copy = MomentumNetwork(encoder).network
    x = pixels((24, 24, 3))
    np.testing.assert_array_equal(
        encoders.embed(encoders.at_size(copy, 24), x),
        encoders.embed(encoders.at_size(encoder, 24), x),
    )
