"""`after_update` runs after optimizer steps, and only then, on all backends."""

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.augmentation import View, ViewAugmenter
from kerassl.layers import FeatureQueue, MomentumNetwork
from kerassl.methods import SelfSupervisedModel
from kerassl.training.step import not_finite
from tests.contracts.methods import tiny_encoder

MOMENTUM = 0.75


@keras.saving.register_keras_serializable(package="tests")
class Follower(SelfSupervisedModel):
    """The smallest method with a momentum network, a queue and a counter."""

    metric_names = ("half",)

    def __init__(self, encoder, augmenter, **kwargs):
        super().__init__(encoder, augmenter, **kwargs)
        self.momentum_encoder = MomentumNetwork(self.encoder, MOMENTUM)
        self.queue = FeatureQueue(24, self.encoder.output_shape[-1], seed=1)
        self.updates = self.add_weight(
            name="updates", dtype="int32", initializer="zeros", trainable=False
        )

    def forward_views(self, views, training=False):
        keys = self.momentum_encoder(views["view_2"], training=training)
        outputs = {
            "query": self.encoder(views["view_1"], training=training),
            "key": keys,
        }
        if training:
            self.queue.enqueue(keys)
        return outputs

    def objective(self, outputs):
        query = ops.cast(outputs["query"], "float32")
        key = ops.cast(outputs["key"], "float32")
        loss = ops.mean(ops.square(query - key - 0.5))
        return {"loss": loss, "half": loss / 2}

    def after_update(self):
        self.momentum_encoder.update(self.encoder, self.optimizer.iterations)
        self.updates.assign_add(1)


def follower(optimizer=None, **kwargs):
    view = View(28, blur=0.0)
    model = Follower(tiny_encoder(), ViewAugmenter([view, view]))
    model.compile(optimizer or keras.optimizers.SGD(0.05), **kwargs)
    return model


def numpy(variables):
    return [ops.convert_to_numpy(v) for v in variables]


def parameters(model):
    indices = model.momentum_encoder.parameters_at
    online = model.encoder.weights
    target = model.momentum_encoder.network.weights
    return [online[i] for i in indices], [target[i] for i in indices]


def step(model, images):
    views = model.make_views(images)
    views = {k: ops.convert_to_numpy(v) for k, v in views.items()}
    return model.train_on_batch(views, return_dict=True)


def test_the_target_follows_the_new_weights(images):
    model = follower()
    assert model.trainable_variables == model.encoder.trainable_variables
    for _ in range(3):
        _, target = map(numpy, parameters(model))
        step(model, images[:16])
        online, after = map(numpy, parameters(model))
        for old, source, new in zip(target, online, after):
            expected = MOMENTUM * old + (1 - MOMENTUM) * source
            np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-7)
            assert np.abs(new - old).max() > 0
    assert int(model.updates) == 3


def test_the_target_keeps_statistics_of_its_own(images):
    model = follower()
    moving = [
        v for v in model.momentum_encoder.network.weights if "moving" in v.path
    ]
    before = numpy(moving)
    step(model, images[:16])
    for old, new, online in zip(
        before,
        numpy(moving),
        numpy(v for v in model.encoder.weights if "moving" in v.path),
    ):
        assert np.abs(old - new).max() > 0
        assert np.abs(online - new).max() > 0


def test_the_queue_takes_the_keys(images):
    model = follower()
    start = ops.convert_to_numpy(model.queue.features)
    step(model, images[:16])
    queue = ops.convert_to_numpy(model.queue.features)
    np.testing.assert_array_equal(queue[16:], start[:8])
    assert np.abs(queue[:16] - start[:16]).max() > 0


def test_fit_runs_it_each_step(images):
    model = follower()
    model.fit(images, batch_size=16, epochs=2, verbose=0)
    assert int(model.updates) == 8


def test_accumulation_updates_once_in_k_steps(images):
    model = follower(keras.optimizers.SGD(0.05, gradient_accumulation_steps=2))
    _, target = map(numpy, parameters(model))
    step(model, images[:16])
    _, after = map(numpy, parameters(model))
    for old, new in zip(target, after):
        np.testing.assert_array_equal(old, new)
    assert int(model.updates) == 0
    step(model, images[16:32])
    online, after = map(numpy, parameters(model))
    for old, source, new in zip(target, online, after):
        expected = MOMENTUM * old + (1 - MOMENTUM) * source
        np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-7)
    model.fit(images, batch_size=16, verbose=0)
    assert int(model.updates) == 3


def test_an_overflow_updates_nothing(images):
    inner = keras.optimizers.SGD(0.05)
    model = follower(
        keras.optimizers.LossScaleOptimizer(inner, initial_scale=float("inf"))
    )
    _, target = map(numpy, parameters(model))
    step(model, images[:16])
    _, after = map(numpy, parameters(model))
    assert int(inner.iterations) == 0 and int(model.updates) == 0
    for old, new in zip(target, after):
        np.testing.assert_array_equal(old, new)


def test_metrics_are_epoch_means(images):
    model = follower(keras.optimizers.SGD(0.0))
    losses = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(logs["loss"]))

    history = model.fit(
        images, batch_size=16, verbose=0, callbacks=[Watch()]
    ).history
    # Keras logs running means; the last one is that of the epoch.
    assert history["loss"][0] == pytest.approx(losses[-1], rel=1e-5)
    assert history["half"][0] == pytest.approx(losses[-1] / 2, rel=1e-5)


def test_momentum_and_queue_are_saved(images, tmp_path):
    model = follower()
    model.fit(images, batch_size=16, verbose=0)
    model.save(tmp_path / "run.keras")
    again = keras.saving.load_model(tmp_path / "run.keras")
    for a, b in zip(numpy(model.variables), numpy(again.variables)):
        np.testing.assert_array_equal(a, b)
    a = model.fit(images, batch_size=16, verbose=0, shuffle=False).history
    b = again.fit(images, batch_size=16, verbose=0, shuffle=False).history
    assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
    for x, y in zip(numpy(model.variables), numpy(again.variables)):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", ["auto", True, False])
def test_compile_arguments_are_saved_as_given(given, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = follower(jit_compile=given, auto_scale_loss=False)
    model.save(tmp_path / "run.keras")
    again = keras.saving.load_model(tmp_path / "run.keras")
    for one in (model, again):
        assert one.get_compile_config()["jit_compile"] == given
        assert isinstance(one.optimizer, keras.optimizers.SGD)


def test_training_goes_on_from_averaged_weights(images):
    model = follower(keras.optimizers.SGD(0.05, use_ema=True))
    for _ in range(2):
        model.fit(images[:32], batch_size=16, verbose=0)
        # On JAX, this uses up what the weights share with the averages.
        model.evaluate(images[:16], verbose=0)
    assert int(model.updates) == 4


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="It runs each step as it comes"
)
def test_the_step_is_traced_once(images, monkeypatch):
    """On TensorFlow, a step that makes variables is traced twice."""
    traced = []
    forward = Follower.forward_views

    def forward_views(self, *args, **kwargs):
        traced.append(self)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Follower, "forward_views", forward_views)
    follower(keras.optimizers.Adam()).fit(images, batch_size=16, verbose=0)
    assert len(traced) == 1
    step(follower(keras.optimizers.Adam()), images[:16])
    assert len(traced) == 2


def test_weights_are_checked_with_one_read(monkeypatch):
    weights = [
        keras.Variable(np.array(values, dtype), dtype=dtype, trainable=False)
        for values, dtype in (
            ([0.0, 1e30], "float32"),
            ([0.0, np.nan], "float32"),
            ([2**31 - 1], "int32"),
            ([[np.inf]], "float32"),
        )
    ]
    reads = []
    convert = ops.convert_to_numpy
    monkeypatch.setattr(
        ops, "convert_to_numpy", lambda x: reads.append(x) or convert(x)
    )
    assert not_finite(weights) == [weights[1], weights[3]]
    assert len(reads) == 1 and tuple(reads[0].shape) == (3,)
