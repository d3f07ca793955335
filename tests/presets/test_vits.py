"""Presets of DINOv2s, and of ViTs whose features are the mean of patches."""

import keras
import numpy as np
import pytest

import kerassl
from kerassl import encoders, presets
from kerassl.layers import bicubic_matrix
from kerassl.presets.format.kinds import BACKBONES
from kerassl.presets.published import serialized
from tests.encoders import test_adapt, test_graph
from tests.presets import make


def features(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def encoder_of(backbone, pooling=None):
    """An encoder with random weights, also of the positions."""
    encoder = encoders.as_encoder(
        backbone, mean=[0.5] * 3, std=[0.2] * 3, pooling=pooling
    )
    rng = np.random.default_rng(0)
    for weight in encoder.weights:
        weight.assign(rng.normal(0, 0.3, weight.shape))
    return encoder


def swiglu():
    import keras_hub

    return keras_hub.models.DINOV2Backbone(
        patch_size=8,
        intermediate_dim=16,
        use_mask_token=False,
        use_swiglu_ffn=True,
        image_shape=(16, 16, 3),
        position_embedding_shape=(16, 16, 3),
        **test_adapt.SIZES,
    )


@pytest.mark.parametrize(
    "make_backbone, pooling, output",
    [
        (test_adapt.vit, "mean", "patches"),
        (test_graph.dinov2, "mean", "patches"),
        (test_graph.dinov2, None, "class_token"),
        (swiglu, None, "class_token"),
    ],
)
def test_it_comes_back(make_backbone, pooling, output, tmp_path):
    encoder = encoder_of(make_backbone(), pooling)
    presets.check_encoder(encoder)
    folder = kerassl.save_preset(encoder, tmp_path / "p")
    info = kerassl.verify_preset(folder)
    assert info.output == output
    loaded = kerassl.load_encoder(folder)
    x = make.images_for((16, 16, 3))
    expected = features(encoder, x)
    np.testing.assert_allclose(features(loaded, x), expected, 1e-4, 1e-5)
    # The loaded one can be saved again, and read by KerasHub alone.
    again = kerassl.save_preset(loaded, tmp_path / "again")
    assert kerassl.verify_preset(again).output == output
    import keras_hub

    backbone = keras_hub.models.Backbone.from_preset(str(folder))
    converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
    inputs = converter(x.astype("float32"))
    if "dino" in type(backbone).__name__.lower():
        inputs = {"images": inputs}
    tokens = features(backbone, inputs)
    first = tokens.shape[1] - 4
    by_hand = tokens[:, 0] if pooling is None else tokens[:, first:].mean(1)
    np.testing.assert_allclose(by_hand, expected, rtol=1e-4, atol=1e-4)


def test_a_backbone_by_itself(tmp_path):
    backbone = test_graph.dinov2()
    presets.check_encoder(backbone)
    backbone.save(tmp_path / "backbone.keras")
    loaded = kerassl.load_encoder(tmp_path / "backbone.keras")
    x = make.images_for((16, 16, 3))
    expected = features(encoders.as_encoder(backbone), x)
    np.testing.assert_allclose(features(loaded, x), expected, 1e-4, 1e-5)


def test_many_channels(tmp_path):
    shape = (8, 8, 6)
    encoder = encoders.build("vit_nano", shape, mean=[0.5] * 6, std=[0.2] * 6)
    loaded = kerassl.load_encoder(kerassl.save_preset(encoder, tmp_path / "p"))
    x = make.images_for(shape)
    expected = features(encoder, x)
    np.testing.assert_allclose(features(loaded, x), expected, 1e-4, 1e-5)


def test_trained_positions_are_saved_and_interpolated(tmp_path):
    encoder = encoder_of(test_graph.dinov2(registers=0))
    layer = encoder.layers[2].embeddings
    positions = keras.ops.convert_to_numpy(
        layer.interpolated_position_embeddings
    )[0]
    folder = kerassl.save_preset(encoder, tmp_path / "p")
    loaded = kerassl.load_encoder(folder, image_shape=(24, 24, 3))
    layer = loaded.get_layer("backbone").embeddings
    matrix = bicubic_matrix(2, 3, False, 0.1)
    grid = positions[1:].reshape(2, 2, 8)
    expected = np.einsum("ah,bw,hwd->abd", matrix, matrix, grid).reshape(9, 8)
    for found in (
        layer.position_embeddings,
        layer.interpolated_position_embeddings,
    ):
        found = keras.ops.convert_to_numpy(found)[0]
        np.testing.assert_array_equal(found[0], positions[0])
        np.testing.assert_allclose(found[1:], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(presets.PresetError, match="square images"):
        kerassl.load_encoder(folder, image_shape=(24, 16, 3))


def test_positions_of_two_sizes_are_refused():
    with pytest.raises(presets.PresetError, match="such as hub:dinov2_small"):
        presets.check_encoder(encoder_of(test_graph.dinov2(trained_at=32)))


@pytest.mark.parametrize(
    "name, value",
    [
        ("image_shape", [16, 24, 3]),
        ("position_embedding_shape", [8, 8, 3]),
        ("num_heads", 3),
        ("num_register_tokens", 10**6),
        ("layer_scale_init_value", "1"),
        ("drop_path_rate", 0.1),
        ("use_swiglu_ffn", 1),
    ],
)
def test_bad_arguments_are_refused(name, value):
    config = serialized(test_graph.dinov2())
    BACKBONES["DINOV2Backbone"](config)
    config["config"][name] = value
    with pytest.raises(presets.PresetError):
        BACKBONES["DINOV2Backbone"](config)
