"""What is SimMIM's own."""

import warnings

import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.augmentation import patch_masks
from kerassl.layers.patches import patchify
from tests.backends import once
from tests.contracts.methods import simmim, tiny_encoder
from tests.methods.formulas import six_steps_agree


def forward(model, images, mask):
    views = {"view_1": images.astype("float32"), "mask": mask}
    outputs = model.forward_views(
        {name: ops.convert_to_tensor(x) for name, x in views.items()}
    )
    return outputs, {k: ops.convert_to_numpy(v) for k, v in outputs.items()}


def mask_for(count):
    mask = np.zeros((count, 16), "float32")
    for row, hidden in zip(
        mask,
        np.random.default_rng(0).permuted(
            np.tile(np.arange(16), (count, 1)), axis=1
        ),
    ):
        row[hidden[:12]] = 1
    return mask


@once
def test_six_steps_on_the_authors_formula():
    """`SimMIM.forward` of microsoft/SimMIM: L1 over the hidden pixels."""

    def formula(outputs):
        mask = outputs["mask"][..., None]
        error = (outputs["patches"] - outputs["predictions"]).abs() * mask
        pixels = outputs["patches"].shape[-1]
        return error.sum() / (mask.sum() * pixels + 1e-5)

    six_steps_agree(lambda: simmim(tiny_encoder()), formula)


@pytest.mark.parametrize("method", [kerassl.SimMIM, kerassl.IJEPA])
def test_an_untrained_class_token_is_no_feature(method):
    shape = (32, 32, 3)
    recipe = kerassl.recipes.get(method.__name__.lower())
    model = kerassl.recipes.build_model(recipe, shape, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        method.from_config(model.get_config())
    encoder = kerassl.encoders.build("vit_nano", shape)
    with pytest.warns(
        UserWarning, match=f"class token, which {method.__name__}"
    ):
        method.from_config({**model.get_config(), "encoder": encoder})


def test_masks_are_whole_squares_of_the_exact_number():
    noise = np.random.default_rng(0).uniform(size=(20, 49)).astype("float32")
    masks, cut = (
        ops.convert_to_numpy(
            patch_masks.square_masks(ops.convert_to_tensor(noise), 30, 2, grid)
        )
        for grid in (14, 13)
    )
    whole = masks.reshape(20, 14, 14)[:, :13, :13]
    np.testing.assert_array_equal(cut.reshape(20, 13, 13), whole)
    assert masks.shape == (20, 196) and set(np.unique(masks)) == {0, 1}
    squares = masks.reshape(20, 7, 2, 7, 2).transpose(0, 1, 3, 2, 4)
    squares = squares.reshape(20, 49, 4)
    assert (squares.min(axis=2) == squares.max(axis=2)).all()
    for row, numbers in zip(squares[..., 0], noise):
        assert set(np.flatnonzero(row)) == set(np.argsort(numbers)[:30])


def test_the_loss_counts_hidden_patches_alone(images):
    model = simmim(tiny_encoder(), mask_size=1)
    mask = mask_for(6)
    outputs, found = forward(model, images[:6], mask)
    scalars = model.objective(outputs)
    patches = ops.convert_to_numpy(patchify(model.preprocessor(images[:6]), 7))
    hidden = mask == 1
    error = np.abs(found["predictions"] - patches)[hidden].mean()
    assert float(scalars["loss"]) == pytest.approx(error, rel=1e-4)
    color = np.stack(
        [np.full_like(p, p[~h].mean()) for p, h in zip(patches, hidden)]
    )
    plain = np.abs(color - patches)[hidden].mean()
    assert float(scalars["relative_error"]) == pytest.approx(
        error / plain, rel=1e-4
    )


def test_hidden_pixels_reach_nothing(images):
    model = simmim(tiny_encoder(), mask_size=1)
    mask = mask_for(4)
    _, before = forward(model, images[:4], mask)
    at = mask.reshape(4, 4, 4).repeat(7, axis=1).repeat(7, axis=2)[..., None]
    _, after = forward(
        model, np.where(at == 1, 255 - images[:4], images[:4]), mask
    )
    np.testing.assert_allclose(
        after["predictions"], before["predictions"], rtol=1e-4, atol=1e-5
    )
    _, after = forward(
        model, np.where(at == 0, 255 - images[:4], images[:4]), mask
    )
    moved = np.abs(after["predictions"] - before["predictions"])
    assert (moved.max(axis=(0, 2)) > 0).all()


def test_perfect_predictions_reconstruct_the_image(images):
    model = simmim(tiny_encoder(), mask_size=2)
    patches = patchify(model.preprocessor(images[:3]), 7)
    model.painter.call = lambda tokens, **kwargs: patches
    found = model.reconstruct(images[:3])
    np.testing.assert_allclose(found["reconstruction"], images[:3], atol=0.1)
    # 3 of the 4 squares of 2x2 patches.
    assert found["mask"].shape == (3, 28, 28, 1)
    assert found["mask"].mean() == 0.75


def test_the_default_crops_are_the_authors():
    (view,) = simmim(tiny_encoder()).augmenter.views.values()
    assert (
        view == kerassl.augmentation.crop_flip(28, (0.67, 1.0)).views["view_1"]
    )
    assert view.crop_area == (0.67, 1.0)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(mask_size=4), "1 squares of 4"),
        (dict(mask_size=0), "mask_size"),
        (dict(mask_ratio=0.0), "mask_ratio"),
        (dict(mask_ratio=0.9), "mask_ratio"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        simmim(tiny_encoder(), **arguments)
