"""Presets of DINOv2s, and of ViTs whose features are the mean of patches."""

import keras
import numpy as np
import pytest
from keras import layers

import kerassl
from kerassl import encoders, presets
from kerassl.layers import bicubic_matrix
from kerassl.presets.extract import serialized
from kerassl.presets.format.kinds import BACKBONES
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


def around_vit(before=lambda x: x / 255, after=None):
    """An encoder with other layers around a ViT than `as_encoder` adds."""
    images = keras.Input((16, 16, 3))
    tokens = test_adapt.vit()(before(images))
    features = (after or layers.GlobalAveragePooling1D())(tokens)
    return make.randomize(keras.Model(images, features, name="around"))


def test_arithmetic_before_a_backbone_is_kept(tmp_path):
    x = make.images_for((16, 16, 3))
    halved, adapted = layers.Rescaling(0.1, 1.0), layers.Normalization()
    adapted.adapt(x)
    befores = (
        lambda x: x / 127.5 - 1,
        lambda x: halved(halved(x)),
        adapted,
        layers.Rescaling([[[0.1, 0.2, 0.3]]], -1.0),
    )
    for number, before in enumerate(befores):
        encoder = around_vit(before)
        presets.check_encoder(encoder)
        folder = kerassl.save_preset(encoder, tmp_path / f"{number}")
        expected = features(encoder, x)
        found = features(kerassl.load_encoder(folder), x)
        np.testing.assert_allclose(found, expected, 1e-3, 1e-4)
        # In a file too, which is rebuilt for images of another size.
        encoder.save(tmp_path / "encoder.keras")
        larger = kerassl.load_encoder(
            tmp_path / "encoder.keras", image_shape=(24, 24, 3)
        )
        np.testing.assert_allclose(
            larger.get_layer("normalization").scale,
            kerassl.verify_preset(folder).normalization["scale"],
        )


@pytest.mark.parametrize(
    "before, after, found",
    [
        (lambda x: x[..., ::-1] / 255, None, "GetItem"),
        (lambda x: x / np.full((16, 16, 3), 255.0), None, "Divide"),
        (layers.Rescaling(np.ones((16, 1, 1)) / 255), None, "Rescaling"),
        (
            lambda x: x / 255,
            lambda x: layers.GlobalAveragePooling1D()(x) * 2,
            "Pooling1D', 'Rescaling",
        ),
        (
            lambda x: x,
            lambda x: layers.GlobalAveragePooling1D()(layers.Rescaling(2.0)(x)),
            "ViTBackbone', 'Rescaling",
        ),
        (
            lambda x: x / 255,
            lambda x: layers.Reshape((8,))(layers.Cropping1D((4, 0))(x)),
            "Cropping1D', 'Reshape",
        ),
    ],
)
def test_what_a_preset_cannot_keep_is_refused(before, after, found):
    encoder = encoders.as_encoder(
        around_vit(before, after), normalization="included"
    )
    with pytest.raises(presets.PresetError, match=f"around has .*{found}"):
        presets.check_encoder(encoder)


def test_a_function_that_is_no_rescaling_is_refused():
    encoder = encoders.as_encoder(
        make.resnet_encoder().get_layer("backbone"),
        normalization=keras.applications.resnet.preprocess_input,
    )
    with pytest.raises(presets.PresetError, match="a Rescaling before it"):
        presets.check_encoder(encoder)


def test_a_subclass_around_a_backbone_is_refused():
    class Encoder(keras.Model):
        input_shape, output_shape = (None, 16, 16, 3), (None, 8)

        def __init__(self):
            super().__init__(name="mine")
            self.backbone = test_adapt.vit()
            self.pool = layers.GlobalAveragePooling1D()

        def call(self, images):
            return self.pool(self.backbone(images / 255))

    encoder = encoders.as_encoder(Encoder(), normalization="included")
    with pytest.raises(presets.PresetError, match="mine is not a graph"):
        presets.check_encoder(encoder)


def test_a_sequential_model_around_a_backbone(tmp_path):
    encoder = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Rescaling(1 / 255),
            test_adapt.vit(),
            layers.GlobalAveragePooling1D(),
        ]
    )
    folder = kerassl.save_preset(encoder, tmp_path / "p")
    x = make.images_for((16, 16, 3))
    np.testing.assert_allclose(
        features(kerassl.load_encoder(folder), x), features(encoder, x), 1e-4
    )


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


@pytest.mark.parametrize(
    "make_encoder, pooling",
    [
        (lambda: encoder_of(test_adapt.vit(), "mean"), ', pooling="gap"'),
        (lambda: make.vit_encoder(class_token=False), ', pooling="gap"'),
        (make.vit_encoder, ""),
    ],
)
def test_the_card_classifies_by_what_was_trained(
    make_encoder, pooling, tmp_path
):
    import keras_hub

    encoder = make_encoder()
    folder = kerassl.save_preset(encoder, tmp_path / "vit")
    card = (folder / "README.md").read_text()
    assert f'"hf://OWNER/vit", num_classes=10{pooling}\n' in card
    options = {"pooling": "gap"} if pooling else {}
    classifier = keras_hub.models.ImageClassifier.from_preset(
        str(folder), num_classes=10, **options
    )
    assert classifier.pooling == (options.get("pooling") or "token")
    images = make.images_for(encoder.input_shape[1:])
    assert features(classifier, images).shape == (3, 10)


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
