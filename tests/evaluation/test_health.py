"""What is wrong with a run, in plain words."""

import math

import keras
import numpy as np
import pytest

from kerassl import evaluation
from kerassl.evaluation.health import (
    feature_problems,
    loss_problem,
    score_problems,
)
from tests.contracts.methods import COLLAPSED, METHODS, tiny_encoder


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_images_that_look_alike(method):
    model = METHODS[method](tiny_encoder())
    if method == "swav":  # It learns little while its prototypes are frozen.
        assert model.collapsed_loss(32) is None
        model.steps.assign(model.freeze_prototypes_steps)
    expected = COLLAPSED[method]
    assert model.collapsed_loss(32) == (
        expected if expected is None else pytest.approx(expected)
    )
    if expected is None:
        assert loss_problem(model, 0.1, 32) is None
        return
    assert f"it is {expected:.4f} when" in loss_problem(model, expected, 32)
    far = max(0.4, 0.02 * abs(expected))
    assert loss_problem(model, expected + far, 32) is None


@pytest.mark.parametrize(
    "method", ["simclr", "moco_v3", "barlow_twins", "vicreg", "simsiam", "byol"]
)
def test_it_is_the_objectives_own(method):
    """The objective of outputs that are the same for all images."""
    model = METHODS[method](tiny_encoder())
    outputs = {
        name: keras.ops.ones((32, 16))
        for kind in ("projection", "prediction", "target", "query", "key")
        for name in (f"{kind}_1", f"{kind}_2")
    }
    loss = float(model.objective(outputs)["loss"])
    assert loss == pytest.approx(model.collapsed_loss(32), rel=1e-3, abs=1e-5)


def test_the_batch_size_may_be_unknown():
    model = METHODS["simclr"](tiny_encoder())
    assert model.collapsed_loss(None) is None
    assert loss_problem(model, math.log(63)) is None
    model.compile("sgd")
    model.fit(np.zeros((32, 28, 28, 1), "uint8"), verbose=0)
    assert "collapsed" in loss_problem(model, math.log(63))
    assert loss_problem(model, math.nan) is None


def problems(features):
    return feature_problems(
        evaluation.effective_rank(features),
        evaluation.feature_spread(features),
        features.shape,
    )


def test_collapsed_features():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(100, 8))
    assert problems(good) == {}
    # One image, or two, have a low rank whatever the encoder.
    assert problems(good[:1]) == problems(good[:2]) == {}
    line = np.outer(rng.normal(size=100), np.ones(8))
    (words,) = problems(line).values()
    assert "use 1.0 of 8 dimensions" in words
    found = problems(np.ones((100, 8)) + 1e-3 * good)
    assert "effective rank" in found["rank"]
    assert "the same direction" in found["spread"]


def test_scores_that_are_no_better_than_random_weights():
    scores = {
        "knn": {"accuracy": 0.5, "untrained_accuracy": 0.5},
        "linear": {"accuracy": 0.6, "untrained_accuracy": 0.5},
        "finetune": {"accuracy": 0.6},
    }
    (line,) = score_problems(scores)
    assert line.startswith("knn: the accuracy, 50.0%, isn't above")
