"""Trains a method beside its paper's formula."""

import keras
import numpy as np
from keras import ops

import kerassl
from tests.contracts.methods import labels_for

STEPS, BATCH = 6, 16


def six_steps_agree(make, formula, learning_rate=0.05):
    """Checks that six steps on a formula's loss end at the same weights.

    Args:
        make: function that returns a new model.
        formula: function of the model's outputs, tensors of PyTorch by name,
            floats as float64, that returns the loss. PyTorch differentiates
            it.
        learning_rate: float. Steps that move the weights by more than their
            norm enlarge rounding.
    """
    data = kerassl.data.load("fashion_mnist_small", limit=STEPS * BATCH)
    weights = []
    for with_formula in (False, True):
        keras.utils.set_random_seed(0)
        model = make()
        if with_formula:
            model.objective = objective_of(model, formula)
        before = model.get_weights()
        model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9))
        for step in range(STEPS):
            rows = slice(BATCH * step, BATCH * (step + 1))
            batch = data.images[rows].astype("float32")
            views = {
                name: np.roll(batch, i, axis=2)[:, :size, :size]
                for i, (name, size) in enumerate(model.augmenter.sizes.items())
            }
            model.train_on_batch(views, labels_for(model, BATCH))
        weights.append(model.get_weights())
    flat = [
        np.concatenate([w.ravel() for w in some]) for some in (before, *weights)
    ]
    moved = np.linalg.norm(flat[1] - flat[0])
    assert moved > 1e-2 * np.linalg.norm(flat[0])
    assert np.linalg.norm(flat[2] - flat[1]) < 1e-5 * np.linalg.norm(flat[1])


def objective_of(model, formula):
    """Returns an objective whose loss is the formula's."""

    def objective(outputs):
        found = {
            k: ops.cast(v, "float64") if "float" in str(v.dtype) else v
            for k, v in outputs.items()
        }
        loss = ops.cast(formula(found), "float32")
        return {"loss": loss} | {name: loss for name in model.metric_names}

    return objective
