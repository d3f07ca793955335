"""Describes what is wrong with a run, in sentences."""

import math
from typing import Any

# A loss within this share of the collapsed one counts as collapsed.
NEAR = 0.01
# Features below these hold next to nothing; untrained encoders have more.
LEAST_RANK, LEAST_SPREAD = 2.0, 0.05
# Fewer images have a low rank and spread whatever the encoder.
FEWEST_IMAGES = 20


def loss_problem(
    model: Any, loss: float, batch_size: int | None = None
) -> str | None:
    """Checks for the loss of a model that can't distinguish images.

    Args:
        model: `SelfSupervisedModel`.
        loss: float.
        batch_size: int; by default that of the model's last `fit`.

    Returns:
        A sentence, or `None` if nothing is wrong or the method doesn't know
        its collapsed loss.
    """
    anchor = model.collapsed_loss(batch_size or model.batch_size)
    if anchor is None or not math.isfinite(loss):
        return None
    if abs(loss - anchor) > NEAR * max(abs(anchor), 1.0):
        return None
    return (
        f"The loss of {type(model).__name__} is {loss:.4f}, and it is "
        f"{anchor:.4f} when all images look the same to the model: it has "
        "learned nothing yet, or it has collapsed."
    )


def feature_problems(
    rank: float, spread: float, shape: tuple[int, ...]
) -> dict[str, str]:
    """Checks features of some hundred images for signs of collapse.

    Args:
        rank: float, their `effective_rank`.
        spread: float, their `feature_spread`.
        shape: tuple `(N, D)`, that of the features.

    Returns:
        A dict with a sentence for each problem, `"rank"` or `"spread"`; empty
        if there are too few images to tell.
    """
    count, width = shape
    found: dict[str, str] = {}
    if count < FEWEST_IMAGES:
        return found
    if rank < LEAST_RANK:
        found["rank"] = (
            f"The features use {rank:.1f} of {width} dimensions "
            "(effective rank): all images look nearly alike to the encoder."
        )
    if spread < LEAST_SPREAD:
        found["spread"] = (
            "The features all point in the same direction (their spread is "
            f"{spread:.3f} of at most 1): the encoder has collapsed."
        )
    return found


def score_problems(scores: dict[str, dict[str, Any]]) -> list[str]:
    """Finds scores that are no better than those of random weights.

    Args:
        scores: dict from protocol to a dict, which may have `accuracy` and
            `untrained_accuracy`.

    Returns:
        A list of sentences.
    """
    found = []
    for protocol, score in scores.items():
        accuracy = score.get("accuracy", math.nan)
        floor = score.get("untrained_accuracy", math.nan)
        if accuracy <= floor:
            found.append(
                f"{protocol}: the accuracy, {accuracy:.1%}, isn't above that "
                f"of the same encoder with random weights, {floor:.1%}."
            )
    return found
