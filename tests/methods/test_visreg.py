"""What is VISReg's own."""

import pytest
from keras import ops

from kerassl.augmentation import View, ViewAugmenter
from tests.backends import once
from tests.contracts.methods import tiny_encoder, visreg
from tests.methods.formulas import six_steps_agree


@once
def test_six_steps_on_the_papers_formulas():
    import torch

    def formula(outputs):
        z, directions = outputs["projections"], outputs["directions"]
        center = z[:, :2].mean(1, keepdim=True)
        prediction = (z - center).square().mean()
        deviation = z.std(0, correction=0)
        samples = (z - z.mean(0)) / (deviation.detach() + 1e-4)
        places = torch.arange(1, len(z) + 1) / (len(z) + 1)
        quantiles = torch.distributions.Normal(0.0, 1.0).icdf(places)
        ordered = (samples @ directions.T).sort(dim=0).values
        shape = (ordered - quantiles[:, None, None]).square().mean()
        scale = (1 - deviation).square().mean()
        middle = z.mean(0).square().mean()
        return 0.4 * prediction + 0.6 * (scale + shape + middle)

    views = ViewAugmenter([View(28), View(20), View(28)])
    # Rounding decides the order of samples that are close to each other. With
    # these directions none are closer than 2e-4.
    settings = dict(augmenter=views, num_directions=4, seed=3)
    six_steps_agree(lambda: visreg(tiny_encoder(), **settings), formula)


def test_the_collapsed_loss_is_the_objectives():
    model = visreg(tiny_encoder())
    outputs = {
        "projections": ops.zeros((32, 4, 8)),
        "directions": model.draw_directions(),
    }
    loss = float(model.objective(outputs)["loss"])
    assert loss == pytest.approx(model.collapsed_loss(32), rel=1e-5)
    assert model.collapsed_loss(None) is None
