"""Segmentation by a linear classifier of patches."""

from typing import Any

import numpy as np

from kerassl.evaluation.labels import to_numpy
from kerassl.evaluation.linear import fit_logistic, standardization

# Patches to learn from; more hardly change a linear classifier.
MOST_PATCHES = 20_000


def segmentation_probe(
    train_maps: Any,
    train_masks: Any,
    test_maps: Any,
    test_masks: Any,
    *,
    ignore: int | None = None,
    penalty: float = 1e-3,
    seed: int = 0,
) -> dict[str, Any]:
    """Segments images by a linear classifier of frozen patch features.

    A patch learns the class that most of its pixels have, by multinomial
    logistic regression on standardized features. At test time the classes'
    scores are enlarged bilinearly to the size of the mask, and each pixel gets
    the class with the highest.

    Args:
        train_maps: float array `(N, h, w, D)`, as
            `kerassl.encoders.embed(..., patches=True)` returns.
        train_masks: int array `(N, H, W)`, the class of each pixel, from 0; H
            and W are multiples of h and w.
        test_maps: float array `(M, h, w, D)`.
        test_masks: int array `(M, H, W)`.
        ignore: int, a class that marks pixels to leave out, or `None`.
        penalty: float > 0, the L2 penalty; see `linear_probe`.
        seed: int, of the choice of patches, if there are more than 20,000.

    Returns:
        A dict: `miou`, the mean over the classes of the test masks of the
        intersection over union, in [0, 1]; `ious`, a dict from class to its
        own; `pixel_accuracy`; `train_size` and `test_size`, in images.

    Raises:
        ValueError: if shapes don't fit, or there is only one class.

    Example:
    ```python
    maps = kerassl.encoders.embed(encoder, images, patches=True)
    test_maps = kerassl.encoders.embed(encoder, test_images, patches=True)
    scores = kerassl.evaluation.segmentation_probe(
        maps, masks, test_maps, test_masks
    )
    scores["miou"]
    ```

    Reference:
        - [Oquab et al., 2023](https://arxiv.org/abs/2304.07193), 7.4, where
          the linear layer is trained by SGD on pixels
    """
    x, masks = _checked("train", train_maps, train_masks)
    x_test, truth = _checked("test", test_maps, test_masks)
    if x.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            "Training and test maps must have the same shape. Received: "
            f"{x.shape[1:]} and {x_test.shape[1:]}"
        )
    classes = np.unique(np.concatenate([masks.ravel(), truth.ravel()]))
    classes = classes[classes != ignore]
    labels = _majority(masks, x.shape[1:3], classes)
    known = np.flatnonzero(labels >= 0)
    if len(known) > MOST_PATCHES:
        rng = np.random.default_rng(seed)
        known = np.sort(rng.choice(known, MOST_PATCHES, replace=False))
    if len(np.unique(labels[known])) < 2:
        raise ValueError("The training patches have only one class.")
    if (truth == ignore).all():
        raise ValueError(f"All test pixels are {ignore}, which is left out.")
    tokens = x.reshape(-1, x.shape[-1])[known]
    mean, scale = standardization(tokens)
    model = fit_logistic((tokens - mean) / scale, labels[known], penalty)
    confusion = np.zeros((len(classes), len(classes)), "int64")
    for maps, mask in zip(x_test, truth):
        scores = model.decision_function(
            ((maps - mean) / scale).reshape(-1, maps.shape[-1])
        )
        if scores.ndim == 1:  # Of two classes.
            scores = np.stack([-scores, scores], -1) / 2
        grid = scores.reshape(*maps.shape[:2], -1)
        best = model.classes_[enlarged(grid, mask.shape).argmax(-1)]
        kept = np.isin(mask, classes)
        row = np.searchsorted(classes, mask[kept])
        np.add.at(confusion, (row, best[kept]), 1)
    return {
        **_scores(confusion, classes),
        "train_size": len(x),
        "test_size": len(x_test),
    }


def _checked(name: str, maps: Any, masks: Any) -> tuple[np.ndarray, np.ndarray]:
    maps, masks = to_numpy(maps), to_numpy(masks)
    if (
        maps.ndim != 4
        or masks.ndim != 3
        or len(maps) != len(masks)
        or not len(maps)
        or masks.dtype.kind not in "iu"
        or masks.shape[1] % maps.shape[1]
        or masks.shape[2] % maps.shape[2]
    ):
        raise ValueError(
            f"The {name} set needs maps (N, h, w, D) and integer masks "
            "(N, H, W), H and W multiples of h and w. Received: "
            f"{maps.shape}, and {masks.shape} of {masks.dtype}"
        )
    if not np.isfinite(maps).all():
        raise ValueError(f"The {name} maps aren't finite.")
    return maps.astype("float32", copy=False), masks


def _majority(
    masks: np.ndarray, grid: tuple[int, ...], classes: np.ndarray
) -> np.ndarray:
    """Returns the index of each patch's class, -1 if all is left out."""
    count, height, width = masks.shape
    rows, columns = height // grid[0], width // grid[1]
    pixels = masks.reshape(count, grid[0], rows, grid[1], columns)
    votes = np.stack([(pixels == c).sum((2, 4)) for c in classes], -1)
    return np.where(votes.any(-1), votes.argmax(-1), -1).ravel()


def enlarged(grid: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Returns a map enlarged bilinearly, centers of patches on their pixels.

    Args:
        grid: float array `(h, w, K)`.
        size: tuple `(H, W)`.

    Returns:
        An array `(H, W, K)`.
    """
    rows, columns = (_weights(n, m) for n, m in zip(grid.shape, size))
    return np.einsum("Hh,hwk,Ww->HWk", rows, grid, columns, optimize=True)


def _weights(old: int, new: int) -> np.ndarray:
    """Returns the matrix `(new, old)` of bilinear interpolation."""
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)))


def _scores(confusion: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    both = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - both
    present = confusion.sum(1) > 0
    ious = both[present] / union[present]
    return {
        "miou": float(ious.mean()),
        "ious": dict(zip(classes[present].tolist(), ious.tolist())),
        "pixel_accuracy": float(both.sum() / confusion.sum()),
    }
