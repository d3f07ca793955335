"""What is iBOT's own."""

import math

import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax, softmax

import kerassl
from kerassl.augmentation import patch_masks
from tests.contracts.methods import ibot, tiny_encoder


def value(x):
    return ops.convert_to_numpy(x)


@pytest.fixture(scope="module")
def model():
    return ibot(
        tiny_encoder(),
        head_normalization=False,
        patch_weight=0.5,
        center_momentum=0.8,
    )


@pytest.fixture
def views(model, images):
    made = model.make_views(ops.convert_to_tensor(images[:6]))
    return {name: value(view) for name, view in made.items()}


def forward(model, views, training=False):
    tensors = {name: ops.convert_to_tensor(x) for name, x in views.items()}
    outputs = model.forward_views(tensors, training=training)
    return outputs, {name: value(x) for name, x in outputs.items()}


def test_exactly_half_of_the_views_are_masked_with_spread_ratios(model):
    made = model.draw(10)
    masks = np.concatenate([value(made["mask_1"]), value(made["mask_2"])])
    assert masks.shape == (20, 16) and set(np.unique(masks)) == {0, 1}
    counts = np.sort(masks.sum(axis=1))
    assert (counts > 0).sum() == 10
    # One ratio from each tenth of 0.1 to 0.5, of 16 patches.
    edges = 16 * np.linspace(0.1, 0.5, 11)
    assert (counts[10:] >= np.round(edges[:-1])).all()
    assert (counts[10:] <= np.round(edges[1:])).all()
    again = model.draw(10)
    assert (value(again["mask_1"]) != value(made["mask_1"])).any()


def test_masks_are_blocks_of_the_exact_number():
    rng = np.random.default_rng(0)
    counts = rng.integers(20, 98, 64).astype("float32")
    drawn = (
        ops.convert_to_tensor(rng.uniform(size=(64, size)).astype("float32"))
        for size in (patch_masks.UNIFORMS, 196)
    )
    masks = patch_masks.block_masks(*drawn, ops.convert_to_tensor(counts), 14)
    masks = value(masks)
    np.testing.assert_array_equal(masks.sum(axis=1), counts)
    # Neighbors agree far more often than random patches would.
    grid = masks.reshape(-1, 14, 14)
    alike = np.mean(grid[:, 1:] == grid[:, :-1])
    shares = counts / 196
    by_chance = np.mean(shares**2 + (1 - shares) ** 2)
    assert alike > by_chance + 0.15
    assert len({tuple(mask) for mask in masks}) == 64


def test_the_loss_and_the_centers_by_hand(model, views):
    rng = np.random.default_rng(1)
    old = {}
    for name in ("center", "patch_center"):
        old[name] = rng.normal(size=12).astype("float32") / 10
        getattr(model, name).assign(old[name])
    views["mask_1"][0] = 0.0
    views["mask_2"][0] = np.arange(16) < 5
    tensors, found = forward(model, views, training=True)
    scalars = model.objective(tensors)
    terms = []
    for mask, student, teacher in zip(
        found["mask"], found["patches"], found["teacher_patches"]
    ):
        losses = [
            -np.sum(
                softmax((t - old["patch_center"]) / 0.04) * log_softmax(s / 0.1)
            )
            for m, s, t in zip(mask, student, teacher)
            if m
        ]
        terms.append(np.mean(losses) if losses else 0.0)
    expected = float(np.mean(terms))
    assert float(scalars["patch_loss"]) == pytest.approx(expected, rel=1e-4)
    parts = scalars["teacher_entropy"] + scalars["teacher_kl"]
    assert float(scalars["loss"]) == pytest.approx(
        float(parts) + 0.5 * expected, rel=1e-4
    )
    hidden = np.concatenate([views["mask_1"], views["mask_2"]])
    np.testing.assert_array_equal(found["mask"].sum(1), hidden.sum(1))
    # The patches' center moves to the mean of all patches, hidden or not.
    teacher, network = model.teacher_parts(), model.momentum_projector.network
    large = np.concatenate([views["view_1"], views["view_2"]])
    tokens = teacher.rest(
        teacher.embedding(teacher.preprocessor(ops.convert_to_tensor(large)))
    )
    logits = value(network(tokens[:, 1:]))
    mean = logits.mean(axis=(0, 1))
    np.testing.assert_allclose(
        value(model.patch_center),
        0.8 * old["patch_center"] + 0.2 * mean,
        rtol=1e-4,
        atol=1e-5,
    )
    # The same places of the same views, of the teacher's whole images.
    for n in range(12):
        places = np.flatnonzero(hidden[n])
        np.testing.assert_allclose(
            np.sort(found["teacher_patches"][n][: len(places)], axis=0),
            np.sort(logits[n][places], axis=0),
            rtol=1e-4,
            atol=1e-5,
        )


def test_views_and_patches_pass_a_shared_head_as_one_batch(views, monkeypatch):
    model = ibot(tiny_encoder())
    rows = []
    for head in (model.projector, model.momentum_projector.network):

        def vectors(inputs, training, own=head.vectors):
            rows.append(inputs.shape[0])
            return own(inputs, training)

        monkeypatch.setattr(head, "vectors", vectors)
    _, outputs = forward(model, views, training=True)
    hidden = model.most_hidden
    # The student's three views and hidden patches; the teacher's two, and all.
    assert rows == [3 * 6 + 12 * hidden, 2 * 6 + 12 * 16]
    assert outputs["patches"].shape == (12, hidden, 12)
    assert outputs["teacher_patches"].shape == (12, hidden, 12)


def test_the_student_sees_no_hidden_pixel_and_the_teacher_does(model, views):
    _, before = forward(model, views)
    changed = dict(views)
    rows = value(views["mask_1"]).reshape(-1, 4, 4)
    at = rows.repeat(7, axis=1).repeat(7, axis=2)[..., None]
    changed["view_1"] = np.where(at > 0, 255.0, views["view_1"]).astype(
        "float32"
    )
    _, after = forward(model, changed)
    for name in ("view_1", "view_2", "view_3", "patches"):
        np.testing.assert_allclose(
            after[name], before[name], rtol=1e-4, atol=1e-5
        )
    assert np.abs(after["teacher_view_1"] - before["teacher_view_1"]).max() > 0
    # Without masks, it is the encoder.
    whole = views | {k: np.zeros_like(views[k]) for k in ("mask_1", "mask_2")}
    _, found = forward(model, whole)
    features = model.encoder(ops.convert_to_tensor(views["view_2"]))
    np.testing.assert_allclose(
        found["view_2"],
        value(model.projector(features)),
        rtol=1e-4,
        atol=1e-5,
    )
    assert np.abs(found["view_1"] - before["view_1"]).max() > 0


def test_large_views_can_be_smaller_than_the_encoders_images(images):
    augmenter = kerassl.augmentation.dino(14, num_local_crops=0)
    model = ibot(tiny_encoder(), head_normalization=False, augmenter=augmenter)
    assert model.grid == 2 and model.most_hidden == 2
    views = model.make_views(ops.convert_to_tensor(images[:6]))
    whole = {
        name: ops.zeros_like(x) if name in model.drawn_names else x
        for name, x in views.items()
    }
    assert whole["view_1"].shape[1:3] == (14, 14)
    _, found = forward(model, whole)
    for prefix, network, head in (
        ("", model.encoder, model.projector),
        ("teacher_", model.feature_encoder, model.momentum_projector),
    ):
        features = kerassl.encoders.at_size(network, 14)(whole["view_2"])
        np.testing.assert_allclose(
            found[f"{prefix}view_2"],
            value(head(features)),
            rtol=1e-4,
            atol=1e-5,
        )


def test_dinov2_brings_its_own_mask_token(images):
    import keras_hub

    backbone = keras_hub.models.DINOV2Backbone(
        patch_size=14,
        num_layers=1,
        hidden_dim=24,
        num_heads=2,
        intermediate_dim=48,
        num_register_tokens=1,
        image_shape=(28, 28, 3),
        position_embedding_shape=(28, 28),
    )
    encoder = kerassl.encoders.as_encoder(backbone, pooling="class")
    augmenter = kerassl.augmentation.dino(28, num_local_crops=0)
    model = kerassl.IBOT(
        encoder, 12, hidden_dim=16, projection_dim=8, augmenter=augmenter
    )
    assert not hasattr(model.embedding, "mask_token")
    token = model.embedding.embedding.mask_token
    assert any(token is v for v in model.trainable_variables)
    x = ops.repeat(ops.convert_to_tensor(images[:2]), 3, axis=-1)
    outputs = model.forward_views(model.make_views(x))
    assert math.isfinite(float(model.objective(outputs)["loss"]))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="mask_ratio"):
        ibot(tiny_encoder(), mask_ratio=(0.5, 0.1))
    with pytest.raises(ValueError, match="patch_temperature"):
        ibot(tiny_encoder(), patch_temperature=0.0)
    with pytest.raises(ValueError, match="a single patch of 7 pixels"):
        augmenter = kerassl.augmentation.dino(7, num_local_crops=0)
        ibot(tiny_encoder(), augmenter=augmenter)
    with pytest.raises(ValueError, match="no ViT"):
        kerassl.IBOT(
            tiny_encoder(),
            12,
            augmenter=kerassl.augmentation.dino(28, num_local_crops=0),
        )
