"""Jigsaw: predict the order in which the tiles of an image are shuffled."""

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

    An image is cut into 3x3 tiles, which are shuffled in one of
    `num_permutations` orders. The encoder sees each tile separately
    (context-free). Only the classifier sees the features of all tiles, in
    shuffled order, and predicts the order. The features are shuffled here,
    after the encoder, which is the same as shuffling tiles, since the encoder
    doesn't know the position of a tile.

    Args:
        encoder: `keras.Model` from images to features `(N, D)`, or a KerasHub
            or KerasCV backbone. It also has to take images of the size of the
            tiles: ResNets do, and so do ViTs built for that size.
        num_permutations: int in [2, 1000], the number of orders. They are
            chosen far from each other: any two of 100 differ in at least 6 of
            the 9 positions.
        projection_dim: int, the width of the projected features of a tile.
        hidden_dim: int, the width of the classifier's hidden layer.
        seed: int, of the set of permutations and of their draws.
        augmenter: a `TileAugmenter` with a grid of 3. By default
            `kerassl.augmentation.jigsaw` at the encoder's image size.
        **kwargs: the arguments of `keras.Model`.

    Raises:
        ValueError: if an argument is out of range, the augmenter doesn't make
            3x3 tiles, or the encoder can't take them.

    Metrics: `permutation_accuracy`, the fraction of orders predicted correctly.
    Chance is `1 / num_permutations`, with a loss of ln(num_permutations).

    Ready-made views: `"tiles"` `(N, 9, size, size, C)`, in row-major order, and
    optionally `"permutation"`, int `(N,)`: indices of rows of
    `model.permutations`, which hold the tile for each position.

    Example:
    ```python
    encoder = kerassl.encoders.build("resnet_18_small", (32, 32, 3))
    model = kerassl.Jigsaw(encoder, num_permutations=100)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.fit(images, batch_size=256, epochs=100)
    ```

    Deviations from MehdiNoroozi/JigsawPuzzleSolver: any encoder instead of an
    AlexNet whose first stride is 2; batch normalization in the classifier;
    permutations with a larger smallest distance than in the released file;
    tiles are normalized, as in the paper but not in the code. The view that is
    cut is a random crop of 0.5 to 1 of the area and a ratio of 3/4 to 4/3,
    where the code resizes the short side to 256 pixels and crops 255.

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
        self.num_permutations = num_permutations
        self.projection_dim = projection_dim
        self.hidden_dim = hidden_dim
        self.seed = seed
        self.seed_generator = DeviceSeedGenerator(seed)
        self.tile_encoder = encoder_of_tiles(self)
        # (P, 9): the tile for each position.
        self.permutations = far_permutations(num_permutations, seed)
        # Products with permutation matrices instead of gathers. A tensor, since
        # a NumPy array would be sent to the device in each step.
        matrices = np.eye(TILES, dtype="float32")[self.permutations]
        self.moves = ops.convert_to_tensor(matrices.reshape(len(matrices), -1))
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
        """Projects tiles, shuffles their features, and classifies the order."""
        features = features_of_tiles(
            self.tile_encoder, views["tiles"], training
        )
        features = ops.relu(self.projector(features, training=training))
        features = ops.reshape(features, (-1, TILES, self.projection_dim))
        order = one_hot(ops, views["permutation"], len(self.permutations))
        moves = ops.matmul(order, self.moves)
        moves = ops.cast(ops.reshape(moves, (-1, TILES, TILES)), features.dtype)
        shuffled = ops.reshape(
            ops.matmul(moves, features), (-1, TILES * self.projection_dim)
        )
        return {
            "logits": self.classifier(shuffled, training=training),
            "targets": order,
        }

    def objective(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Compares the predicted order with the true one."""
        found = classification(outputs["logits"], outputs["targets"])
        return {
            "loss": found["loss"],
            "permutation_accuracy": found["accuracy"],
        }

    def collapsed_loss(self, batch_size: int | None) -> float | None:
        """Returns the loss of a guess."""
        return math.log(len(self.permutations))


def encoder_of_tiles(model: SelfSupervisedModel) -> keras.Model:
    """Returns the encoder of a model, at the size of its nine tiles.

    Raises:
        ValueError: if the augmenter doesn't make nine tiles, or the encoder
            can't take them.
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

    The first is random. Each further one is the one whose smallest Hamming
    distance to those before is largest; ties go to the largest mean distance.
    Any two of 100 such permutations differ in at least 6 positions; those that
    the authors released differ in at least 2. `distances` measures this. The
    choice takes some seconds, and is cached in the process.

    Args:
        count: int in [2, 1000].
        seed: int.

    Returns:
        A read-only int array `(count, 9)`.

    Raises:
        ValueError: if `count` is out of range.
    """
    if not 2 <= count <= 1000:
        raise ValueError(
            f"`num_permutations` must be between 2 and 1000. Received: {count}"
        )
    every = np.array(list(itertools.permutations(range(TILES))), "int8")
    # In random order, since remaining ties go to the first.
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
