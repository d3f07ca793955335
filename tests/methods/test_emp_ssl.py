"""What is EMP-SSL's own."""

import pytest
from keras import ops

import kerassl
from kerassl.augmentation import View, ViewAugmenter
from tests.backends import once
from tests.contracts.methods import emp_ssl, tiny_encoder
from tests.methods.formulas import six_steps_agree


def views_of(recipe, size):
    settings = dict(recipe.views)
    make_views = getattr(kerassl.augmentation, settings.pop("preset"))
    return make_views(size, **settings).views


@once
def test_six_steps_on_the_papers_formulas():
    import torch

    def formula(outputs):
        z = outputs["projections"]
        z = z / z.norm(dim=2, keepdim=True)
        count, views, dim = z.shape
        center = z.mean(1)
        loss = 0.0
        for v in range(views):
            cosine = torch.cosine_similarity(z[:, v], center).mean()
            covariance = z[:, v].T @ z[:, v]
            matrix = torch.eye(dim) + dim / (count * 0.2) * covariance
            loss = loss - (20 * cosine + torch.logdet(matrix) / 2) / views
        return loss

    six_steps_agree(
        lambda: emp_ssl(tiny_encoder(), invariance_weight=20.0), formula
    )


def test_the_default_views_are_many_quarters():
    views = kerassl.methods.EMPSSL.default_views(32).views
    assert len(views) == 20
    assert {view.crop_area for view in views.values()} == {(0.25, 0.25)}


def test_patches_have_one_jitter_and_are_blurred_above_32_pixels():
    recipe = kerassl.recipes.get("emp_ssl", "imagenet")
    for size, blur in ((32, 0.0), (64, 0.1), (224, 0.1)):
        (view,) = {*kerassl.methods.EMPSSL.default_views(size).views.values()}
        assert (view.brightness, view.contrast, view.saturation) == (0.4,) * 3
        assert (view.hue, view.jitter, view.blur) == (0.1, 0.8, blur)
    (of_recipe,) = {*views_of(recipe, 224).values()}
    assert of_recipe == view
    small = kerassl.recipes.get("emp_ssl", "cifar")
    assert {*views_of(small, 32).values()} == {
        *kerassl.augmentation.simclr(32, crop_area=(0.25, 0.25)).views.values()
    }
    assert {view.brightness for view in views_of(small, 64).values()} == {0.4}


def test_the_collapsed_loss_is_the_objectives():
    model = emp_ssl(tiny_encoder())
    outputs = {"projections": ops.ones((32, 3, 8))}
    loss = float(model.objective(outputs)["loss"])
    assert loss == pytest.approx(model.collapsed_loss(32), rel=1e-5)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`epsilon`"):
        emp_ssl(tiny_encoder(), epsilon=0.0)
    with pytest.raises(ValueError, match="at least 2 views"):
        kerassl.EMPSSL(tiny_encoder(), augmenter=ViewAugmenter([View(28)]))
