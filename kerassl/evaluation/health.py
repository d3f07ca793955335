"""What is wrong with a run, in plain words."""

import math
from typing import Any

import numpy as np

from kerassl.evaluation.representation import effective_rank, feature_spread

# As near to a collapsed loss is as good as there: a share of it.
NEAR = 0.01
# Below these, features say next to nothing; untrained encoders have more.
LEAST_RANK, LEAST_SPREAD = 2.0, 0.05


def loss_problem(
    model: Any, loss: float, batch_size: int | None = None
) -> str | None:
    """Says if a loss is that of a model which tells no images apart.

    Args:
        model: `SelfSupervisedModel`.
        loss: float.
        batch_size: int; by default that of the model's last `fit`.

    Returns:
        A sentence; or `None` if nothing is wrong, or it can't be told.
    """
    anchor = model.collapsed_loss(batch_size or model.batch_size)
    if anchor is None or abs(loss - anchor) > NEAR * max(abs(anchor), 1.0):
        return None
    return (
        f"The loss of {type(model).__name__} is {loss:.4f}, and it is "
        f"{anchor:.4f} when all images look the same to the model: it has "
        "learned nothing yet, or it has collapsed."
    )


def feature_problems(features: np.ndarray) -> dict[str, str]:
    """Says what is wrong with features.

    Args:
        features: float array `(N, D)`, of some hundred images.

    Returns:
        A dict: `"rank"` or `"spread"` to a sentence, or nothing.
    """
    found = {}
    rank, spread = effective_rank(features), feature_spread(features)
    if rank < LEAST_RANK:
        found["rank"] = (
            f"The features use {rank:.1f} of {features.shape[1]} dimensions "
            "(effective rank): all images look nearly alike to the encoder."
        )
    if spread < LEAST_SPREAD:
        found["spread"] = (
            "The features all point the same way (their spread is "
            f"{spread:.3f}, and it is at most 1): the encoder has collapsed."
        )
    return found


def score_problems(scores: dict[str, dict[str, Any]]) -> list[str]:
    """Says which scores are no better than those of random weights.

    Args:
        scores: protocol to a dict, maybe with `accuracy` and
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
