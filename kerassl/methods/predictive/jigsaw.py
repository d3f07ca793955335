"""Jigsaw: in which order were the tiles of an image shuffled?"""

import functools
import itertools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kerassl import augmentation, encoders
from kerassl.augmentation.namespace import one_hot
from kerassl.distributed import DeviceSeedGenerator
from kerassl.losses import classification
from kerassl.methods.base import SelfSupervisedModel

TILES = 9


@keras.saving.register_keras_serializable(package="kerassl")
class Jigsaw(SelfSupervisedModel):
    """Solving jigsaw puzzles.

    An image is cut into 3x3 tiles, which come in one of `num_permutations`
    orders. The encoder sees each tile by itself (context-free); only the
    classifier sees
    the features of all tiles, in their shuffled order, and has to name it.
    So it is the features that are shuffled here, after the encoder: the same
    as shuffled tiles, since the encoder doesn't know a tile's place.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone. It also has to take images of the tiles' size:
            the ResNets do, and ViTs that are built for that size.
        num_permutations: int in [2, 1000], the number of orders to tell
            apart. They are chosen far from each other: see `far_permutations`.
        projection_dim: int. The width to which each tile's features are
            projected.
        hidden_dim: int. The width of the classifier's hidden layer.
        seed: int, of the choice of the permutations.
        augmenter: a `TileAugmenter` with a grid of 3. By default
            `kerassl.augmentation.jigsaw` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, the augmenter makes no
            3x3 tiles, or the encoder can't take them.

    Metrics: `permutation_accuracy`, the share of orders that are recognized;
    `1 / num_permutations` by chance, where the loss is ln(num_permutations).

    Ready-made views: `"tiles"` `(N, 9, size, size, C)`, row by row, and maybe
    `"permutation"`, whole numbers `(N,)`: indices into `model.permutations`,
    whose row says which tile comes to each place.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.Jigsaw(encoder, num_permutations=100)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.fit(images, batch_size=256, epochs=100)
    ```

    Deviations from MehdiNoroozi/JigsawPuzzleSolver: any encoder instead of
    AlexNet with a first stride of 2, with batch normalization in the
    classifier; permutations with a larger smallest distance than the released
    file's; tiles normalized, as in the paper and not in the code.

    Reference:
        - [Noroozi and Favaro, 2016](https://arxiv.org/abs/1603.09246)
    """

    metric_names = ("permutation_accuracy",)
    drawn_names = ("permutation",)
    num_views = 1
    default_views = staticmethod(augmentation.jigsaw)

    def __init__(
        self,
        encoder: Any,
        num_permutations: int = 100,
        projection_dim: int = 1024,
        hidden_dim: int = 4096,
        seed: int = 0,
        augmenter: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(encoder, augmenter, **kwargs)
        self.projection_dim = projection_dim
        self.hidden_dim = hidden_dim
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        self.tile_encoder = encoder_of_tiles(self)
        # (P, 9): which tile comes to each place.
        self.permutations = far_permutations(num_permutations, seed)
        self.projector = self.head(
            "projector",
            self.encoder.output_shape[-1],
            (projection_dim,),
            output_bias=True,
        )
        self.classifier = self.head(
            "classifier",
            TILES * projection_dim,
            (hidden_dim, num_permutations),
            output_bias=True,
        )

    def draw(self, count: Any) -> dict[str, Any]:
        """Draws an order for each image."""
        return {
            "permutation": keras.random.randint(
                (count,), 0, len(self.permutations), seed=self.seed_generator
            )
        }

    def forward_views(
        self, views: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Projects each tile, and classifies the order of all."""
        features = features_of_tiles(
            self.tile_encoder, views["tiles"], training
        )
        features = ops.relu(self.projector(features, training=training))
        features = ops.reshape(features, (-1, TILES, self.projection_dim))
        order = one_hot(ops, views["permutation"], len(self.permutations))
        # Matmuls with ones and zeros, since they are not gathers.
        matrices = np.eye(TILES, dtype="float32")[self.permutations]
        moves = ops.matmul(
            order,
            ops.reshape(matrices, (len(matrices), -1)),
        )
        moves = ops.cast(ops.reshape(moves, (-1, TILES, TILES)), features.dtype)
        shuffled = ops.reshape(
            ops.matmul(moves, features), (-1, TILES * self.projection_dim)
        )
        return {
            "logits": self.classifier(shuffled, training=training),
            "targets": order,
        }

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares the guessed order with the true one."""
        found = classification(outputs["logits"], outputs["targets"])
        return {
            "loss": found["loss"],
            "permutation_accuracy": found["accuracy"],
        }

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns that of a guess among the permutations."""
        return math.log(len(self.permutations))

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "num_permutations": len(self.permutations),
            "projection_dim": self.projection_dim,
            "hidden_dim": self.hidden_dim,
            "seed": self.seed,
        }


def encoder_of_tiles(model: SelfSupervisedModel) -> keras.Model:
    """Returns a model's encoder at the size of its nine tiles.

    Raises:
        ValueError: if its augmenter makes none, or the encoder can't take them.
    """
    augmenter = model.augmenter
    if getattr(augmenter, "grid", None) != 3:
        raise ValueError(
            f"{type(model).__name__} takes nine tiles, from a "
            "`kerassl.augmentation.TileAugmenter` with a grid of 3. "
            f"Received: {augmenter!r}"
        )
    return encoders.at_size(model.encoder, augmenter.tile_size)


def features_of_tiles(encoder: keras.Model, tiles: Any, training: bool) -> Any:
    """Returns the features of tiles `(N, 9, S, S, C)`, as `(N * 9, D)`."""
    return encoder(
        ops.reshape(tiles, (-1, *tiles.shape[2:])), training=training
    )


@functools.lru_cache(maxsize=8)
def far_permutations(count: int, seed: int = 0) -> np.ndarray:
    """Chooses permutations of nine tiles that are far from each other.

    The first is random. Each further one has the largest smallest Hamming
    distance to all before, and among those the largest mean distance, so that
    no two orders are alike: 100 of them differ in at least 6 places, where
    those that the authors released differ in at least 2. `distances` measures
    it. The choice takes some seconds, and is kept for the process.

    Args:
        count: int in [2, 1000].
        seed: int.

    Returns:
        An int array `(count, 9)`, to be read only.

    Raises:
        ValueError: if `count` is out of its range.
    """
    if not 2 <= count <= 1000:
        raise ValueError(
            f"`num_permutations` must be between 2 and 1000. Received: {count}"
        )
    every = np.array(list(itertools.permutations(range(TILES))), "int8")
    # Ties go to the first of a random order.
    every = every[np.random.default_rng(seed).permutation(len(every))]
    columns = np.ascontiguousarray(every.T)
    nearest = np.full(len(every), TILES, "int8")
    total = np.zeros(len(every), "int32")
    chosen = [0]
    for _ in range(count - 1):
        last = every[chosen[-1]]
        distance = np.zeros(len(every), "int8")
        for column, value in zip(columns, last):
            distance += column != value
        nearest = np.minimum(nearest, distance)
        total += distance
        best = np.flatnonzero(nearest == nearest.max())
        chosen.append(int(best[np.argmax(total[best])]))
    found = every[chosen].astype("int64")
    found.setflags(write=False)
    return found


def distances(permutations: np.ndarray) -> tuple[int, float]:
    """Returns the smallest and the mean Hamming distance of permutations.

    Args:
        permutations: int array `(P, 9)`.
    """
    differ = (permutations[:, None] != permutations[None]).sum(axis=-1)
    pairs = differ[np.triu_indices(len(permutations), k=1)]
    return int(pairs.min()), float(pairs.mean())
