"""What is MAE's own."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import layers, ops

import kerassl
from kerassl.layers.patches import patchify, sine_positions, unpatchify
from tests.backends import once
from tests.contracts.methods import mae as tiny
from tests.contracts.methods import tiny_encoder

# The tiny ViT has 4x4 patches of 7x7 pixels, of which 4 stay visible.
PATCH, LENGTH, VISIBLE = 7, 16, 4


def mae(encoder=None, optimizer=None, **kwargs):
    model = tiny(encoder or tiny_encoder(), **kwargs)
    model.compile(optimizer or keras.optimizers.Adam(0.01))
    return model


def backbone(normalization=None, **kwargs):
    settings = dict(
        image_shape=(28, 28, 1),
        patch_size=7,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )
    return kerassl.encoders.as_encoder(
        keras_hub.models.ViTBackbone(**(settings | kwargs)),
        normalization=normalization or layers.Rescaling(1 / 128),
    )


def noise_for(count, seed=0):
    shape = (count, LENGTH)
    return np.random.default_rng(seed).uniform(size=shape).astype("float32")


def views(images, noise):
    x = images.astype("float32")
    return {"view_1": ops.convert_to_tensor(x), "noise": noise}


def numpy(outputs):
    return {name: ops.convert_to_numpy(v) for name, v in outputs.items()}


def positions(model):
    return model.embedding.position_embedding.embeddings


def test_the_encoder_sees_the_visible_patches_alone(images):
    model = mae()
    seen = []
    blocks = model.blocks.call
    model.blocks.call = lambda x: seen.append(tuple(x.shape)) or blocks(x)
    outputs = model.forward_views(views(images[:8], noise_for(8)))
    assert seen == [(8, 1 + VISIBLE, 24)]
    assert tuple(outputs["predictions"].shape) == (8, LENGTH, PATCH**2)
    # Its features are those of a ViT that gets these tokens.
    tokens = model.embedding(model.preprocessor(images[:8]))
    chosen = np.argsort(noise_for(8), axis=1)[:, :VISIBLE]
    tokens = ops.convert_to_numpy(tokens)
    picked = np.stack([t[np.r_[0, 1 + c]] for t, c in zip(tokens, chosen)])
    np.testing.assert_allclose(
        ops.convert_to_numpy(
            model.encode(model.preprocessor(images[:8]), chosen)
        ),
        ops.convert_to_numpy(blocks(ops.convert_to_tensor(picked))),
        rtol=1e-4,
        atol=1e-5,
    )


def test_with_all_patches_it_encodes_as_the_encoder(images):
    model = mae()
    every = np.tile(np.arange(LENGTH), (8, 1))
    tokens = model.encode(model.preprocessor(images[:8]), every)
    np.testing.assert_allclose(
        ops.convert_to_numpy(tokens)[:, 0],
        model.embed(images[:8]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_hidden_pixels_reach_nothing(images):
    model = mae()
    noise = noise_for(8)
    before = numpy(model.forward_views(views(images[:8], noise)))
    hidden = unpatchify(before["mask"][..., None], PATCH, 1)
    changed = np.where(hidden == 1, 255 - images[:8], images[:8])
    after = numpy(model.forward_views(views(changed, noise)))
    assert np.abs(before["patches"] - after["patches"]).max() > 0.1
    np.testing.assert_array_equal(before["predictions"], after["predictions"])
    # Visible ones reach all.
    changed = np.where(hidden == 0, 255 - images[:8], images[:8])
    after = numpy(model.forward_views(views(changed, noise)))
    differences = np.abs(before["predictions"] - after["predictions"])
    assert (differences.max(axis=(0, 2)) > 0).all()


def test_noise_says_which_patches_are_hidden(images):
    model = mae()
    noise = noise_for(8)
    found = numpy(model.forward_views(views(images[:8], noise)))["mask"]
    expected = np.ones((8, LENGTH))
    for row, values in zip(expected, noise):
        row[np.argsort(values)[:VISIBLE]] = 0
    np.testing.assert_array_equal(found, expected)
    # By itself it draws for each image, and anew each time.
    drawn = [
        numpy(model.forward_views(model.make_views(images[:8])))["mask"]
        for _ in range(2)
    ]
    assert (drawn[0].sum(axis=1) == LENGTH - VISIBLE).all()
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[0] != drawn[0][:1]).any()


def test_each_patch_is_decoded_in_its_place(images):
    model = mae()
    seen = []
    block = model.decoder[0].call
    model.decoder[0].call = lambda x, **kwargs: (
        seen.append(ops.convert_to_numpy(x)) or block(x, **kwargs)
    )
    noise = noise_for(8)
    mask = numpy(model.forward_views(views(images[:8], noise)))["mask"]
    found = seen[0] - sine_positions(4, 16)
    chosen = np.argsort(noise, axis=1)[:, :VISIBLE]
    tokens = model.encode(model.preprocessor(images[:8]), chosen)
    encoded = ops.convert_to_numpy(model.decoder_embedding(tokens))
    token = ops.convert_to_numpy(model.mask_token)[0, 0]
    for n in range(8):
        np.testing.assert_allclose(found[n, 0], encoded[n, 0], atol=1e-5)
        for i, place in enumerate(chosen[n]):
            np.testing.assert_allclose(
                found[n, 1 + place], encoded[n, 1 + i], atol=1e-5
            )
        for place in np.flatnonzero(mask[n]):
            np.testing.assert_allclose(found[n, 1 + place], token, atol=1e-6)


@once
def test_positions_stay_fixed(images, tmp_path):
    model = mae()
    expected = sine_positions(4, 24)

    def check(model):
        assert not positions(model).trainable
        found = ops.convert_to_numpy(positions(model))
        np.testing.assert_array_equal(found, expected)

    check(model)
    model.fit(images, batch_size=32, verbose=0)
    check(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    again.fit(images, batch_size=32, verbose=0)
    check(again)
    # Frozen and thawed, the encoder trains on.
    model.encoder.trainable = False
    model.encoder.trainable = True
    model.compile(keras.optimizers.Adam(0.01))
    kernel = model.embedding.patch_embedding.kernel
    before = ops.convert_to_numpy(kernel)
    model.fit(images, batch_size=32, verbose=0)
    check(model)
    assert np.abs(ops.convert_to_numpy(kernel) - before).max() > 0


def test_the_trained_backbone_loads_with_keras_hub(images, tmp_path):
    encoder = kerassl.encoders.build("vit_nano", (28, 28, 1), patch_size=7)
    model = kerassl.MAE(
        encoder, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    model.compile(keras.optimizers.Adam(0.001))
    model.fit(images, batch_size=32, verbose=0)
    trained = model.encoder.get_layer("backbone")
    assert type(trained) is keras_hub.models.ViTBackbone
    trained.save_to_preset(tmp_path / "preset")
    loaded = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    assert type(loaded) is keras_hub.models.ViTBackbone
    pixels = model.preprocessor(images[:8])
    np.testing.assert_allclose(
        ops.convert_to_numpy(loaded(pixels)),
        ops.convert_to_numpy(trained(pixels)),
        rtol=1e-5,
        atol=1e-6,
    )


@once
def test_a_bare_backbone_is_an_encoder(images):
    model = kerassl.MAE(
        backbone("included"), decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    model.compile(keras.optimizers.Adam(0.001))
    history = model.fit(images, batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    # It takes pixels as they come.
    pixels = ops.convert_to_numpy(model.preprocessor(images[:2]))
    np.testing.assert_array_equal(pixels, images[:2])


def test_loss_and_relative_error_by_hand(images):
    noise = noise_for(8)
    for norm_pix_loss in (True, False):
        model = mae(norm_pix_loss=norm_pix_loss)
        outputs = model.forward_views(views(images[:8], noise))
        scalars = numpy(model.objective(outputs))
        found = numpy(outputs)
        hidden = found["mask"] == 1
        patches = found["patches"].astype("float64")
        pixels = images[:8].astype("float64") / 127.5 - 1
        for n, mask in enumerate(
            unpatchify(found["mask"][..., None], PATCH, 1)
        ):
            inside = pixels[n][mask == 1]
            assert patches[n][hidden[n]].sum() == pytest.approx(
                inside.sum(), rel=1e-4, abs=1e-3
            )
        if norm_pix_loss:
            mean = patches.mean(axis=-1, keepdims=True)
            variance = patches.var(axis=-1, keepdims=True, ddof=1)
            targets = (patches - mean) / np.sqrt(variance + 1e-6)
            reference = np.zeros_like(targets)
        else:
            targets = patches
            reference = np.stack(
                [np.full_like(p, p[~h].mean()) for p, h in zip(patches, hidden)]
            )
        errors = np.square(found["predictions"] - targets)[hidden]
        plain = np.square(reference - targets)[hidden]
        assert float(scalars["loss"]) == pytest.approx(errors.mean(), rel=1e-4)
        assert float(scalars["relative_error"]) == pytest.approx(
            errors.sum() / plain.sum(), rel=1e-4
        )


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_reconstruct(images, norm_pix_loss):
    model = mae(norm_pix_loss=norm_pix_loss)
    seeds = numpy({"seed": model.seed_generator.state})["seed"]
    found = model.reconstruct(images[:5])
    assert {k: v.shape for k, v in found.items()} == {
        "input": (5, 28, 28, 1),
        "mask": (5, 28, 28, 1),
        "reconstruction": (5, 28, 28, 1),
    }
    assert {v.dtype for v in found.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(found["input"], images[:5])
    assert set(np.unique(found["mask"])) == {0, 1}
    assert found["mask"].mean() == 0.75
    visible = found["mask"] == 0
    np.testing.assert_array_equal(
        found["reconstruction"][visible], images[:5][visible]
    )
    assert 0 <= found["reconstruction"].min()
    assert found["reconstruction"].max() <= 255
    # The same again, and no effect on training's masks.
    again = model.reconstruct(images[:5])
    np.testing.assert_array_equal(again["mask"], found["mask"])
    after = numpy({"seed": model.seed_generator.state})["seed"]
    np.testing.assert_array_equal(after, seeds)
    other = model.reconstruct(images[:5], noise_for(5, seed=7))
    assert (other["mask"] != found["mask"]).any()


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_perfect_predictions_reconstruct_the_image(images, norm_pix_loss):
    encoder = kerassl.encoders.build("vit_nano", (28, 28, 1), patch_size=7)
    model = kerassl.MAE(
        encoder,
        decoder_dim=16,
        decoder_depth=1,
        decoder_heads=2,
        norm_pix_loss=norm_pix_loss,
    )
    patches = patchify(model.preprocessor(images[:5]), PATCH)
    if norm_pix_loss:
        patches = kerassl.losses.normalize_patches(patches)[0]
    patches = ops.convert_to_numpy(patches)
    model.decode = lambda *args: ops.convert_to_tensor(patches)
    found = model.reconstruct(images[:5])
    np.testing.assert_allclose(found["reconstruction"], images[:5], atol=0.1)


def test_reconstruct_refuses_other_images(images):
    model = mae()
    with pytest.raises(ValueError, match="of shape .28, 28, 1."):
        model.reconstruct(images[:2, :14, :14])
    with pytest.raises(ValueError, match="255"):
        model.reconstruct(images[:2].astype("float32") / 255)


def test_the_papers_decoder_by_default(images):
    model = kerassl.MAE(backbone())
    assert len(model.decoder) == 8
    assert tuple(model.mask_token.shape) == (1, 1, 512)
    std = ops.convert_to_numpy(model.mask_token).std()
    assert std == pytest.approx(0.02, rel=0.2)
    assert model.norm_pix_loss and model.visible == VISIBLE


@pytest.mark.parametrize(
    "make,message",
    [
        (tiny_encoder, "Take such a backbone, or `kerassl.encoders.build`"),
        (lambda: backbone(use_class_token=False), "use_class_token=True"),
        (
            lambda: backbone(image_shape=(28, 14, 1)),
            "square|in addition to 28x14",
        ),
        (lambda: backbone(patch_size=(7, 14)), "square"),
        (lambda: backbone(hidden_dim=10), "multiples of 4"),
    ],
)
def test_other_encoders_are_refused(make, message):
    augmenter = kerassl.augmentation.crop_flip(28)
    with pytest.raises(ValueError, match=message):
        kerassl.MAE(make(), decoder_dim=16, augmenter=augmenter)


def test_an_encoder_that_resizes_is_refused():
    inputs = keras.Input((32, 32, 1))
    x = layers.Rescaling(1 / 128)(layers.Resizing(28, 28)(inputs))
    tokens = backbone().layers[2](x)
    with pytest.raises(ValueError, match="leave their shape"):
        kerassl.MAE(keras.Model(inputs, tokens[:, 0]), decoder_dim=16)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(mask_ratio=0.0), "mask_ratio"),
        (dict(mask_ratio=0.99), "mask_ratio"),
        (dict(decoder_depth=0), "decoder_depth"),
        (dict(decoder_dim=16, decoder_heads=3), "multiple of the heads"),
        (dict(decoder_dim=18, decoder_heads=2), "multiples of 4"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mae(**arguments)
