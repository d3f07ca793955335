"""SwAV's prototypes."""

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.layers import Prototypes


def built(count=5, dim=4, **kwargs):
    layer = Prototypes(count, **kwargs)
    layer.build((None, dim))
    return layer


def lengths(layer):
    return np.linalg.norm(ops.convert_to_numpy(layer.vectors), axis=0)


def unit_rows(count=6, dim=4):
    x = np.random.default_rng(0).normal(size=(count, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("float32")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_the_columns_have_norm_1(policy):
    layer = built(dtype=policy)
    assert tuple(layer.vectors.shape) == (4, 5)
    np.testing.assert_allclose(lengths(layer), 1, rtol=1e-5)
    before = ops.convert_to_numpy(layer.vectors)
    # All start apart.
    similarity = before.T @ before - np.eye(5)
    assert np.abs(similarity).max() < 0.9999
    scales = np.array([0.1, 1, 2, 30, 1e3], "float32")
    layer.vectors.assign(before * scales)
    layer.normalize()
    after = ops.convert_to_numpy(layer.vectors)
    np.testing.assert_allclose(lengths(layer), 1, rtol=1e-5)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


def test_scores_are_cosines():
    layer, x = built(), unit_rows()
    scores = ops.convert_to_numpy(layer(x))
    assert scores.shape == (6, 5)
    assert layer.compute_output_shape((None, 4)) == (None, 5)
    vectors = ops.convert_to_numpy(layer.vectors)
    for i in range(6):
        for k in range(5):
            a, b = x[i].astype(float), vectors[:, k].astype(float)
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert scores[i, k] == pytest.approx(cosine, abs=1e-5)
    frozen = layer(x, frozen=ops.convert_to_tensor(True))
    np.testing.assert_allclose(ops.convert_to_numpy(frozen), scores, atol=1e-6)


def test_half_precision():
    layer = built(dtype="mixed_float16")
    assert keras.backend.standardize_dtype(layer.vectors.dtype) == "float32"
    scores = layer(unit_rows(), frozen=ops.convert_to_tensor(True))
    assert keras.backend.standardize_dtype(scores.dtype) == "float16"
    np.testing.assert_allclose(
        ops.convert_to_numpy(scores),
        unit_rows() @ ops.convert_to_numpy(layer.vectors),
        atol=2e-3,
    )


class Compares(keras.Model):
    """As SwAV: frozen for the first steps, counted by a variable."""

    def __init__(self, frozen_steps):
        super().__init__()
        self.project = keras.layers.Dense(4)
        self.project.build((None, 4))
        self.prototypes = built()
        self.frozen_steps = frozen_steps
        self.steps = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, x):
        z = ops.normalize(self.project(x), axis=-1)
        return self.prototypes(z, frozen=self.steps < self.frozen_steps)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        return ops.mean(ops.square(y_pred - 0.5))


def test_frozen_stops_the_gradient_to_the_vectors_alone():
    model = Compares(frozen_steps=2)
    model.compile(keras.optimizers.SGD(1.0))
    vectors, kernel = model.prototypes.vectors, model.project.kernel
    for step in range(4):
        model.steps.assign(step)
        before = [ops.convert_to_numpy(v) for v in (vectors, kernel)]
        model.train_on_batch(unit_rows())
        moved = [
            np.abs(ops.convert_to_numpy(v) - old).max() > 1e-4
            for v, old in zip((vectors, kernel), before)
        ]
        assert moved == [step >= 2, True]
    assert np.abs(lengths(model.prototypes) - 1).max() > 1e-4
    model.prototypes.normalize()
    np.testing.assert_allclose(lengths(model.prototypes), 1, rtol=1e-5)


def test_config_round_trip():
    layer = built(7, dtype="mixed_bfloat16", name="mine")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()
    assert again.count == 7 and again.name == "mine"
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(
        ops.convert_to_numpy(again(unit_rows())),
        ops.convert_to_numpy(layer(unit_rows())),
    )


@pytest.mark.parametrize("count", [0, -3])
def test_bad_counts_are_refused(count):
    with pytest.raises(ValueError, match=f"`count`.*{count}"):
        Prototypes(count)
