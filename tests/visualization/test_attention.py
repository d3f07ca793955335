"""What a ViT's class token attends to, against a loop in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from kerassl import encoders, visualization
from tests.contracts.methods import METHODS, tiny_encoder


@pytest.fixture(scope="module")
def model():
    return METHODS["mae"](tiny_encoder())


def weights(layer):
    return [ops.convert_to_numpy(w) for w in layer.get_weights()]


def normalize(x, gamma, beta):
    x = x - x.mean(axis=-1, keepdims=True)
    return (
        x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * gamma + beta
    )


@pytest.mark.parametrize("block", [0, -1])
def test_attention_by_hand(block, model, images):
    made = visualization.class_attention(model, images[:2], block)
    # Patches of 7 pixels of 28, and two heads.
    assert made.shape == (2, 2, 4, 4) and made.dtype == np.float32
    vit = model.encoder.get_layer("backbone")
    tokens = vit.get_layer("vit_patching_and_embedding")(
        images[:2].astype("float32") / 127.5 - 1
    )
    blocks = vit.get_layer("vit_encoder").encoder_layers
    if block == -1:
        tokens = blocks[0](tokens)
    x = normalize(
        ops.convert_to_numpy(tokens), *weights(blocks[block].layer_norm_1)
    )
    query, query_bias, key, key_bias = weights(blocks[block].mha)[:4]
    for image in range(2):
        for head in range(2):
            q = x[image, 0] @ query[:, head] + query_bias[head]
            k = x[image] @ key[:, head] + key_bias[head]
            shares = np.exp(k @ q / np.sqrt(12))
            shares /= shares.sum()
            np.testing.assert_allclose(
                made[image, head].ravel(), shares[1:], rtol=1e-4
            )


def test_the_picture_has_a_map_for_each_head(model, images):
    figure = visualization.attention_maps(model, images[:2])
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["image", "mean", "head 1", "head 2"] + 4 * [""]
    made = visualization.class_attention(model, images[:2])
    pictures = [axis.images[0] for axis in figure.axes]
    np.testing.assert_array_equal(pictures[4].get_array(), images[1, ..., 0])
    np.testing.assert_allclose(pictures[5].get_array(), made[1].mean(axis=0))
    np.testing.assert_allclose(pictures[7].get_array(), made[1, 1])
    assert pictures[5].get_clim()[0] == 0
    # A map covers the pixels of its image.
    assert pictures[5].get_extent() == pictures[4].get_extent()


def test_images_that_are_not_square(images):
    import keras_hub

    inputs = keras.Input((28, 14, 1))
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(28, 14, 1),
        patch_size=7,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=8,
    )
    encoder = encoders.as_encoder(
        keras.Model(inputs, backbone(inputs)), normalization="included"
    )
    # `as_encoder` puts that model into one of its own.
    inner = visualization.class_attention(encoder, images[:2, :, :14])
    encoder = encoders.as_encoder(backbone, normalization="included")
    made = visualization.class_attention(encoder, images[:2, :, :14])
    assert made.shape == (2, 2, 4, 2)
    np.testing.assert_allclose(inner, made, rtol=1e-5)


def test_what_has_no_class_token_is_refused(images):
    with pytest.raises(ValueError, match="ViTBackbone.*has none"):
        visualization.attention_maps(METHODS["simclr"](tiny_encoder()), images)


def test_blocks_and_images_are_checked(model, images):
    with pytest.raises(ValueError, match="between -2 and 1.*Received: 2"):
        visualization.attention_maps(model, images[:2], block=2)
    with pytest.raises(ValueError, match="takes images of shape"):
        visualization.attention_maps(model, images[:2, 1:])


def test_half_precision(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    made = visualization.class_attention(
        METHODS["mae"](tiny_encoder()), images[:2]
    )
    assert made.dtype == np.float32
    sums = made.sum(axis=(2, 3))
    assert (0 < sums).all() and (sums < 1.01).all()
