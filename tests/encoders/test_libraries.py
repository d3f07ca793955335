"""Encoders of `keras.applications` and of KerasHub's presets, by name."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl import encoders, names
from kerassl.layers import bicubic_matrix
from kerassl.layers.saved_positions import keep_positions
from tests.encoders import test_adapt, test_graph
from tests.encoders.test_adapt import features, pixels


def test_all_applications_are_known():
    known = {
        name
        for name in dir(keras.applications)
        if callable(getattr(keras.applications, name))
    }
    assert known == set(names.APPLICATIONS)


@pytest.mark.parametrize(
    "name,mean,spread",
    [
        ("MobileNetV3Small", "included", None),
        ("EfficientNetB0", "included", None),
        ("MobileNetV2", "scaled", 2.0),
        ("VGG16", "caffe", 255.0),
    ],
)
def test_an_application_has_its_own_preprocessing(name, mean, spread):
    encoder = encoders.build(f"keras:{name}", (32, 32, 3))
    module = {
        "MobileNetV3Small": keras.applications.mobilenet_v3,
        "EfficientNetB0": keras.applications.efficientnet,
        "MobileNetV2": keras.applications.mobilenet_v2,
        "VGG16": keras.applications.vgg16,
    }[name]
    body = next(x for x in encoder.layers if isinstance(x, keras.Model))
    x = pixels(32)
    expected = body(module.preprocess_input(x.astype("float32")))
    expected = ops.convert_to_numpy(expected)
    if expected.ndim == 4:
        expected = expected.mean((1, 2))
    np.testing.assert_allclose(
        features(encoder, x), expected, rtol=1e-3, atol=1e-5
    )


def test_convnext_normalizes_its_pooled_features():
    encoder = encoders.build("keras:ConvNeXtTiny", (32, 32, 3))
    found = features(encoder, pixels(32))
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(1), 1, atol=1e-2)


def test_one_channel_and_a_mean_of_ones_own():
    for name in ("MobileNetV2", "MobileNetV3Small"):
        encoder = encoders.build(f"keras:{name}", (32, 32, 1))
        assert encoder.input_shape == (None, 32, 32, 1)
    encoder = encoders.build(
        "keras:MobileNetV2", (32, 32, 3), mean=[0.1] * 3, std=[0.2] * 3
    )
    layer = encoder.get_layer("normalization")
    assert layer.scale == pytest.approx([1 / 51] * 3)
    with pytest.raises(ValueError, match="normalized twice"):
        encoders.build("keras:MobileNetV3Small", (32, 32, 3), mean=[0.1] * 3)


def test_an_application_trains_and_is_saved(tmp_path):
    encoder = encoders.build("keras:MobileNetV3Small", (32, 32, 3))
    small = encoders.at_size(encoder, 48)
    assert small.output_shape == encoder.output_shape
    assert np.isfinite(features(small, pixels(48))).all()
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(
        features(loaded, pixels(32)), features(encoder, pixels(32))
    )


@pytest.mark.parametrize(
    "name,message",
    [
        ("keras:MobilNetV2", "Nearest: MobileNetV2"),
        ("keras:InceptionV3", "can't take images of 32x32"),
        ("hub:", "needs the name of a preset"),
        ("hub:resnet_18_imagenett", "Nearest: resnet_18_imagenet"),
        ("hub:/nowhere", "can't load the preset '/nowhere'"),
        ("kers:VGG16", "keras:NAME of `keras.applications`, hub:PRESET"),
    ],
)
def test_bad_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        encoders.build(name, (32, 32, 3))


# === Presets of KerasHub ===

SCALE, OFFSET = [0.01, 0.02, 0.03], [-1.0, -2.0, -3.0]


def saved(backbone, folder, converter=True):
    """Saves a backbone with random weights as a preset of KerasHub."""
    import keras_hub

    rng = np.random.default_rng(0)
    for weight in backbone.weights:
        if weight.trainable:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    keep_positions(backbone)  # KerasHub may lose DINOv2's.
    backbone.save_to_preset(str(folder))
    kind = type(backbone).__name__.replace("Backbone", "ImageConverter")
    made = getattr(keras_hub.layers, kind)(
        image_size=(24, 24), scale=SCALE, offset=OFFSET
    )
    if converter:
        made.save_to_preset(str(folder))
    return backbone, made


def resnet():
    import keras_hub

    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )


@pytest.mark.parametrize(
    "make", [resnet, test_adapt.vit, test_graph.dinov2, test_graph.deit]
)
def test_a_preset_has_kerashubs_own_preprocessing(make, tmp_path):
    backbone, converter = saved(make(), tmp_path)
    encoder = encoders.build(f"hub:{tmp_path}", (16, 16, 3))
    converter.image_size = (16, 16)
    x = pixels()
    normal = converter(x.astype("float32"))
    inputs = {"images": normal} if "dino" in backbone.name else normal
    expected = features(backbone, inputs)
    expected = expected.mean((1, 2)) if expected.ndim == 4 else expected[:, 0]
    np.testing.assert_allclose(
        features(encoder, x), expected, rtol=1e-4, atol=1e-4
    )


def test_a_network_for_any_size_gets_the_one_asked_for(tmp_path):
    saved(resnet(), tmp_path)
    source = f"hub:{tmp_path}"
    wanted = (None, 16, 24, 3)
    assert encoders.build(source, (16, 24, 3)).input_shape == wanted
    encoder = kerassl.load_encoder(source, image_shape=(16, 24, 3))
    assert encoder.input_shape == wanted
    x = pixels(24)[:, :16]
    of_any = kerassl.load_encoder(source)
    np.testing.assert_array_equal(features(encoder, x), features(of_any, x))


@pytest.mark.parametrize("make", [test_adapt.vit, test_graph.dinov2])
def test_positions_of_a_preset_are_interpolated(make, tmp_path):
    backbone, _ = saved(make(), tmp_path)
    encoder = encoders.build(f"hub:{tmp_path}", (24, 24, 3))
    x = pixels(24)
    small = encoders.build(f"hub:{tmp_path}", (16, 16, 3))
    # As in the step, where `at_size` interpolates the same positions.
    np.testing.assert_allclose(
        features(encoder, x),
        features(encoders.at_size(small, 24), x),
        rtol=1e-3,
        atol=1e-4,
    )
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(features(loaded, x), features(encoder, x))


def test_dinov2s_are_interpolated_from_the_size_of_training(tmp_path):
    saved(test_graph.dinov2(registers=0, trained_at=32), tmp_path)
    encoder = encoders.build(f"hub:{tmp_path}", (24, 24, 3))
    layer = encoder.layers[2].embeddings
    found = ops.convert_to_numpy(layer.interpolated_position_embeddings)[0]
    import keras_hub

    original = keras_hub.models.Backbone.from_preset(str(tmp_path))
    table = ops.convert_to_numpy(original.embeddings.position_embeddings)[0]
    matrix = bicubic_matrix(4, 3, False, 0.1)
    grid = table[1:].reshape(4, 4, 8)
    expected = np.einsum("ah,bw,hwd->abd", matrix, matrix, grid)
    np.testing.assert_allclose(found[0], table[0], rtol=1e-5)
    np.testing.assert_allclose(
        found[1:], expected.reshape(9, 8), rtol=1e-4, atol=1e-5
    )


def test_a_preset_that_does_not_fit_is_refused(tmp_path):
    saved(resnet(), tmp_path / "resnet", converter=False)
    with pytest.raises(ValueError, match="isn't seen to normalize images"):
        encoders.build(f"hub:{tmp_path / 'resnet'}", (16, 16, 3))
    encoder = encoders.build(
        f"hub:{tmp_path / 'resnet'}", (16, 16, 3), mean=[0.5] * 3
    )
    assert encoder.output_shape == (None, 64)
    saved(test_adapt.vit(), tmp_path / "vit")
    with pytest.raises(ValueError, match="takes images with 3 channels"):
        encoders.build(f"hub:{tmp_path / 'vit'}", (16, 16, 1))
    with pytest.raises(ValueError, match="can't take images of 20x20"):
        encoders.build(f"hub:{tmp_path / 'vit'}", (20, 20, 3))


def test_recipes_take_the_names():
    model = kerassl.SimCLR.from_recipe(
        "cpu",
        encoder="keras:MobileNetV3Small",
        image_shape=(32, 32, 3),
        steps=10,
    )
    assert model.encoder.output_shape == (None, 576)
