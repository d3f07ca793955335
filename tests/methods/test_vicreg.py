"""Tests specific to VICReg."""

import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from kerassl.losses import covariance
from tests.contracts.methods import tiny_encoder


def vicreg(**kwargs):
    return kerassl.VICReg(tiny_encoder(), projection_dim=16, **kwargs)


def terms(z):
    """The hinge and the covariances of one projection, in NumPy."""
    spread = np.sqrt(z.var(axis=0, ddof=1) + 1e-4)
    covariances = np.cov(z, rowvar=False)
    rest = covariances[~np.eye(len(covariances), dtype=bool)]
    return np.mean(np.maximum(0, 1 - spread)), np.sum(rest**2) / len(spread)


def test_the_head_and_the_loss_by_hand(images):
    model = vicreg()
    names = [w.path.split("/")[-1] for w in model.projector.trainable_weights]
    assert names == ["kernel", "gamma", "beta"] * 2 + ["kernel"]
    assert model.projector.units == (16, 16, 16)
    view = ops.convert_to_tensor(images.astype("float32"))
    outputs = model.forward_views(
        {"view_1": view, "view_2": ops.flip(view, axis=2)}, training=True
    )
    z1, z2 = (
        ops.convert_to_numpy(outputs[f"projection_{i}"]).astype("float64")
        for i in (1, 2)
    )
    (variance_1, covariance_1), (variance_2, covariance_2) = map(
        terms, (z1, z2)
    )
    expected = {
        "invariance": np.mean((z1 - z2) ** 2),
        "variance": variance_1 / 2 + variance_2 / 2,
        "covariance": covariance_1 + covariance_2,
    }
    scalars = {k: float(v) for k, v in model.objective(outputs).items()}
    assert min(expected.values()) > 0
    loss = (
        25 * expected["invariance"]
        + 25 * expected["variance"]
        + expected["covariance"]
    )
    expected["loss"] = loss
    assert scalars == pytest.approx(expected, rel=1e-4)
    # Each weight scales its own term.
    for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        settings = dict(
            zip(
                ("invariance_weight", "variance_weight", "covariance_weight"),
                weights,
            )
        )
        for name, value in settings.items():
            setattr(model, name, value)
        term = model.metric_names[weights.index(1.0)]
        found = float(model.objective(outputs)["loss"])
        assert found == pytest.approx(expected[term], rel=1e-4)


def test_a_wide_projection_makes_no_square_matrix(monkeypatch):
    shapes = []
    matmul = ops.matmul

    def watched(a, b):
        result = matmul(a, b)
        shapes.append(tuple(result.shape))
        return result

    model = vicreg()
    monkeypatch.setattr(covariance.ops, "matmul", watched)
    rng = np.random.default_rng(0)
    z = [
        ops.convert_to_tensor(rng.normal(size=(4, 8192)).astype("float32"))
        for _ in range(2)
    ]
    scalars = model.objective({"projection_1": z[0], "projection_2": z[1]})
    assert np.isfinite(float(scalars["loss"]))
    # One for each projection: a Gram matrix is its own transpose's.
    assert shapes == [(4, 4)] * 2


def test_one_view_is_refused():
    with pytest.raises(ValueError, match="2 views"):
        vicreg(augmenter=ViewAugmenter([View(28)]))
