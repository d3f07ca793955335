"""Which encoders presets hold, and that it is said before training."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

import kerassl
from kerassl import encoders, presets
from kerassl.callbacks import PresetCheck
from kerassl.cli.main import main
from tests.backends import once
from tests.presets import make


def features(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def mixed():
    """A small graph of the layers that common networks have."""
    images = keras.Input((8, 8, 3), name="images")
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(make.images_for((8, 8, 3)))
    x = normalization(images / 2.0 + 1.0)
    x = layers.Conv2D(6, 3, padding="same", name="conv")(x)
    x = layers.BatchNormalization(axis=3, name="norm")(x)
    x = layers.Activation("hard_silu", name="hard")(x)
    y = layers.SeparableConv2D(6, 3, padding="same", name="separable")(x)
    y = layers.LayerNormalization(axis=[3], name="layer_norm")(y)
    scale = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(y)
    scale = layers.ReLU(6.0, name="relu6")(scale + 3.0) * (1 / 6)
    x = x + y * scale
    x = layers.Concatenate(axis=3, name="concatenate")([x, y])
    return keras.Model(
        images, layers.GlobalAveragePooling2D(name="pool")(x), name="mixed"
    )


def same_after_saving(encoder, folder):
    presets.check_encoder(encoder)
    folder = kerassl.save_preset(encoder, folder)
    loaded = kerassl.load_encoder(folder)
    x = make.images_for(encoder.input_shape[1:])
    np.testing.assert_allclose(
        features(loaded, x), features(encoder, x), rtol=1e-4, atol=1e-4
    )
    # Without kerassl, too.
    model = keras.saving.load_model(folder)
    found = features(model, x)
    np.testing.assert_allclose(
        found.mean((1, 2)), features(encoder, x), rtol=1e-4, atol=1e-4
    )


def test_layers_of_common_networks(tmp_path):
    same_after_saving(make.randomize(mixed()), tmp_path / "a")


APPLICATIONS = {
    "mobilenet_v3": lambda **a: keras.applications.MobileNetV3Small(
        alpha=0.35, **a
    ),
    "efficientnet": keras.applications.EfficientNetB0,
    "convnext": keras.applications.ConvNeXtTiny,
    "densenet": lambda **a: encoders.as_encoder(
        keras.applications.DenseNet121(**a),
        normalization=keras.applications.densenet.preprocess_input,
    ),
}


@once
@pytest.mark.parametrize("name", APPLICATIONS)
def test_keras_applications(name):
    model = APPLICATIONS[name](
        input_shape=(32, 32, 3), include_top=False, weights=None
    )
    presets.check_encoder(model)


@once
def test_convnexts_layer_scale(tmp_path):
    """Its class isn't public, and a preset holds what does the same."""
    # Found without making a ConvNeXt, which takes seconds.
    module = sys.modules[keras.applications.ConvNeXtTiny.__module__]
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 1)(inputs / 255)
    x = module.LayerScale(1e-6, 6)(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    encoder = make.randomize(keras.Model(inputs, x, name="scaled"))
    same_after_saving(encoder, tmp_path / "a")


@once
def test_a_kerascv_backbone(tmp_path):
    keras_cv = pytest.importorskip("keras_cv")
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[8, 16],
        stackwise_blocks=[1, 1],
        stackwise_strides=[1, 2],
        input_shape=(32, 32, 3),
        include_rescaling=True,
    )
    same_after_saving(encoders.as_encoder(backbone), tmp_path / "a")


def refused():
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(4, 5, 4)(inputs / 255)
    x = layers.Conv2DTranspose(4, 3, name="up")(x)
    return keras.Model(
        inputs, layers.GlobalAveragePooling2D()(x), name="refused"
    )


def test_what_presets_cannot_hold_is_told_before_training(images):
    message = "No preset can be made of the encoder 'refused'.*Conv2DTranspose"
    with pytest.raises(presets.PresetError, match=message) as error:
        presets.check_encoder(refused())
    assert "\n" not in str(error.value)
    model = kerassl.SimCLR(refused(), projection_dim=4)
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(presets.PresetError, match=message):
        model.fit(images, verbose=0, callbacks=[PresetCheck()])
    assert int(model.optimizer.iterations) == 0


def test_a_check_changes_nothing(images):
    encoder = encoders.build("resnet_nano", (28, 28, 1))
    model = kerassl.SimCLR(encoder, projection_dim=4)
    config = str(model.get_config())
    presets.check_encoder(model)
    assert str(model.get_config()) == config
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(images, verbose=0, callbacks=[PresetCheck()])
    assert int(model.optimizer.iterations) == 2


@once
def test_pretrain_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(encoders, "build", lambda *_, **__: refused())
    arguments = "pretrain simclr --data fashion_mnist_small --limit 32 "
    arguments += "--epochs 1 --batch-size 32 --output"
    assert main([*arguments.split(), str(tmp_path / "run")]) == 0
    assert "kerassl: warning: No preset can be made" in capsys.readouterr().err


def test_the_folder_of_a_preset(tmp_path, capsys):
    folder = presets.preset_path("simclr_resnet_nano_cifar10")
    assert (folder / "model.weights.h5").is_file()
    assert keras.saving.load_model(folder).name
    assert main(["presets", "path", "simclr_resnet_nano_cifar10"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    own = kerassl.save_preset(make.graph_encoder(), tmp_path / "own")
    assert presets.preset_path(own) == own.resolve()
    (tmp_path / "empty").mkdir()
    with pytest.raises(presets.PresetError, match="is not a preset"):
        presets.preset_path(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nearest: simclr_resnet"):
        presets.preset_path("simclr_resnet_nano_cifar")


def test_a_vit_in_kerashubs_classifier(tmp_path):
    """As docs/presets.md has it."""
    import keras_hub

    encoder = encoders.build("vit_nano", (8, 8, 3))
    folder = kerassl.save_preset(encoder, tmp_path / "vit")
    loaded = kerassl.load_encoder(folder)
    x, y = make.images_for((8, 8, 3), 4), np.arange(4) % 3
    classifier = keras_hub.models.ViTImageClassifier(
        backbone=loaded.get_layer("backbone"),
        num_classes=3,
        preprocessor=loaded.get_layer("normalization"),
    )
    head = classifier.output_dense
    by_hand = features(encoder, x) @ head.get_weights()[0]
    np.testing.assert_allclose(
        classifier.predict(x, verbose=0), by_hand, rtol=1e-3, atol=1e-3
    )
    classifier.fit(x, y, batch_size=2, verbose=0)
    found = keras_hub.models.ImageClassifier.from_preset(
        str(folder), num_classes=3
    )
    assert type(found) is keras_hub.models.ViTImageClassifier
