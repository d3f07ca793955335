"""Other models as encoders: their normalization, pooling and heads."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerassl
from kerassl import encoders

SIZES = dict(num_layers=1, num_heads=2, hidden_dim=8)
SCALE, OFFSET = [0.01, 0.02, 0.03], [-1.0, -2.0, -3.0]


def pixels(size=16, count=2):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size, 3)).astype("uint8")


def features(model, images):
    """What a model returns, in inference mode."""
    return ops.convert_to_numpy(model(images, training=False))


def vit(**kwargs):
    import keras_hub

    return keras_hub.models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=(8, 8),
        mlp_dim=16,
        **SIZES,
        **kwargs,
    )


def raw(head=None, before=None):
    """A network on images as they come, or as `before` makes them."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(5, 5, 3)(inputs if before is None else before(inputs))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, x if head is None else head(x))


class Halves(layers.Layer):
    """Without weights, and no normalization."""

    def call(self, x):
        return x[:, ::2]


# === Normalization ===


def adapted():
    layer = layers.Normalization()
    layer.adapt(pixels().astype("float32"))
    return layer


@pytest.mark.parametrize(
    "before",
    [
        lambda: layers.Rescaling(1 / 255),
        lambda: lambda x: x / 127.5 - 1,
        lambda: keras.Sequential(
            [layers.RandomFlip(), layers.Rescaling(1 / 255)]
        ),
        adapted,
        layers.Normalization,  # To be adapted later.
        layers.BatchNormalization,
        lambda: layers.Lambda(lambda x: x / 255, output_shape=(16, 16, 3)),
    ],
    ids=[
        "rescaling",
        "arithmetic",
        "nested",
        "adapted",
        "unadapted",
        "norm",
        "lambda",
    ],
)
def test_a_model_that_normalizes_is_taken_as_it_is(before):
    model = raw(before=before())
    assert encoders.as_encoder(model) is model
    nested = keras.Sequential([keras.Input((16, 16, 3)), model])
    assert encoders.as_encoder(nested) is nested
    with pytest.raises(ValueError, match="normalized twice"):
        encoders.as_encoder(raw(before=before()), mean=[0.5] * 3)


@pytest.mark.parametrize(
    "before",
    [
        None,
        Halves,
        lambda: layers.Rescaling(2, -1),  # Of images in [0, 1].
        lambda: lambda x: (x - 0.5) / 0.2,
        lambda: layers.ZeroPadding2D(1),
    ],
    ids=["nothing", "halves", "unit", "arithmetic", "padding"],
)
def test_a_model_that_does_not_is_refused(before):
    model = raw(before=before and before())
    with pytest.raises(ValueError, match="as_encoder.model, mean=") as error:
        kerassl.SimCLR(model)
    assert "\n" not in str(error.value)
    assert '"included"' in str(error.value)
    # The word is remembered.
    assert encoders.as_encoder(model, normalization="included") is model
    assert kerassl.SimCLR(model).encoder is model


def test_keras_applications():
    applications = keras.applications
    settings = dict(input_shape=(32, 32, 3), include_top=False, weights=None)
    plain = applications.MobileNetV2(alpha=0.35, **settings)
    with pytest.raises(ValueError, match="isn't seen to normalize"):
        encoders.as_encoder(plain)
    function = applications.mobilenet_v2.preprocess_input
    encoder = encoders.as_encoder(plain, normalization=function)
    x = pixels(32)
    expected = plain(function(x.astype("float32")), training=False)
    np.testing.assert_allclose(
        features(encoder, x),
        ops.convert_to_numpy(ops.mean(expected, (1, 2))),
        rtol=1e-4,
        atol=1e-5,
    )
    # A core layer, which a preset can hold.
    assert isinstance(encoder.layers[1], layers.Rescaling)
    # These bring their own, or not; their function changes nothing.
    function = applications.mobilenet_v3.preprocess_input
    own = applications.MobileNetV3Small(minimalistic=True, **settings)
    assert encoders.as_encoder(own).output_shape == (None, 576)
    encoders.as_encoder(own, normalization=function)
    without = applications.MobileNetV3Small(
        minimalistic=True, include_preprocessing=False, **settings
    )
    with pytest.raises(ValueError, match="isn't seen to normalize"):
        encoders.as_encoder(without, normalization=function)


def test_a_function_that_is_no_rescaling():
    """Those of Caffe's networks turn RGB to BGR."""
    function = keras.applications.resnet.preprocess_input
    model = raw()
    encoder = encoders.as_encoder(model, normalization=function)
    x = pixels().astype("float32")
    np.testing.assert_allclose(
        features(encoder, x),
        features(model, function(x.copy())),
        rtol=1e-4,
        atol=1e-4,
    )


def test_mean_and_deviation():
    model = raw()
    encoder = encoders.as_encoder(
        model, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )
    x = pixels()
    normal = (x / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    np.testing.assert_allclose(
        features(encoder, x),
        features(model, normal.astype("float32")),
        rtol=1e-4,
        atol=1e-5,
    )
    # An encoder is one for good, but isn't normalized twice.
    assert encoders.as_encoder(encoder) is encoder
    with pytest.raises(ValueError, match="normalized twice"):
        encoders.as_encoder(encoder, std=(0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(mean=(0.5,)), "each of the 3 channels"),
        (dict(normalization="imagenet"), "image converter, a layer, a func"),
        (dict(normalization="included", std=(1, 1, 1)), "not both"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        encoders.as_encoder(raw(), **arguments)


def test_what_was_an_encoder_is_one_when_it_is_loaded(tmp_path):
    model = raw()
    encoders.as_encoder(model, normalization="included")
    simclr = kerassl.SimCLR(model, projection_dim=4)
    simclr.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        features(loaded.encoder, pixels()), features(model, pixels())
    )
    for path in (tmp_path / "model.keras", tmp_path):
        model.save(tmp_path / "encoder.keras")
        kerassl.load_encoder(path)
    # Of another file nobody knows.
    model.save(tmp_path / "own.keras")
    with pytest.raises(ValueError, match="isn't seen to normalize"):
        kerassl.load_encoder(tmp_path / "own.keras")


# === KerasHub ===


def test_a_kerashub_preset_has_its_own_normalization(tmp_path):
    import keras_hub

    backbone = vit()
    backbone.save_to_preset(tmp_path)
    keras_hub.layers.ViTImageConverter(
        image_size=(16, 16), scale=SCALE, offset=OFFSET
    ).save_to_preset(tmp_path)
    converter = keras_hub.layers.ImageConverter.from_preset(str(tmp_path))
    x = pixels()
    expected = features(backbone, converter(x))[:, 0]
    with pytest.raises(ValueError, match="its KerasHub image converter"):
        encoders.as_encoder(backbone)
    made = encoders.as_encoder(backbone, normalization=converter)
    np.testing.assert_allclose(
        features(made, x), expected, rtol=1e-4, atol=1e-5
    )
    classifier = keras_hub.models.ImageClassifier.from_preset(
        str(tmp_path), num_classes=2
    )
    made = encoders.as_encoder(classifier)
    np.testing.assert_allclose(
        features(made, x), expected, rtol=1e-4, atol=1e-5
    )
    # Without a converter nothing is known.
    with pytest.raises(ValueError, match="isn't seen to normalize"):
        encoders.as_encoder(
            keras_hub.models.ViTImageClassifier(vit(), num_classes=2)
        )


def test_a_backbone_that_takes_unit_images():
    """KerasHub's ViTDet normalizes what its converter has scaled to [0, 1]."""
    import keras_hub

    backbone = keras_hub.models.ViTDetBackbone(
        hidden_size=8,
        num_layers=1,
        intermediate_dim=16,
        num_heads=2,
        global_attention_layer_indices=[0],
        image_shape=(16, 16, 3),
        patch_size=4,
        num_output_channels=8,
        window_size=2,
    )
    with pytest.raises(ValueError, match="isn't seen to normalize"):
        encoders.as_encoder(backbone)
    converter = keras_hub.layers.SAMImageConverter(scale=1 / 255)
    encoder = encoders.as_encoder(backbone, normalization=converter)
    x = pixels()
    np.testing.assert_allclose(
        features(encoder, x),
        features(backbone, x / 255.0).mean((1, 2)),
        rtol=1e-3,
        atol=1e-4,
    )


# === Classifiers ===


@pytest.mark.parametrize(
    "head",
    [
        lambda: layers.Dense(3, activation="softmax"),
        lambda: layers.Dense(3, name="predictions"),
        lambda: lambda x: layers.Softmax()(layers.Dense(3)(x)),
        lambda: lambda x: ops.softmax(layers.Dense(3)(x)),
        lambda: (
            lambda x: layers.Activation("linear", dtype="float32")(
                layers.Dense(3, activation="softmax")(layers.Dropout(0.1)(x))
            )
        ),
    ],
    ids=["softmax", "predictions", "layer", "operation", "float32"],
)
def test_a_classifier_is_refused(head):
    model = raw(head(), layers.Rescaling(1 / 255))
    with pytest.raises(ValueError, match="is a classifier") as error:
        kerassl.SimCLR(model)
    assert "\n" not in str(error.value)
    # The cure that it names.
    assert "keras.Model(model.input, model.get_layer('pool').output)" in str(
        error.value
    )
    cut = keras.Model(model.input, model.get_layer("pool").output)
    assert encoders.as_encoder(cut) is cut


def test_a_projection_is_none():
    model = raw(layers.Dense(3), layers.Rescaling(1 / 255))
    assert encoders.as_encoder(model) is model
