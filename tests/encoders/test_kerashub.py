"""KerasHub's backbones as encoders: their normalization and pooling."""

import numpy as np
import pytest

from kerassl import encoders
from kerassl.encoders import graph
from tests.encoders.test_adapt import features, pixels, vit
from tests.encoders.test_graph import dinov2, dinov3, nested


@pytest.mark.parametrize("make", [dinov2, dinov3])
@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_the_last_stage_of_dino_is_the_encoders_output(make, pooling):
    encoder = encoders.as_encoder(
        make(), mean=[0.5] * 3, std=[0.5] * 3, pooling=pooling
    )
    assert encoders.stages(encoder) == ["stage1"]
    # By these names, parts get their own learning rates.
    parts = graph.vit_layers(encoder)
    assert parts == ["embeddings", "layers_0"]
    paths = [v.path for v in encoder.trainable_weights]
    for name in parts:
        assert any(f"/{name}/" in f"/{path}" for path in paths)
    x = pixels()
    np.testing.assert_allclose(
        encoders.embed(encoder, x, layer="stage1"),
        encoders.embed(encoder, x),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("registers", [0, 2])
def test_dinov2_normalizes_as_kerashub_does(registers):
    """Its image converter has the values that its authors trained with."""
    import keras_hub

    backbone = dinov2(registers)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    converter = keras_hub.layers.DINOV2ImageConverter(
        scale=[1 / 255 / s for s in std],
        offset=[-m / s for m, s in zip(mean, std)],
    )
    x = pixels()
    tokens = features(backbone, {"images": converter(x)})
    expected = {
        "class": tokens[:, 0],
        "mean": tokens[:, 1 + registers :].mean(1),
    }
    for pooling, feature in expected.items():
        encoder = encoders.as_encoder(backbone, pooling=pooling)
        np.testing.assert_allclose(
            features(encoder, x), feature, rtol=1e-3, atol=1e-5
        )
    # What is given goes first.
    given = encoders.as_encoder(backbone, normalization="included")
    raw = features(backbone, {"images": x.astype("float32")})
    np.testing.assert_allclose(
        features(given, x), raw[:, 0], rtol=1e-3, atol=1e-5
    )


def test_a_cnn_normalizes_as_kerashub_does():
    import keras_hub

    backbone = keras_hub.models.DenseNetBackbone(
        stackwise_num_repeats=[1],
        compression_ratio=0.5,
        growth_rate=4,
        image_shape=(32, 32, 3),
    )
    converter = keras_hub.layers.DenseNetImageConverter(
        scale=[0.01, 0.02, 0.03], offset=[-1.0, -2.0, -3.0]
    )
    preprocessor = keras_hub.models.DenseNetImageClassifierPreprocessor(
        converter
    )
    classifier = keras_hub.models.DenseNetImageClassifier(
        backbone, num_classes=2, preprocessor=preprocessor
    )
    x = pixels(32)
    expected = features(backbone, converter(x)).mean((1, 2))
    for model, given in ((backbone, converter), (classifier, None)):
        encoder = encoders.as_encoder(model, normalization=given)
        np.testing.assert_allclose(
            features(encoder, x), expected, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize(
    "make,pooling,message",
    [
        (lambda: vit(use_class_token=False), "class", "no class token"),
        (vit, "max", "no pooling 'max'"),
        (nested, "mean", "is for models that return tokens"),
    ],
)
def test_pooling_that_does_not_fit_is_refused(make, pooling, message):
    with pytest.raises(ValueError, match=message) as error:
        encoders.as_encoder(make(), normalization="included", pooling=pooling)
    assert "\n" not in str(error.value)
