"""Runs methods from given weights and views, and writes arrays.

KERAS_BACKEND=jax python -m tests.contracts.parity_worker FOLDER METHOD ...

Reads FOLDER/METHOD.npz, and writes FOLDER/METHOD_jax.npz, or, where a method
fails, the traceback to FOLDER/METHOD_jax.txt.
"""

import sys
import traceback
from pathlib import Path

import keras
import numpy as np
from keras import ops

import kerassl
from tests.contracts.methods import METHODS

FIRST_RATE = 1e-4
# The length of the later steps. Losses differ in scale by hundreds, and after
# long steps one ReLU that rounding turned shows in the loss.
STEP = 0.01


def build(method):
    encoder = kerassl.encoders.build("resnet_nano", (32, 32, 3))
    return METHODS[method](encoder)


def save_weights(method, folder):
    weights = build(method).get_weights()
    np.savez(
        folder / f"{method}.npz", **{f"{i}": w for i, w in enumerate(weights)}
    )


def views(model, count=3, batch=32):
    """Smooth images, as floats in [0, 255], of the sizes that it needs."""
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(count):
        batches.append({})
        for name, view in model.augmenter.views.items():
            coarse = rng.integers(0, 256, (batch, 8, 8, 3)).astype("float32")
            at = np.arange(view.size) * 8 // view.size
            batches[-1][name] = coarse[:, at][:, :, at]
    return batches


def run(method, folder):
    """Takes a few steps of SGD from the weights in `folder`."""
    model = build(method)
    with np.load(folder / f"{method}.npz") as given:
        model.set_weights([given[f"{i}"] for i in range(len(given.files))])
    optimizer = keras.optimizers.SGD(FIRST_RATE, momentum=0.9)
    model.compile(optimizer)
    found = {}
    for step, batch in enumerate(views(model)):
        logs = model.train_on_batch(batch, return_dict=True)
        model.reset_metrics()
        found[f"loss_{step}"] = float(logs["loss"])
        if step == 0:
            # The momentum is the gradient, until a second one is added.
            gradients = [
                ops.convert_to_numpy(momentum) / -FIRST_RATE
                for momentum in optimizer.momentums
            ]
            for i, gradient in enumerate(gradients):
                found[f"first_gradient_{i}"] = gradient
            for i, weight in enumerate(model.non_trainable_weights):
                found[f"first_state_{i}"] = ops.convert_to_numpy(weight)
            norm = np.linalg.norm([np.linalg.norm(g) for g in gradients])
            optimizer.learning_rate.assign(STEP / norm)
    for kind, weights in (
        ("parameter", model.trainable_weights),
        ("state", model.non_trainable_weights),
    ):
        for i, weight in enumerate(weights):
            found[f"last_{kind}_{i}"] = ops.convert_to_numpy(weight)
    return found


def main(folder, *methods):
    folder = Path(folder)
    for method in methods:
        stem = f"{method}_{keras.backend.backend()}"
        try:
            np.savez(folder / f"{stem}.npz", **run(method, folder))
        except Exception:
            (folder / f"{stem}.txt").write_text(traceback.format_exc())


if __name__ == "__main__":
    main(*sys.argv[1:])
