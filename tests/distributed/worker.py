"""Trains methods from given weights and views, on several devices.

KERAS_BACKEND=jax python -m tests.distributed.worker FOLDER DEVICES METHOD ...

With `fit`, as `train_on_batch` shares no batch out; otherwise as
`tests.contracts.parity_worker`. The first process writes
FOLDER/METHOD_DEVICES.npz or, where a method fails, the traceback to .txt.
`without_gather` before the methods makes each device keep to itself, and
`model_parallel` splits the blocks' dense layers instead of the batch (JAX);
these, or `processes`, take the place of the number in the files' names.
"""

import functools
import os
import sys
import traceback
from pathlib import Path

import keras
import numpy as np
from keras import layers

import kerassl
from kerassl import distributed
from tests.contracts import parity_worker
from tests.contracts.methods import (
    METHODS,
    labels_for,
    moco_v2,
    tiny_encoder,
)


def moco_shuffled():
    """MoCo with two groups, which without batch statistics change nothing."""
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 7, strides=4, activation="relu")(inputs / 255)
    encoder = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    return moco_v2(encoder, batch_groups=2)


# Optimizers by the suffix of a case. Clipping is to a tenth of SimCLR's
# gradient.
OPTIMIZERS = {
    "clipped": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
    "accumulated": lambda: keras.optimizers.SGD(
        0.1, gradient_accumulation_steps=2
    ),
    "lars": lambda: kerassl.optimizers.LARS(0.5),
}
# For these, the results of `embed` and the like are compared, too (`features`).
EMBEDDED = ("simclr", "mae", "context_encoder")


def optimizer_for(method):
    kind = method.rpartition("_")[2]
    return OPTIMIZERS[kind]() if kind in OPTIMIZERS else None


def build(method):
    if method == "moco_shuffled":
        return moco_shuffled()
    if optimizer_for(method):
        method = method.rpartition("_")[0]
    model = METHODS[method](tiny_encoder())
    if hasattr(model, "draw_directions"):
        # Otherwise they depend on what the process did before.
        model.seed_generator.state.assign([2, 0])
    return model


def save(method, folder):
    """Writes the weights of a new model, and views for it."""
    model = build(method)
    arrays = {f"weight_{i}": w for i, w in enumerate(model.get_weights())}
    for step, batch in enumerate(parity_worker.views(model)):
        arrays |= {f"views_{step}_{k}": v for k, v in batch.items()}
    np.savez(folder / f"{method}.npz", **arrays)


def in_parts(model, batch):
    """Takes a step on this process's part and returns the global loss."""
    labels = labels_for(model, parity_worker.BATCH)
    if labels is not None:
        labels = distributed.process_shard(labels)
    batch = {
        name: distributed.process_shard(array) for name, array in batch.items()
    }
    own = len(next(iter(batch.values())))
    history = model.fit(batch, labels, own, shuffle=False, verbose=0)
    return history.history["loss"][0]


def features(pictures, model):
    """Returns the features of a few images, which don't divide evenly.

    Of a model that paints, its pictures of them instead.
    Several processes also train on images as a user has them, with pictures.
    """
    shape = (5, *model.encoder.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, "uint8")
    keras.config.set_floatx("float32")  # The dtype of views.
    if hasattr(model, "reconstruct"):
        return {"features": model.reconstruct(images)["reconstruction"]}
    found = model.embed(images)
    if distributed.process()[1] > 1:
        own = distributed.process_shard(np.resize(images, (8, *shape[1:])))
        callback = kerassl.callbacks.PretextPictures(images[:2], pictures)
        model.fit(own, batch_size=len(own), verbose=0, callbacks=[callback])
    return {"features": found}


def forget_gather():
    for name, module in list(sys.modules.items()):
        if name.startswith("kerassl.methods") and hasattr(module, "gather"):
            module.gather = module.local_rows = lambda features: features
            module.local_indices = lambda features: None


def split_model(devices):
    """Splits the dense layers of a ViT's blocks over devices."""
    lib = keras.distribution
    found = lib.list_devices()[:devices]
    layouts = lib.LayoutMap(lib.DeviceMesh((1, devices), ("batch", "m"), found))
    layouts[".*mlp/dense_1/kernel"] = (None, "m")
    layouts[".*mlp/dense_2/kernel"] = ("m", None)
    lib.set_distribution(
        lib.ModelParallel(layout_map=layouts, auto_shard_dataset=False)
    )


def run(method, folder, stem):
    """Returns what a method finds, as `parity_worker.run`."""
    return parity_worker.run(
        method,
        folder,
        build,
        in_parts,
        optimizer_for(method),
        functools.partial(features, stem) if method in EMBEDDED else None,
    )


def main(folder, devices, *methods):
    folder = Path(folder)
    # Processes of JAX draw different weights until `devices` shares a seed.
    place = int(os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", 0))
    keras.utils.set_random_seed(2 + place)
    with distributed.devices(int(devices)):
        for method in methods:
            if method == "without_gather":
                forget_gather()
            if method == "model_parallel":
                split_model(int(devices))
            if method in ("without_gather", "processes", "model_parallel"):
                devices = method  # The suffix of the results.
                continue
            stem = folder / f"{method}_{devices}"
            try:
                found = run(method, folder, stem)
                if distributed.process()[0] == 0:
                    np.savez(stem.with_suffix(".npz"), **found)
            except Exception:
                text = traceback.format_exc()
                stem.with_suffix(".txt").write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
