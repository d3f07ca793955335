"""Writes the files of this folder, with the code and names of 6cb0b0a.

    git worktree add old 6cb0b0a; cd old
    KERAS_BACKEND=jax PYTHONPATH=. python .../tests/saved/make.py

`NAME.keras` is a model after one optimizer step. `NAME.npz` holds the features
that it has, the loss of its next step, and the features after that step.

JAX writes them, since Keras saves PyTorch's optimizers as classes of their own,
which work on no other backend.
"""

import io
import pathlib
import sys
import zipfile

import keras
import numpy as np

FOLDER = pathlib.Path(__file__).parent
COUNT, SIZE = 8, 16


def images(size=SIZE, seed=0):
    """Smooth images of one channel."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (COUNT, 7, 7, 1)).astype("float32")
    at = np.arange(size) * 7 // size
    return coarse[:, at][:, :, at]


def views(name):
    """Ready-made views, with what a method draws besides."""
    rng = np.random.default_rng(5)
    if name == "mae":
        noise = rng.uniform(size=(COUNT, 16)).astype("float32")
        return {"view_1": images(), "noise": noise}
    if name == "context_encoder":
        mask = np.zeros((COUNT, SIZE, SIZE, 1), "float32")
        mask[:, 4:12, 5:11] = 1
        return {"view_1": images(), "mask": mask}
    if name == "jigsaw":
        tiles = np.stack([images(8, seed) for seed in range(9)], axis=1)
        return {"tiles": tiles, "permutation": np.arange(COUNT) % 3}
    found = {"view_1": images(seed=1), "view_2": images(seed=2)}
    if name == "swav":
        found["view_3"] = images(12, seed=3)
    return found


def encoder():
    """A tiny convolutional network."""
    inputs = keras.Input((SIZE, SIZE, 1))
    x = keras.layers.Rescaling(1 / 128, offset=-1)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=3, use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.ReLU()(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def vit():
    """A tiny ViT."""
    import keras_hub

    inputs = keras.Input((SIZE, SIZE, 1))
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(SIZE, SIZE, 1),
        patch_size=4,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=8,
        name="backbone",
    )
    tokens = backbone(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs))
    return keras.Model(inputs, keras.layers.Flatten()(tokens[:, :1]))


def models():
    """Yields names, models and their optimizers, with the names of then."""
    import kerassl

    augmentation = kerassl.augmentation
    momentum = kerassl.training.CosineMomentum(0.9, 32)
    heads = dict(hidden_dim=6, projection_dim=4)
    yield (
        "swav",
        kerassl.SwAV(
            encoder(),
            prototypes=5,
            freeze_prototypes_steps=1,
            queue_size=16,
            queue_start_step=1,
            augmenter=augmentation.swav(SIZE, small_size=12, small_views=1),
            **heads,
        ),
        kerassl.optimizers.LARS(0.1),
    )
    yield (
        "byol",
        kerassl.BYOL(encoder(), momentum=momentum, **heads),
        kerassl.optimizers.LARS(0.1),
    )
    yield (
        "moco_v2",
        kerassl.MoCo(
            encoder(), version=2, projection_dim=4, queue_size=16, momentum=0.9
        ),
        keras.optimizers.SGD(0.05, momentum=0.9),
    )
    yield (
        "moco_v3",
        kerassl.MoCoV3(encoder(), momentum=momentum, **heads),
        kerassl.optimizers.LARS(0.1),
    )
    yield (
        "jigsaw",
        kerassl.Jigsaw(
            encoder(),
            permutations=3,
            augmenter=augmentation.jigsaw(8, view_size=30),
            **heads,
        ),
        keras.optimizers.SGD(0.05, momentum=0.9),
    )
    yield (
        "context_encoder",
        kerassl.ContextEncoder(
            encoder(), mask="blocks", bottleneck_dim=4, discriminator_dim=2
        ),
        kerassl.optimizers.with_rates(
            keras.optimizers.Adam(2e-3, beta_1=0.5), {"discriminator": 2e-4}
        ),
    )
    yield (
        "mae",
        kerassl.MAE(vit(), decoder_dim=8, decoder_depth=1, decoder_heads=2),
        kerassl.optimizers.AdamW(1e-3),
    )


def main():
    """Writes all files, or those of the methods named."""
    for name, model, optimizer in models():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        model.compile(optimizer)
        model.train_on_batch(views(name))
        buffer = io.BytesIO()
        path = FOLDER / f"{name}.keras"
        model.save(path)
        # Compressed, and so a quarter as large.
        with zipfile.ZipFile(path) as source:
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
                for part in source.namelist():
                    target.writestr(part, source.read(part))
        path.write_bytes(buffer.getvalue())
        features = model.embed(images())
        model.reset_metrics()
        logs = model.train_on_batch(views(name), return_dict=True)
        np.savez_compressed(
            FOLDER / f"{name}.npz",
            features=features,
            loss=float(logs["loss"]),
            after=model.embed(images()),
        )
        print(name, path.stat().st_size, logs)


if __name__ == "__main__":
    main()
