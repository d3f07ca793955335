"""Replaying graphs, finding ViTs, and the tokens of KerasHub's models."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerassl import encoders
from kerassl.encoders import graph
from tests.encoders.test_adapt import SIZES, features, pixels, vit

pytestmark = pytest.mark.every_backend


def nested():
    """A convolution in an inner model, between two layers."""
    inputs = keras.Input((16, 16, 3))
    inner = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3, name="conv")]
    )
    x = inner(layers.Rescaling(1 / 255, name="scale")(inputs))
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x))


# === Replay ===


def test_a_replay_shares_layers_at_any_size():
    model = nested()
    images = keras.Input((20, 20, 3))
    again = keras.Model(images, graph.replay(model, images))
    assert [id(w) for w in again.weights] == [id(w) for w in model.weights]
    x = pixels(20).astype("float32")
    conv = model.layers[2].layers[0]
    np.testing.assert_allclose(
        features(again, x),
        ops.convert_to_numpy(conv(x / 255)).mean((1, 2)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_hook_sees_all_layers_and_replaces_outputs():
    model, names = nested(), []

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.Model):
            return graph.replay(layer, args, call)
        names.append(layer.name)
        if layer.name == "scale":
            return args[0]
        return layer(*args, **kwargs)

    images = keras.Input((16, 16, 3))
    again = keras.Model(images, graph.replay(model, {"x": images}, call))
    assert names == ["scale", "conv", "pool"]
    x = pixels().astype("float32")
    np.testing.assert_allclose(
        features(again, x / 255), features(model, x), rtol=1e-4, atol=1e-5
    )


def test_what_is_no_graph_is_refused():
    class Subclass(keras.Model):
        def call(self, x):
            return x

    for model in (Subclass(), keras.Sequential([layers.Flatten()])):
        assert not graph.is_graph(model)
        with pytest.raises(ValueError, match="not a Functional or Sequential"):
            graph.replay(model, keras.Input((4, 4, 3)))
    assert graph.is_graph(nested())


@pytest.mark.parametrize("name", ["pool", "conv"])
def test_the_part_before_a_layer(name):
    model = nested()
    conv = model.layers[2].layers[0]
    layer = conv if name == "conv" else model.get_layer("pool")
    before = graph.part_before(model, layer)
    assert before.input_shape == model.input_shape
    x = pixels().astype("float32")
    expected = x / 255 if name == "conv" else conv(x / 255)
    np.testing.assert_allclose(
        features(before, x),
        ops.convert_to_numpy(expected),
        rtol=1e-4,
        atol=1e-5,
    )


# === ViTs ===


def test_a_vit_is_found_wherever_it_is():
    backbone = vit()
    inner = encoders.as_encoder(backbone, mean=[0.5] * 3)
    inputs = keras.Input((16, 16, 3))
    for encoder in (backbone, inner, keras.Model(inputs, inner(inputs))):
        found = graph.find_vit_backbone(encoder)
        assert found.backbone is backbone
        assert found.embedding is backbone.layers[1]
        assert found.blocks == backbone.layers[2].encoder_layers
        assert found.grid == (2, 2)
        assert graph.vit_layers(encoder) == [
            "vit_patching_and_embedding",
            "transformer_block_1",
        ]


def test_a_deit_or_the_layers_of_a_vit_are_no_backbone():
    backbone = vit()
    cut = keras.Model(backbone.input, backbone.output[:, 0])
    for model, first in ((deit(), "deit"), (cut, "vit")):
        assert graph.find_vit_backbone(model) is None
        assert graph.vit_layers(model) == [
            f"{first}_patching_and_embedding",
            "transformer_block_1",
        ]
    assert graph.find_vit(nested()) is None
    assert graph.vit_layers(nested()) == []


# === Tokens ===


def dinov2(registers=2, trained_at=16, **sizes):
    import keras_hub

    return keras_hub.models.DINOV2Backbone(
        patch_size=8,
        intermediate_dim=16,
        num_register_tokens=registers,
        image_shape=(16, 16, 3),
        position_embedding_shape=(trained_at, trained_at, 3),
        **(SIZES | sizes),
    )


def dinov3():
    import keras_hub

    return keras_hub.models.DINOV3Backbone(
        patch_size=8,
        intermediate_dim=16,
        num_register_tokens=2,
        image_shape=(16, 16, 3),
        **SIZES,
    )


def deit():
    import keras_hub

    return keras_hub.models.DeiTBackbone(
        image_shape=(16, 16, 3), patch_size=8, intermediate_dim=16, **SIZES
    )


@pytest.mark.parametrize(
    "make,first,key",
    [
        (vit, 1, None),
        (deit, 2, None),
        (dinov2, 3, "images"),
        (dinov3, 3, "pixel_values"),
    ],
)
def test_features_are_the_class_token(make, first, key):
    backbone = make()
    encoder = encoders.as_encoder(backbone, mean=[0.5] * 3, std=[0.2] * 3)
    x = pixels()
    normal = ops.convert_to_tensor(((x / 255 - 0.5) / 0.2).astype("float32"))
    tokens = features(backbone, normal if key is None else {key: normal})
    assert tokens.shape == (2, first + 4, 8)
    close = dict(rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(features(encoder, x), tokens[:, 0], **close)
    # Registers and distillation tokens are not patches either.
    maps = features(encoders.feature_map(encoder), x)
    np.testing.assert_allclose(
        maps.reshape(2, 4, 8), tokens[:, first:], **close
    )
    mean = encoders.as_encoder(
        backbone, mean=[0.5] * 3, std=[0.2] * 3, pooling="mean"
    )
    patches = tokens[:, first:].mean(1)
    np.testing.assert_allclose(features(mean, x), patches, **close)
    np.testing.assert_array_equal(features(encoders.feature_map(mean), x), maps)
    # It is seen through a model around it, too.
    inputs = keras.Input((16, 16, 3))
    given = layers.Rescaling(1 / 255)(inputs)
    around = keras.Model(
        inputs,
        layers.Identity()(backbone(given if key is None else {key: given})),
    )
    np.testing.assert_allclose(
        features(encoders.as_encoder(around), x),
        features(around, x)[:, 0],
        **close,
    )


def test_a_swin_transformers_tokens_are_averaged():
    import keras_hub

    backbone = keras_hub.models.SwinTransformerBackbone(
        image_shape=(16, 16, 3),
        embed_dim=8,
        depths=(1,),
        num_heads=(2,),
        window_size=2,
        patch_size=4,
    )
    encoder = encoders.as_encoder(
        backbone, normalization=layers.Rescaling(1 / 255)
    )
    x = pixels()
    np.testing.assert_allclose(
        features(encoder, x),
        features(backbone, x / 255.0).mean(1),
        rtol=1e-3,
        atol=1e-4,
    )


def test_tokens_of_which_nothing_is_known_are_refused():
    backbone = deit()
    inner = keras.Model(backbone.input, backbone.layers[2].output[0])
    for pooling in (None, "class", "mean"):
        with pytest.raises(ValueError, match="isn't known.*model.output"):
            encoders.as_encoder(inner, mean=[0.5] * 3, pooling=pooling)
