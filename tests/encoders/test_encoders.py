"""Encoders by name and by hand."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerassl import encoders
from tests.backends import more, once

WIDTHS = {
    "resnet_nano": 128,
    "resnet_18_small": 512,
    "resnet_50_small": 2048,
    "resnet_18": 512,
    "resnet_50": 2048,
    "vit_nano": 96,
    "vit_tiny": 192,
    "vit_small": 384,
    "vit_base": 768,
    "dinov2_small": 384,
    "dinov2_base": 768,
}
# Built of the same layers as others, and slow to build.
LARGEST = {"resnet_50", "vit_small", "vit_base", "dinov2_base"}


def pixels(shape, count=2):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape)).astype("uint8")


def test_the_names():
    assert encoders.names() == list(WIDTHS)


@pytest.mark.parametrize(
    "name,shape",
    [
        pytest.param(
            *(name, (28, 28, 3) if "dino" in name else (32, 32, 3)),
            marks=[
                *([once] if WIDTHS[name] > 200 else []),
                *([more("smaller ones")] if name in LARGEST else []),
            ],
        )
        for name in WIDTHS
    ]
    + [(n, (28, 28, 1)) for n in ("resnet_nano", "resnet_18", "vit_nano")],
)
def test_each_name_gives_features(name, shape):
    encoder = encoders.build(name, shape)
    assert encoder.name == name
    assert encoder.input_shape == (None, *shape)
    assert encoder.output_shape == (None, WIDTHS[name])
    features = encoders.embed(encoder, pixels(shape))
    assert features.shape == (2, WIDTHS[name])
    assert features.dtype == np.float32 and np.isfinite(features).all()
    assert np.abs(features[0] - features[1]).max() > 1e-4


@pytest.mark.parametrize(
    "name,millions",
    [("resnet_nano", 0.309), ("resnet_18_small", 11.18), ("vit_nano", 0.68)],
)
def test_sizes_are_as_documented(name, millions):
    count = encoders.build(name, (32, 32, 3)).count_params() / 1e6
    assert count == pytest.approx(millions, rel=0.02)


def test_dinov2_is_as_large_as_kerashubs_preset():
    import keras_hub

    encoder = encoders.build("dinov2_small", (518, 518, 3))
    preset = keras_hub.models.DINOV2Backbone.presets["dinov2_small"]
    # All but the mask token.
    assert encoder.count_params() == preset["metadata"]["params"] - 384


def test_normalization_is_inside():
    encoder = encoders.build(
        "resnet_nano", (8, 8, 3), mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.5)
    )
    inner = keras.Model(
        encoder.input, encoder.get_layer("normalization").output
    )
    x = np.full((1, 8, 8, 3), 255, "uint8")
    out = ops.convert_to_numpy(inner(x))[0, 0, 0]
    np.testing.assert_allclose(out, [5.0, 2.5, 1.0], rtol=1e-5)


def test_uint8_and_float_are_the_same():
    encoder = encoders.build("resnet_nano", (16, 16, 3))
    x = pixels((16, 16, 3))
    np.testing.assert_allclose(
        encoders.embed(encoder, x),
        encoders.embed(encoder, x.astype("float32")),
        rtol=1e-6,
    )


def test_stages_halve_and_have_names():
    encoder = encoders.build("resnet_18_small", (32, 32, 3))
    shapes = [encoder.get_layer(f"stage{i}").output.shape for i in (1, 2, 3, 4)]
    assert [s[1] for s in shapes] == [32, 16, 8, 4]
    assert [s[-1] for s in shapes] == [64, 128, 256, 512]


def test_small_resnets_load_with_keras_alone(tmp_path):
    encoder = encoders.build("resnet_nano", (16, 16, 3))
    encoder.save(tmp_path / "encoder.keras")
    np.save(tmp_path / "x.npy", pixels((16, 16, 3)))
    code = (
        "import sys; sys.modules['kerassl'] = None\n"
        "import keras, numpy as np\n"
        f"m = keras.saving.load_model({str(tmp_path / 'encoder.keras')!r})\n"
        f"x = np.load({str(tmp_path / 'x.npy')!r})\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, m.predict(x, verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"),
        encoders.embed(encoder, np.load(tmp_path / "x.npy")),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_backbone_is_stock_kerashub():
    import keras_hub

    encoder = encoders.build("vit_nano", (32, 32, 3))
    backbone = encoder.get_layer("backbone")
    assert type(backbone) is keras_hub.models.ViTBackbone


def test_a_vit_gives_its_class_token():
    encoder = encoders.build("vit_nano", (32, 32, 3))
    x = pixels((32, 32, 3))
    normalized = encoder.get_layer("normalization")(x)
    tokens = ops.convert_to_numpy(encoder.get_layer("backbone")(normalized))
    assert tokens.shape == (2, 65, 96)
    np.testing.assert_allclose(
        encoders.embed(encoder, x), tokens[:, 0], rtol=1e-4, atol=1e-5
    )


def test_any_model_is_accepted():
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    flat = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))
    assert encoders.as_encoder(flat) is flat
    pooled = encoders.as_encoder(keras.Model(inputs, layers.Conv2D(7, 3)(x)))
    assert pooled.output_shape == (None, 7)
    tokens = layers.Reshape((4, 16, 3))(x)
    tokens = layers.Reshape((64, 3))(tokens)
    tokens = keras.Model(inputs, tokens)
    with pytest.raises(ValueError, match='isn.t known.*pooling="class"'):
        encoders.as_encoder(tokens)
    mean = encoders.as_encoder(tokens, pooling="mean")
    images = pixels((8, 8, 3))
    np.testing.assert_allclose(
        encoders.embed(mean, images),
        images.mean((1, 2)) / 255,
        rtol=1e-4,
    )


def test_a_kerashub_backbone_is_accepted():
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=(4, 4),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )
    encoder = encoders.as_encoder(backbone, mean=[0.5] * 3, std=[0.5] * 3)
    assert encoder.output_shape == (None, 8)


@pytest.mark.parametrize(
    "model,message",
    [
        ("resnet_nano", "kerassl.encoders.build"),
        (keras.Sequential([keras.layers.Dense(3)]), "are unknown"),
        (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), "N, H"),
    ],
)
def test_other_things_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        encoders.as_encoder(model)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="Nearest: resnet_nano"):
        encoders.build("resnet-nano", (32, 32, 3))


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(image_shape=(32, 32)), "image_shape"),
        (dict(image_shape=(32, 32, 4)), "channels"),
        (dict(image_shape=(32, 32, 3), mean=(0.5,)), "mean"),
        (dict(image_shape=(32, 32, 3), patch_size=4), "ViT"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        encoders.build("resnet_nano", **arguments)


def test_patches_must_fit():
    with pytest.raises(ValueError, match="patch_size"):
        encoders.build("vit_nano", (30, 30, 3))
    for shape in ((32, 32, 3), (28, 56, 3)):
        with pytest.raises(ValueError, match="square.*multiple.*14 px"):
            encoders.build("dinov2_small", shape)


def test_a_kerascv_backbone_is_accepted():
    keras_cv = pytest.importorskip("keras_cv")
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[8, 16],
        stackwise_blocks=[1, 1],
        stackwise_strides=[1, 2],
        input_shape=(32, 32, 3),
        include_rescaling=True,
    )
    encoder = encoders.as_encoder(backbone)
    assert encoder.output_shape == (None, 64)  # 4 x 16: bottleneck blocks
    features = encoders.embed(encoder, pixels((32, 32, 3)))
    assert np.isfinite(features).all()


# === at_size ===


@pytest.mark.parametrize("name", ["resnet_nano", "resnet_18"])
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


def fixed_resnet():
    """As a user may bring it: KerasHub's own, for one size."""
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(32, 32, 3),
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
        lambda: encoders.build("vit_nano", (32, 32, 3)),
        fixed_resnet,
        flat,
        subclassed,
    ],
    ids=["vit", "fixed_resnet", "flat", "subclassed"],
)
def test_what_is_tied_to_one_size_is_refused(make):
    with pytest.raises(ValueError, match="Take a ResNet, or views of one size"):
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
