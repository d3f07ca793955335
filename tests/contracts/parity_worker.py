"""Runs methods from given weights and views, and writes arrays.

KERAS_BACKEND=jax python -m tests.contracts.parity_worker FOLDER METHOD ...

Reads FOLDER/METHOD.npz, the weights and views that `save` wrote, and writes
FOLDER/METHOD_jax.npz, or, where a method fails, the traceback to
FOLDER/METHOD_jax.txt.

Weights and layers are float64, losses float32 as always. Of a batch's millions
of activations a few lie so near 0 that float32 rounds them to either side of a
ReLU, differently on each machine, and each moves the gradient by more than any
mistake worth finding might.
"""

import contextlib
import sys
import traceback
from pathlib import Path

import keras
import numpy as np
from keras import ops

import kerassl
from tests.contracts.methods import METHODS, labels_for, tiny_encoder

BATCH = 16
FIRST_RATE = 1e-4
# The length of later steps, since the scales of losses differ by hundreds.
STEP = 0.01
STEPS = 3


@contextlib.contextmanager
def double_precision():
    """Makes float64 the default dtype; JAX needs JAX_ENABLE_X64 for it."""

    def choose(dtype):
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)

    choose("float64")
    try:
        yield
    finally:
        choose("float32")


def build(method):
    """Returns the method, on an encoder that is compiled quickly.

    One is on a ResNet: it computes alike too, and for all it would take JAX
    minutes.
    """
    encoder = tiny_encoder((32, 32, 3))
    if method == "simclr":
        # Exact in float32, to which TensorFlow rounds constants.
        exact = dict(mean=[128 / 255] * 3, std=[128 / 255] * 3)
        encoder = kerassl.encoders.build("resnet_nano", (32, 32, 3), **exact)
    model = METHODS[method](encoder)
    if hasattr(model, "draw_directions"):
        # Backends draw different numbers from one seed.
        drawn = ops.convert_to_numpy(model.draw_directions())
        drawn = np.random.default_rng(0).normal(size=drawn.shape)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        model.draw_directions = lambda: ops.convert_to_tensor(drawn)
    return model


@double_precision()
def save(method, folder):
    """Writes the weights of a new model, and views for it."""
    model = build(method)
    arrays = {f"weight_{i}": w for i, w in enumerate(model.get_weights())}
    for step, batch in enumerate(views(model)):
        arrays |= {f"views_{step}_{k}": v for k, v in batch.items()}
    np.savez(folder / f"{method}.npz", **arrays)


def views(model):
    """Smooth float images in [0, 255], in the sizes of the views."""
    rng = np.random.default_rng(0)
    channels = model.encoder.input_shape[-1]
    is_plain = model.augmenter.view_names == list(model.augmenter.views)
    batches = []
    for _ in range(STEPS):
        batches.append({})
        for name, size in model.augmenter.sizes.items():
            coarse = rng.integers(0, 256, (BATCH, 8, 8, channels))
            at = np.arange(size) * 8 // size
            coarse = coarse.astype("float32")
            batches[-1][name] = coarse[:, at][:, :, at]
        if not is_plain or model.drawn_names:
            images = next(iter(batches[-1].values()))
            made = model.make_views(batches[-1] if is_plain else images)
            batches[-1] = {k: ops.convert_to_numpy(v) for k, v in made.items()}
    return batches


def on_batch(model, batch):
    """Takes a step and returns its loss."""
    labels = labels_for(model, BATCH)
    logs = model.train_on_batch(batch, labels, return_dict=True)
    model.reset_metrics()
    return logs["loss"]


@double_precision()
def run(
    method, folder, build=build, step_on=on_batch, optimizer=None, also=None
):
    """Takes a few steps from the weights in `folder`, by default of SGD.

    `also` returns what else is to be found of the model that it has then.
    """
    model = build(method)
    with np.load(folder / f"{method}.npz") as file:
        given = dict(file)
    count = sum(name.startswith("weight_") for name in given)
    model.set_weights([given[f"weight_{i}"] for i in range(count)])
    is_plain = optimizer is None
    if is_plain:
        optimizer = keras.optimizers.SGD(FIRST_RATE, momentum=0.9)
    model.compile(optimizer)
    found = {}
    for step in range(STEPS):
        start = f"views_{step}_"
        batch = {
            name.removeprefix(start): array
            for name, array in given.items()
            if name.startswith(start)
        }
        found[f"loss_{step}"] = float(step_on(model, batch))
        if step == 0 and is_plain:
            # After one step the momentum equals the gradient.
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
    return found | (also(model) if also else {})


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
