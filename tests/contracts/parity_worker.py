"""Runs a method from given weights and views; prints nothing, writes arrays.

KERAS_BACKEND=jax python -m tests.contracts.parity_worker METHOD IN OUT
"""

import sys

import keras
import numpy as np
from keras import ops

import kerassl
from tests.contracts.methods import METHODS


@keras.saving.register_keras_serializable(package="tests")
class Gradients(keras.optimizers.Optimizer):
    """Leaves each variable's gradient in its place."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign(variable, ops.cast(gradient, variable.dtype))


def build(method):
    encoder = kerassl.encoders.build("resnet_nano", (32, 32, 3))
    return METHODS[method](encoder)


def views(count=3, batch=16):
    """Smooth images, as floats in [0, 255]."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 2, batch, 8, 8, 3))
    fine = coarse.repeat(4, axis=3).repeat(4, axis=4).astype("float32")
    return [dict(zip(("view_1", "view_2"), pair)) for pair in fine]


def run(method, weights):
    batches = views()
    found = {}
    for kind, optimizer, steps in (
        ("gradient", Gradients(1.0), 1),
        ("sgd", keras.optimizers.SGD(0.02, momentum=0.9), len(batches)),
    ):
        model = build(method)
        model.set_weights(weights)
        model.compile(optimizer)
        for step in range(steps):
            logs = model.train_on_batch(batches[step], return_dict=True)
            model.reset_metrics()
            found[f"{kind}_loss_{step}"] = np.asarray(float(logs["loss"]))
        for i, weight in enumerate(model.weights):
            kept = "parameter" if weight.trainable else "state"
            found[f"{kind}_{kept}_{i}"] = ops.convert_to_numpy(weight)
    return found


if __name__ == "__main__":
    method, source, target = sys.argv[1:]
    with np.load(source) as given:
        weights = [given[f"{i}"] for i in range(len(given.files))]
    np.savez(target, **run(method, weights))
