"""Encoders by name and by hand."""

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


def test_mean_and_deviation_in_arrays(tmp_path):
    values = np.full(5, 0.5, "float32")
    encoder = encoders.build("resnet_nano", (8, 8, 5), mean=values, std=values)
    encoder.save(tmp_path / "encoder.keras")
    (scale, *_) = encoder.get_layer("normalization").scale
    assert scale == pytest.approx(1 / 127.5)
    with pytest.raises(
        ValueError, match="mean and the deviation of 5 channels"
    ):
        encoders.build("resnet_nano", (8, 8, 5), mean=values)


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


def test_outputs_in_a_dict_are_refused():
    images = keras.Input((8, 8, 3))
    feature = keras.layers.GlobalAveragePooling2D()(images)
    # Keras gives the shape of a single output as if it was a tensor.
    for outputs in ({"f": feature}, {"f": feature, "g": feature}):
        with pytest.raises(ValueError, match=r"'f': \(None, 3\).*\[NAME\]"):
            encoders.as_encoder(keras.Model(images, outputs))


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="Nearest: resnet_nano"):
        encoders.build("resnet-nano", (32, 32, 3))
    for name, nearest in (
        ("convnext_tiny", "keras:ConvNeXtTiny"),
        ("efficientnet_b0", "keras:EfficientNetB0"),
        ("ResNet50", "resnet_50"),
        ("resnet_50_v2", ".*keras:ResNet50V2"),
        ("dinov2_vits14", ".*dinov2_small"),
    ):
        with pytest.raises(ValueError, match=f"Nearest: {nearest}[,.]"):
            encoders.build(name, (32, 32, 3))


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(image_shape=(32, 32)), "image_shape"),
        (dict(image_shape=32), "image_shape"),
        (dict(image_shape=(0, 32, 3)), "image_shape"),
        (dict(image_shape=(32.5, 32, 3)), "image_shape"),
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
