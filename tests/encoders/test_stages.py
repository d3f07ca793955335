"""Features from inside an encoder."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerassl
from kerassl import encoders
from tests.backends import more
from tests.contracts.methods import tiny_encoder

# Of each encoder: the first stage, how many there are, and their widths.
STAGES = {
    "resnet_nano": ("stage1", [32, 64, 128]),
    "resnet_18_small": ("stage1", [64, 128, 256, 512]),
    "resnet_50_small": ("stage1", [256, 512, 1024, 2048]),
    "resnet_18": ("P2", [64, 128, 256, 512]),
    "resnet_50": ("P2", [256, 512, 1024, 2048]),
    "vit_nano": ("transformer_block_1", [96] * 6),
    "vit_tiny": ("transformer_block_1", [192] * 12),
    "vit_small": ("transformer_block_1", [384] * 12),
    "vit_base": ("transformer_block_1", [768] * 12),
    "dinov2_small": ("stage1", [384] * 12),
    "dinov2_base": ("stage1", [768] * 12),
}


def pixels(shape=(32, 32, 3), count=3):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape)).astype("uint8")


def test_all_names_are_tested():
    assert list(STAGES) == encoders.names()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            n, marks=more("dinov2_small") if n == "dinov2_base" else []
        )
        for n in STAGES
    ],
)
def test_each_encoder_has_stages(name):
    small = ("resnet_nano", "resnet_18", "vit_nano")
    if keras.backend.backend() != "torch" and name not in small:
        pytest.skip("its graph is the same, and slow to build")
    side = 28 if name in ("dinov2_small", "dinov2_base") else 32
    encoder = encoders.build(name, (side, side, 3))
    found = encoders.stages(encoder)
    first, widths = STAGES[name]
    assert found[0] == first and len(found) == len(widths)
    model = encoders.stage_features(encoder, found)
    shapes = {stage: made.shape for stage, made in model.output.items()}
    assert shapes == {stage: (None, w) for stage, w in zip(found, widths)}
    # The weights are the encoder's, none is left out or doubled.
    assert {id(w) for w in model.weights} == {id(w) for w in encoder.weights}
    assert len(model.weights) == len(encoder.weights)


# The smallest of each kind: the others differ in numbers alone.
@pytest.mark.parametrize("name", ["resnet_nano", "resnet_18", "vit_nano"])
def test_the_last_stage_is_the_encoders_output(name):
    encoder = encoders.build(name, (32, 32, 3))
    found = encoders.stages(encoder)
    x = pixels()
    features = encoders.stage_features(encoder, found).predict(x, verbose=0)
    for stage in found:
        assert np.isfinite(features[stage]).all()
        assert np.abs(features[stage][0] - features[stage][1]).max() > 1e-4
    np.testing.assert_allclose(
        features[found[-1]],
        encoders.embed(encoder, x),
        rtol=1e-4,
        atol=1e-4 * np.abs(features[found[-1]]).max(),
    )


def test_small_resnets_average_the_layer():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    maps = keras.Model(encoder.input, encoder.get_layer("stage2").output)
    features = encoders.embed(encoder, pixels(), layer="stage2")
    assert features.dtype == np.float32
    np.testing.assert_allclose(
        features,
        maps.predict(pixels(), verbose=0).mean((1, 2)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_kerashub_resnets_average_the_pyramid():
    encoder = encoders.build("resnet_18", (32, 32, 3))
    backbone = encoder.get_layer("backbone")
    pyramid = keras.Model(backbone.input, backbone.pyramid_outputs)
    maps = pyramid(encoder.get_layer("normalization")(pixels()))
    assert list(maps) == encoders.stages(encoder)
    for name, values in maps.items():
        np.testing.assert_allclose(
            encoders.embed(encoder, pixels(), layer=name),
            ops.convert_to_numpy(values).mean((1, 2)),
            rtol=1e-4,
            atol=1e-5,
        )


def test_vits_normalize_each_blocks_class_token():
    encoder = encoders.build("vit_nano", (32, 32, 3))
    backbone = encoder.get_layer("backbone")
    x = encoder.get_layer("normalization")(pixels())
    x = backbone.get_layer("vit_patching_and_embedding")(x)
    inner = backbone.get_layer("vit_encoder")
    for block in inner.encoder_layers[:2]:
        x = block(x)
    expected = ops.convert_to_numpy(inner.layer_norm(x))[:, 0]
    features = encoders.embed(encoder, pixels(), layer="transformer_block_2")
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)


def test_only_the_layers_before_run():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    model = encoders.stage_features(encoder, ["stage1"])
    assert "stage2" not in {layer.name for layer in model.layers}
    assert len(model.weights) < len(encoder.weights)


def test_weights_are_shared():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    model = encoders.stage_features(encoder, ["stage2"])
    before = model.predict(pixels(), verbose=0)["stage2"]
    encoder.set_weights([0.5 * w for w in encoder.get_weights()])
    after = model.predict(pixels(), verbose=0)["stage2"]
    assert np.abs(after - before).max() > 1e-4


def test_stages_survive_saving(tmp_path):
    for name in ("resnet_18", "vit_nano"):
        encoder = encoders.build(name, (32, 32, 3))
        stage = encoders.stages(encoder)[1]
        before = encoders.embed(encoder, pixels(), layer=stage)
        encoder.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert encoders.stages(loaded) == encoders.stages(encoder)
        np.testing.assert_allclose(
            encoders.embed(loaded, pixels(), layer=stage),
            before,
            rtol=1e-4,
            atol=1e-5,
        )


def test_a_size_made_by_at_size_has_its_own():
    encoder = encoders.at_size(encoders.build("resnet_18", (32, 32, 3)), 48)
    features = encoders.embed(encoder, pixels((48, 48, 3)), layer="P3")
    assert features.shape == (3, 128)


# === Other models ===


def test_other_models_have_the_last_layer_of_each_resolution():
    encoder = tiny_encoder()
    found = encoders.stages(encoder)
    shapes = [encoder.get_layer(name).output.shape for name in found]
    assert shapes == [(None, 6, 6, 16), (None, 2, 2, 24)]
    x = pixels((28, 28, 1))
    np.testing.assert_allclose(
        encoders.embed(encoder, x, layer=found[-1]),
        encoders.embed(encoder, x),
        rtol=1e-5,
        atol=1e-6,
    )


def test_any_layer_will_do():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    assert encoders.embed(encoder, pixels(), layer="stem_conv").shape == (3, 32)
    # A layer whose output is flat is taken as it is.
    np.testing.assert_allclose(
        encoders.embed(encoder, pixels(), layer="pool"),
        encoders.embed(encoder, pixels()),
        rtol=1e-5,
        atol=1e-6,
    )
    encoder = encoders.build("resnet_18", (32, 32, 3))
    name = "stack1_block0_1_conv"  # Inside the backbone.
    assert encoders.embed(encoder, pixels(), layer=name).shape == (3, 128)


def test_all_stages_side_by_side():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    each = [
        encoders.embed(encoder, pixels(), layer=name)
        for name in encoders.stages(encoder)
    ]
    found = encoders.embed(encoder, pixels(), layer="stages")
    assert found.shape == (3, 32 + 64 + 128)
    np.testing.assert_allclose(
        found, np.concatenate(each, axis=1), rtol=1e-5, atol=1e-6
    )
    flat = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten()])
    with pytest.raises(ValueError, match="has no known stages"):
        encoders.layer_features(flat, "stages")


def test_a_sequential_model():
    encoder = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(4, 3, name="conv"),
            keras.Sequential([layers.Conv2D(5, 3, 2, name="inner")]),
            layers.GlobalAveragePooling2D(),
        ]
    )
    assert encoders.embed(encoder, pixels(), layer="conv").shape == (3, 4)
    assert encoders.embed(encoder, pixels(), layer="inner").shape == (3, 5)
    assert len(encoders.stages(encoder)) == 2


@pytest.mark.parametrize("class_token", [False, True])
def test_tokens_of_patches_are_averaged(class_token):
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=(4, 4),
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
        use_class_token=class_token,
    )
    encoder = encoders.as_encoder(
        backbone, mean=[0.5] * 3, std=[0.5] * 3, pooling="mean"
    )
    x = pixels((16, 16, 3)).astype("float32") / 255
    np.testing.assert_allclose(
        encoders.embed(encoder, x * 255, layer="transformer_block_2"),
        encoders.embed(encoder, x * 255),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_subclassed_model_has_none():
    class Encoder(keras.Model):
        input_shape, output_shape = (None, 32, 32, 3), (None, 3)

        def call(self, x):
            return ops.mean(x, axis=(1, 2))

    assert encoders.stages(Encoder()) == []
    with pytest.raises(ValueError, match="not a Functional model"):
        encoders.embed(Encoder(), pixels(), layer="stage1")


def test_a_layer_inside_that_is_called_as_one_around_it(tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, 2, name="conv")(inputs / 255)
    maps = layers.MaxPooling2D(name="pool")(x)
    encoder = encoders.as_encoder(
        keras.Model(inputs, maps, name="cnn"), normalization="included"
    )
    assert encoders.stages(encoder) == ["conv", "cnn"]
    np.testing.assert_allclose(
        encoders.embed(encoder, pixels(), layer="pool"),
        encoders.embed(encoder, pixels()),
        rtol=1e-5,
    )
    assert encoders.at_size(encoder, 48).output_shape == (None, 4)
    folder = kerassl.save_preset(encoder, tmp_path / "preset")
    np.testing.assert_allclose(
        encoders.embed(kerassl.load_encoder(folder), pixels()),
        encoders.embed(encoder, pixels()),
        rtol=1e-5,
    )


def test_a_name_of_two_layers():
    """Which a model of a file, and layers of another process, may have."""

    def head():
        return layers.Dense(5, name="dense")

    inner = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(4, 3, 2, name="conv"),
            layers.GlobalAveragePooling2D(),
            head(),
        ]
    )
    encoder = keras.Sequential([keras.Input((32, 32, 3)), inner, head()])
    assert encoders.stages(encoder) == []
    assert list(encoders.parts(encoder)) == ["encoder"]
    with pytest.raises(ValueError, match="Two of its layers are called 'dens"):
        encoders.embed(encoder, pixels(), layer="conv")
    # A layer that is called twice has one name.
    dense = layers.Dense(3, name="dense")
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(3, 3, 2, name="conv")(inputs)
    x = dense(dense(layers.GlobalAveragePooling2D()(x)))
    assert encoders.stages(keras.Model(inputs, x)) == ["conv"]


# === Errors, and the model's own `embed` ===


def test_unknown_layers_get_the_nearest():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    with pytest.raises(
        ValueError, match="'stage9'.*Nearest: stage.*All: stage1, stage2, stage"
    ):
        encoders.embed(encoder, pixels(), layer="stage9")


def test_a_layers_model_is_made_once():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    first = encoders.embed(encoder, pixels(), layer="stages")
    (layer,) = (x for x in encoder.layers if x.name == "stage1")
    nodes = len(layer._inbound_nodes)
    again = encoders.embed(encoder, pixels(), layer="stages")
    assert len(layer._inbound_nodes) == nodes
    np.testing.assert_array_equal(first, again)
    encoder.set_weights([w + 0.01 for w in encoder.get_weights()])
    assert (encoders.embed(encoder, pixels(), layer="stages") != again).any()
    # And let go with the encoder.
    known = weakref.ref(encoder)
    del encoder, layer
    gc.collect()
    assert known() is None


def test_a_model_embeds_a_layer():
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    model = kerassl.Rotation(encoder)
    np.testing.assert_allclose(
        model.embed(pixels(), layer="stage2", batch_size=2),
        encoders.embed(encoder, pixels(), layer="stage2"),
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="no layer of resnet_nano 'stagee2'"):
        model.embed(pixels(), layer="stagee2")


def test_half_precision_gives_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = encoders.build("resnet_nano", (16, 16, 3))
    features = encoders.embed(encoder, pixels((16, 16, 3)), layer="stage1")
    assert features.dtype == np.float32 and np.isfinite(features).all()
