"""Tests specific to Barlow Twins."""

import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl import losses
from kerassl.augmentation import View, ViewAugmenter
from kerassl.losses import covariance
from tests.contracts.methods import tiny_encoder


def barlow_twins(dim=16, **kwargs):
    return kerassl.BarlowTwins(tiny_encoder(), projection_dim=dim, **kwargs)


def tensors(images):
    view = ops.convert_to_tensor(images.astype("float32"))
    return {"view_1": view, "view_2": ops.flip(view, axis=2)}


def standardized(z):
    z = ops.convert_to_numpy(z).astype("float64")
    return (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)


def test_the_head_and_the_loss_by_hand(images):
    model = barlow_twins(off_diagonal_weight=0.02)
    names = [w.path.split("/")[-1] for w in model.projector.trainable_weights]
    # No bias: the loss normalizes the output.
    assert names == ["kernel", "gamma", "beta"] * 2 + ["kernel"]
    assert model.projector.units == (16, 16, 16)
    assert barlow_twins().off_diagonal_weight == 0.0051
    outputs = model.forward_views(tensors(images), training=True)
    z1, z2 = (standardized(outputs[f"projection_{i}"]) for i in (1, 2))
    matrix = z1.T @ z2 / len(images)
    diagonal = np.diag(matrix)
    rest = matrix[~np.eye(16, dtype=bool)]
    scalars = model.objective(outputs)
    assert float(scalars["loss"]) == pytest.approx(
        np.sum((1 - diagonal) ** 2) + 0.02 * np.sum(rest**2), rel=1e-4
    )
    assert float(scalars["on_diagonal"]) == pytest.approx(
        diagonal.mean(), rel=1e-4
    )
    assert float(scalars["off_diagonal"]) == pytest.approx(
        np.sqrt(np.mean(rest**2)), rel=1e-4
    )


def test_the_cross_correlation_of_images_and_views(images):
    model = barlow_twins()
    matrix = model.cross_correlation(images)
    assert matrix.shape == (16, 16) and matrix.dtype == np.float32
    assert np.abs(matrix).max() <= 1 + 1e-5
    view = images.astype("float32")
    same = model.cross_correlation({"view_1": view, "view_2": view})
    np.testing.assert_allclose(same, same.T, atol=1e-5)
    # Below 1 only because of the epsilon in the normalization.
    outputs = model({n: ops.convert_to_tensor(view) for n in tensors(images)})
    z = ops.convert_to_numpy(outputs["projection_1"]).astype("float64")
    variance = z.var(axis=0)
    np.testing.assert_allclose(
        np.diag(same), variance / (variance + 1e-5), rtol=1e-3
    )
    assert np.median(np.diag(same)) > 0.9
    assert np.diag(matrix).mean() < np.diag(same).mean()


def test_the_cross_correlation_of_many_images(images, monkeypatch):
    """A few at a time, without gradients, but all are correlated."""
    model = barlow_twins()
    views = {
        name: ops.convert_to_numpy(x) for name, x in tensors(images).items()
    }
    outputs = model.forward_views(tensors(images))
    expected = losses.cross_correlation(
        outputs["projection_1"], outputs["projection_2"]
    )
    sizes = []
    forward = model.forward_views

    def watched(views, training=False):
        sizes.append(len(views["view_1"]))
        return forward(views, training=training)

    monkeypatch.setattr(model, "forward_views", watched)
    found = model.cross_correlation(views)
    np.testing.assert_allclose(
        found, ops.convert_to_numpy(expected), rtol=1e-3, atol=1e-4
    )
    assert max(sizes) <= 32 and sum(sizes) >= len(images) == 64


def test_a_wide_projection_makes_no_square_matrix(monkeypatch):
    """The papers' 8192 would take 256 MB each, forward and backward."""
    shapes = []
    matmul = ops.matmul

    def watched(a, b):
        result = matmul(a, b)
        shapes.append(tuple(result.shape))
        return result

    model = barlow_twins(dim=8)
    monkeypatch.setattr(covariance.ops, "matmul", watched)
    rng = np.random.default_rng(0)
    z = [
        ops.convert_to_tensor(rng.normal(size=(4, 8192)).astype("float32"))
        for _ in range(2)
    ]
    scalars = model.objective({"projection_1": z[0], "projection_2": z[1]})
    assert np.isfinite(float(scalars["loss"]))
    assert shapes == [(4, 4)] * 2


def test_one_view_is_refused():
    with pytest.raises(ValueError, match="2 views"):
        barlow_twins(augmenter=ViewAugmenter([View(28)]))
