"""Under Keras's channels_first everything is as under channels_last."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerassl
from kerassl import encoders
from tests.backends import more, once
from tests.encoders import test_adapt, test_libraries
from tests.presets import make


@pytest.fixture(autouse=True)
def config():
    yield
    keras.config.set_image_data_format("channels_last")


def first():
    keras.config.set_image_data_format("channels_first")


def pixels(shape, count=4):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape)).astype("uint8")


def features(model, images):
    return ops.convert_to_numpy(model(images, training=False))


@pytest.mark.parametrize(
    "name",
    ["resnet_nano", "vit_nano", pytest.param("resnet_18", marks=once)],
)
def test_encoders(name, tmp_path):
    made = encoders.build(name, (32, 32, 3))
    made.save(tmp_path / "encoder.keras")
    x = pixels((32, 32, 3))
    expected = features(made, x)
    close = dict(rtol=1e-3, atol=1e-4)
    first()
    again = encoders.build(name, (32, 32, 3))
    again.set_weights(made.get_weights())
    np.testing.assert_allclose(features(again, x), expected, **close)
    loaded = kerassl.load_encoder(tmp_path)
    np.testing.assert_allclose(features(loaded, x), expected, **close)
    # One of before is pinned when it is used, and so is a copy.
    model = kerassl.MoCo(made, queue_size=8, projection_dim=4)
    for encoder in (model.encoder, model.momentum_encoder):
        np.testing.assert_allclose(features(encoder, x), expected, **close)
    maps = encoders.feature_map(made)
    assert maps.output_shape[1] == maps.output_shape[2]
    stages = encoders.stages(made)
    layer = encoders.layer_features(made, stages[-1])
    np.testing.assert_allclose(features(layer, x), expected, **close)


def test_a_preset_of_kerashub_for_another_size(tmp_path):
    test_libraries.saved(test_adapt.vit(), tmp_path)
    source, shape = f"hub:{tmp_path}", (24, 24, 3)
    expected = features(encoders.build(source, shape), pixels(shape))
    first()
    found = features(encoders.build(source, shape), pixels(shape))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def methods():
    def small():
        return encoders.build("resnet_nano", (28, 28, 1))

    def vit():
        return encoders.build("vit_nano", (28, 28, 1))

    return {
        "simclr": lambda: kerassl.SimCLR(small(), projection_dim=4),
        "context_encoder": lambda: kerassl.ContextEncoder(
            small(), bottleneck_dim=16, discriminator_dim=4
        ),
        "mae": lambda: kerassl.MAE(
            vit(), decoder_dim=16, decoder_depth=1, decoder_heads=2
        ),
        "jigsaw": lambda: kerassl.Jigsaw(small()),
    }


@pytest.mark.parametrize(
    "name",
    [
        "context_encoder",
        *(pytest.param(n, marks=once) for n in ("simclr", "mae", "jigsaw")),
    ],
)
def test_methods(name, images):
    found = []
    for format in ("channels_last", "channels_first"):
        keras.config.set_image_data_format(format)
        keras.utils.set_random_seed(3)
        model = methods()[name]()
        outputs = model(ops.convert_to_tensor(images[:8].astype("float32")))
        scalars = model.objective(outputs)
        found.append({k: float(ops.stop_gradient(scalars[k])) for k in scalars})
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_run_is_loaded_and_goes_on(tmp_path, images):
    model = kerassl.SimCLR(make.resnet_encoder(), projection_dim=4)
    model.save(tmp_path / "model.keras")
    x = pixels((16, 16, 3))
    expected = features(model.encoder, x)
    first()
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        features(loaded.encoder, x), expected, rtol=1e-3, atol=1e-4
    )
    loaded.compile("sgd")
    history = loaded.fit(x, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@more("encoders and methods", always_on="torch")
@pytest.mark.parametrize(
    "name", ["graph_encoder", "resnet_encoder", "vit_encoder"]
)
def test_presets(name, tmp_path):
    encoder = make.randomize(getattr(make, name)())
    folder = kerassl.save_preset(encoder, tmp_path / "last" / "a")
    x = make.images_for(encoder.input_shape[1:])
    expected = features(encoder, x)
    first()
    loaded = kerassl.load_encoder(folder)
    np.testing.assert_allclose(features(loaded, x), expected, rtol=1e-4)
    again = kerassl.save_preset(loaded, tmp_path / "first" / "a")
    for file in ("config.json", "kerassl.json"):
        old, new = (json.loads((f / file).read_text()) for f in (folder, again))
        for info in (old, new):
            info.pop("files", None)
        if file == "kerassl.json":
            assert old["normalization"] == new["normalization"]
        else:
            assert old == new


def test_a_model_of_channels_first_is_refused():
    first()
    for shape in ((3, 16, 16), (16, 16, 3)):
        inputs = keras.Input(shape)
        x = layers.Conv2D(4, 3, name="conv")(inputs / 255)
        model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
        with pytest.raises(ValueError, match="'conv'.*channels last") as error:
            kerassl.SimCLR(model)
        assert "\n" not in str(error.value)
    # One that turns its images first is right.
    x = layers.Permute((3, 1, 2))(inputs / 255)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    model = keras.Model(inputs, x)
    assert encoders.as_encoder(model) is model
