"""What is LeJEPA's own."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from tests.backends import once
from tests.contracts.methods import lejepa, tiny_encoder
from tests.methods.formulas import six_steps_agree


def with_small_views(**kwargs):
    views = [View(28), View(20), View(28)]
    return lejepa(tiny_encoder(), augmenter=ViewAugmenter(views), **kwargs)


@once
def test_six_steps_on_the_papers_formulas():
    import torch

    def formula(outputs):
        z, directions = outputs["projections"], outputs["directions"]
        center = z[:, :2].mean(1, keepdim=True)
        t = torch.linspace(0, 3, 17, dtype=z.dtype)
        normal = torch.exp(-t.square() / 2)
        x = (z @ directions.T)[..., None] * t
        error = (x.cos().mean(0) - normal) ** 2 + x.sin().mean(0) ** 2
        area = 2 * torch.trapezoid(error * normal, t)
        return 0.9 * (z - center).square().mean() + 0.1 * (len(z) * area).mean()

    six_steps_agree(
        lambda: with_small_views(regularization_weight=0.1, seed=1),
        formula,
    )


def test_large_views_come_first():
    model = with_small_views()
    assert model.ordered_views == ["view_1", "view_3", "view_2"]
    assert model.num_large_views == 2
    views = {
        name: np.random.default_rng(i).uniform(0, 255, (4, size, size, 1))
        for i, (name, size) in enumerate(model.augmenter.sizes.items())
    }
    views = {k: v.astype("float32") for k, v in views.items()}
    outputs = model.forward_views(model.make_views(views))
    found = ops.convert_to_numpy(outputs["projections"])
    for i, name in enumerate(model.ordered_views):
        size = str(model.augmenter.sizes[name])
        features = model.encoders_by_size[size](views[name])
        expected = ops.convert_to_numpy(model.projector(features))
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-4, atol=1e-5)


def test_directions_are_new_in_each_step_and_follow_the_seed(tmp_path):
    models = [lejepa(tiny_encoder(), seed=seed) for seed in (1, 1, 2)]
    draws = [
        [ops.convert_to_numpy(model.draw_directions()) for _ in range(2)]
        for model in models
    ]
    assert draws[0][0].shape == (32, 8)
    np.testing.assert_allclose(np.linalg.norm(draws[0][0], axis=1), 1, 1e-5)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0][0] - draws[0][1]).max() > 0.1
    assert np.abs(draws[0][0] - draws[2][0]).max() > 0.1
    # The seed is saved, so a run that goes on draws what it would have drawn.
    models[0].save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(m.draw_directions()) for m in (models[0], again))
    )


def test_the_collapsed_loss_is_the_objectives():
    model = lejepa(tiny_encoder())
    outputs = {
        "projections": ops.zeros((32, 4, 8)),
        "directions": model.draw_directions(),
    }
    loss = float(model.objective(outputs)["loss"])
    assert loss == pytest.approx(model.collapsed_loss(32), rel=1e-5)
    assert model.collapsed_loss(None) is None


def test_wrong_arguments_are_refused():
    for wrong in (
        {"num_directions": 0},
        {"regularization_weight": 0.0},
        {"regularization_weight": 1.0},
    ):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
            lejepa(tiny_encoder(), **wrong)
    with pytest.raises(ValueError, match="at least 2 views"):
        kerassl.LeJEPA(tiny_encoder(), augmenter=ViewAugmenter([View(28)]))
