"""The linear probe: a linear classifier on frozen features."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerassl.evaluation.checks import check_features, check_widths
from kerassl.evaluation.few_labels import split_off
from kerassl.evaluation.labels import check_classes, encode_labels

# From strong to weak: each fit starts from the previous one.
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
# If no labels can be held out; otherwise the middle one of other penalties.
DEFAULT_PENALTY = 1e-1


def linear_probe(
    train_features: Any,
    train_labels: Any,
    test_features: Any,
    test_labels: Any,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> dict[str, Any]:
    """Fits logistic regression on frozen features and scores it.

    The features are standardized by the training features' mean and deviation.
    The objective, multinomial cross-entropy with an L2 penalty, is convex, and
    scikit-learn's L-BFGS finds its only minimum: there is no learning rate to
    tune, and the same features give the same score. The penalty that scores
    best on a fifth of the training labels is used to fit all of them. The test
    labels influence no choice.

    Args:
        train_features: float array `(N, D)`.
        train_labels: array `(N,)` or `(N, 1)`, of at least two classes: ints,
            bools, whole floats, strings or bytes. Labels are compared by
            value, whatever their dtype.
        test_features: float array `(M, D)`.
        test_labels: array `(M,)` or `(M, 1)`, likewise. Images of a class
            without training features count as errors.
        penalties: floats > 0 to choose from. The objective is the mean
            cross-entropy plus `penalty / 2` times the squared norm of the
            weights.
        seed: int, of the fifth.

    Returns:
        A dict: `accuracy` in [0, 1]; the chosen `penalty`; its
        `validation_accuracy`, or `None` if nothing was held out, since there
        is one penalty or every class has only one image; `train_size` and
        `test_size`.

    Raises:
        ValueError: if shapes or labels are invalid, features are not finite,
            there is only one class, or a penalty isn't positive.

    Example:
    ```python
    scores = kerassl.evaluation.linear_probe(
        model.embed(train_images), train_labels,
        model.embed(test_images), test_labels,
    )
    scores["accuracy"]
    ```

    Reference:
        - [Kornblith et al., 2019](https://arxiv.org/abs/1805.08974), with
          another grid of penalties
    """
    check_penalties(penalties)
    x, y = check_features("train", train_features, train_labels)
    x_test, y_test = check_features("test", test_features, test_labels)
    check_widths(x, x_test)
    classes, (y, y_test) = encode_labels(
        {"train_labels": y, "test_labels": y_test}
    )
    check_classes("A linear probe", classes, y)
    mean, scale = standardization(x)
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    parts = split_off(y, seed=seed) if len(penalties) > 1 else None
    chosen = sorted(penalties)[len(penalties) // 2]
    if DEFAULT_PENALTY in penalties:
        chosen = DEFAULT_PENALTY
    validation = None
    if parts is not None:
        fitted, held = parts
        # The strongest penalty wins a tie.
        validation, chosen = max(
            (
                (float(np.mean(model.predict(x[held]) == y[held])), penalty)
                for penalty, model in _fits(
                    x[fitted], y[fitted], sorted(penalties, reverse=True)
                )
            ),
            key=lambda pair: pair[0],
        )
    model = fit_logistic(x, y, chosen)
    return {
        "accuracy": float(np.mean(model.predict(x_test) == y_test)),
        "penalty": chosen,
        "validation_accuracy": validation,
        "train_size": len(x),
        "test_size": len(x_test),
    }


def standardization(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what standardizes features: `(x - mean) / scale`.

    Args:
        x: float array `(N, D)`.

    Returns:
        Two float64 arrays `(D,)`. The scale of a dead feature, which is the
        same in all rows, is infinite, since it must not be amplified to noise.
    """
    mean = x.mean(axis=0, dtype="float64")
    deviation = x.std(axis=0, dtype="float64")
    dead = deviation <= 1e-6 * np.abs(mean) + 1e-12
    return mean, np.where(dead, np.inf, deviation)


def check_penalties(penalties: Sequence[float]) -> None:
    """Checks that there are penalties, above 0.

    Raises:
        ValueError: if there are none, or one isn't.
    """
    if not len(penalties) or not all(p > 0 for p in penalties):
        raise ValueError(
            f"`penalties` must be above 0. Received: {tuple(penalties)}"
        )


def fit_logistic(x: np.ndarray, y: np.ndarray, penalty: float) -> Any:
    """Returns scikit-learn's logistic regression, fitted with one penalty."""
    ((_, model),) = _fits(x, y, [penalty])
    return model


def _fits(
    x: np.ndarray, y: np.ndarray, penalties: Sequence[float]
) -> Iterator[tuple[float, Any]]:
    """Yields each penalty and its model, each fit starting from the last."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=10_000, warm_start=True)
    for penalty in penalties:
        # scikit-learn weights the sum of the cross-entropy.
        model.set_params(C=1 / (penalty * len(x)))
        yield penalty, model.fit(x, y)
