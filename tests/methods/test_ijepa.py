"""What is I-JEPA's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import kerassl
from kerassl.augmentation import patch_masks
from tests.backends import examples, once
from tests.contracts.methods import ijepa, tiny_encoder
from tests.methods.formulas import six_steps_agree


def value(x):
    return ops.convert_to_numpy(x)


@pytest.fixture(scope="module")
def model():
    return ijepa(tiny_encoder())


def forward(model, images, places):
    views = {"view_1": ops.convert_to_tensor(images.astype("float32"))}
    outputs = model.forward_views(views | places)
    return {name: value(x) for name, x in outputs.items()}


@once
def test_six_steps_on_the_papers_formula():
    """The mean smooth L1 to features after a plain layer normalization."""
    from torch.nn import functional

    def formula(outputs):
        targets = outputs["targets"]
        targets = functional.layer_norm(targets, targets.shape[-1:])
        return functional.smooth_l1_loss(outputs["predictions"], targets)

    six_steps_agree(lambda: ijepa(tiny_encoder(), momentum=0.9), formula)


@settings(max_examples=examples(12))
@given(
    grid=st.integers(4, 14),
    ratio=st.floats(0.1, 0.2),
    seed=st.integers(0, 1000),
)
def test_targets_are_rectangles_and_the_context_is_outside(grid, ratio, seed):
    rng = np.random.default_rng(seed)
    patches = grid**2
    count = max(1, round(ratio * patches))
    drawn = rng.uniform(size=(3, 4, 3)).astype("float32")
    targets = patch_masks.target_blocks(
        ops.convert_to_tensor(drawn), count, grid
    )
    noise = rng.uniform(size=(3, patches)).astype("float32")
    left = patches - 4 * count
    context = patch_masks.context_patches(
        ops.convert_to_tensor(noise), targets, left
    )
    targets, context = value(targets), value(context)
    assert targets.shape == (3, 4, count) and context.shape == (3, left)
    for places, blocks in zip(context, targets):
        assert len(set(places)) == left
        assert not set(places) & set(blocks.ravel())
        for block in blocks:
            assert len(set(block)) == count
            rows, columns = np.divmod(block, grid)
            height, width = (np.ptp(x) + 1 for x in (rows, columns))
            # Full rows but for the last ones, which the exact number cuts.
            area = height * width
            assert count <= area < count + 2 * max(height, width)
            assert np.array_equal(block, np.sort(block))
            if count >= 9:
                assert 0.4 < height / width < 2.6


def test_it_sees_nothing_of_the_targets(model, images):
    places = model.draw(4)
    before = forward(model, images[:4], places)
    assert before["predictions"].shape == before["targets"].shape
    at = np.zeros((4, 16), bool)
    for row, blocks in zip(at, value(places["targets"])):
        row[blocks.ravel()] = True
    at = at.reshape(4, 4, 4).repeat(7, axis=1).repeat(7, axis=2)[..., None]
    changed = np.where(at, 255 - images[:4], images[:4])
    after = forward(model, changed, places)
    np.testing.assert_allclose(
        after["predictions"], before["predictions"], rtol=1e-4, atol=1e-5
    )
    # The teacher sees them, and the rest.
    assert np.abs(after["targets"] - before["targets"]).min(axis=-1).max() > 0
    changed = np.where(at, images[:4], 255 - images[:4])
    after = forward(model, changed, places)
    for name in ("predictions", "targets"):
        assert np.abs(after[name] - before[name]).max() > 1e-3


def test_targets_are_the_teachers_tokens_in_their_places(model, images):
    places = model.draw(3)
    found = forward(model, images[:3], places)["targets"]
    teacher = model.momentum_encoder.network
    tokens = value(
        teacher.get_layer("backbone")(model.preprocessor(images[:3]))
    )
    for n, blocks in enumerate(value(places["targets"])):
        for m, block in enumerate(blocks):
            np.testing.assert_allclose(
                found[n, m], tokens[n, 1 + block], rtol=1e-4, atol=1e-4
            )


def test_blocks_are_predicted_one_by_one(model, images):
    places = model.draw(3)
    together = forward(model, images[:3], places)["predictions"]
    pixels = {"view_1": ops.convert_to_tensor(images[:3].astype("float32"))}
    one = {**places, "targets": places["targets"][:, 2:3]}
    alone = value(model.forward_views(pixels | one)["predictions"])
    np.testing.assert_allclose(
        alone[:, 0], together[:, 2], rtol=1e-4, atol=1e-5
    )


def test_recipes_take_the_mean_of_patches():
    model = kerassl.IJEPA.from_recipe(
        "cpu", image_shape=(32, 32, 3), steps=10, epochs=1
    )
    backbone = model.encoder.get_layer("backbone")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")
    tokens = value(backbone(model.preprocessor(images)))
    np.testing.assert_allclose(
        model.embed(images), tokens[:, 1:].mean(axis=1), rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ValueError, match="`pooling` is only for"):
        kerassl.encoders.build("resnet_nano", (32, 32, 3), pooling="mean")


def test_the_default_crops_are_the_authors():
    (view,) = ijepa(tiny_encoder()).augmenter.views.values()
    assert (
        view == kerassl.augmentation.crop_flip(28, (0.3, 1.0)).views["view_1"]
    )
    assert view.crop_area == (0.3, 1.0)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(target_ratio=0.3), "leave others visible"),
        (dict(target_ratio=0.0), "num_targets"),
        (dict(num_targets=0), "num_targets"),
        (dict(predictor_depth=0), "predictor_depth"),
        (dict(predictor_dim=18), "multiples of 4"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ijepa(tiny_encoder(), **arguments)
