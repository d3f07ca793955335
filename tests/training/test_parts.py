"""Momentum network, feature queue and gather, without a method."""

import math
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import ops

from kerassl.distributed import gather, on_one_device, processes
from kerassl.layers import (
    CosineMomentum,
    FeatureQueue,
    MomentumNetwork,
    Prototypes,
    update_together,
)
from tests.backends import count_kernels, count_waits, more


def small_network():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )


def arrays(layer):
    return [ops.convert_to_numpy(w) for w in layer.weights]


# === MomentumNetwork ===


def test_the_copy_starts_equal_and_is_apart():
    network = small_network()
    momentum = MomentumNetwork(network, 0.9)
    for a, b in zip(arrays(network), arrays(momentum)):
        np.testing.assert_array_equal(a, b)
    network.layers[0].kernel.assign(network.layers[0].kernel + 1)
    assert np.abs(arrays(network)[0] - arrays(momentum)[0]).min() > 0.5


def test_a_fresh_copy_starts_apart():
    network = small_network()
    momentum = MomentumNetwork(network, 0.9, copy_weights=False)
    assert np.abs(arrays(network)[0] - arrays(momentum)[0]).max() > 0.01


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0, CosineMomentum(0.9, 10)])
def test_update_moves_parameters_alone(momentum):
    network = small_network()
    target = MomentumNetwork(network, momentum, copy_weights=False)
    x = np.random.randn(16, 6).astype("float32") + 2
    network(x, training=True)
    before = arrays(target)
    target.update(network, step=5)
    m = momentum if isinstance(momentum, float) else 1 - 0.1 * 0.5
    parameters = {id(w) for w in network.trainable_weights}
    for weight, old, new in zip(network.weights, before, arrays(target)):
        source = ops.convert_to_numpy(weight)
        expected = m * old + (1 - m) * source
        if id(weight) not in parameters:
            expected = old
        np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-6)


def test_several_are_updated_together():
    pairs = []
    for _ in range(2):
        network = small_network()
        momentum = CosineMomentum(0.9, 10)
        alone, together = (MomentumNetwork(network, momentum) for _ in "ab")
        for weight in network.weights:
            weight.assign(ops.ones(weight.shape))
        alone.update(network, ops.convert_to_tensor(3))
        pairs.append((network, alone, together))
    step = ops.convert_to_tensor(3)
    moves = [(together, network) for network, _, together in pairs]
    if keras.backend.backend() == "torch":
        assert count_kernels(lambda: update_together(moves, step)) <= 10
        assert count_waits(lambda: update_together(moves, step)) == 0
        for _, alone, _ in pairs:
            alone.update(network, step)
    else:
        update_together(moves, step)
    for _, alone, together in pairs:
        for a, b in zip(arrays(alone), arrays(together)):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_it_has_statistics_of_its_own():
    target = MomentumNetwork(small_network(), 0.9)
    x = np.random.randn(64, 6).astype("float32") + 5
    before = arrays(target)
    target(x, training=False)
    np.testing.assert_array_equal(before[4], arrays(target)[4])
    target(x, training=True)
    moved = [np.abs(a - b).max() for a, b in zip(before, arrays(target))]
    assert sum(m > 0.001 for m in moved) == 2  # mean and variance


def test_nothing_unfreezes_it():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.online = small_network()
            self.target = MomentumNetwork(self.online, 0.9)

        def call(self, x, training=False):
            return self.online(x, training=training)

    model = Model()
    count = len(model.online.trainable_variables)
    model.trainable = False
    model.trainable = True
    assert len(model.trainable_variables) == count
    assert not model.target.trainable_variables
    assert len(model.target.non_trainable_variables) == 8
    # Its batch normalization still uses batch statistics.
    x = np.random.randn(64, 6).astype("float32") + 5
    before = arrays(model.target)
    model.target(x, training=True)
    assert any(
        np.abs(a - b).max() > 0.01 for a, b in zip(before, arrays(model.target))
    )


def test_no_gradient_reaches_it():
    network = small_network()
    target = MomentumNetwork(network, 0.9)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.network, self.target = network, target

        def call(self, x, training=False):
            online = self.network(x)
            return self.target(online[:, :1] * ops.ones((1, 6))) + 0 * online

    model = Model()
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    before = arrays(target) + arrays(network)
    x = np.random.randn(8, 6).astype("float32")
    model.fit(x, np.ones((8, 3), "float32"), verbose=0)
    parameters = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 15]
    after = arrays(target) + arrays(network)
    for i in parameters:
        np.testing.assert_array_equal(before[i], after[i])


def test_momentum_network_round_trip():
    target = MomentumNetwork(small_network(), CosineMomentum(0.9, 7))
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(target)
    )
    again.set_weights(target.get_weights())
    assert float(again.momentum(3)) == float(target.momentum(3))
    x = np.random.randn(4, 6).astype("float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(again(x)), ops.convert_to_numpy(target(x))
    )


def test_the_copy_of_a_compiled_network_is_not_compiled():
    network = small_network()
    # Keras can't find this loss by its name.
    network.compile("adam", loss=lambda y_true, y_pred: y_pred)
    outer = keras.Sequential([keras.Input((6,)), network])
    assert not MomentumNetwork(network).network.compiled
    assert not MomentumNetwork(outer).network.layers[0].compiled


def test_unbuilt_networks_are_refused():
    with pytest.raises(ValueError, match="no weights yet"):
        MomentumNetwork(keras.Sequential([keras.layers.Dense(3)]), 0.9)
    with pytest.raises(ValueError, match="momentum"):
        MomentumNetwork(small_network(), 1.5)


def test_cosine_momentum():
    momentum = CosineMomentum(0.96, 100)
    for step in (0, 10, 50, 99, 100, 150):
        done = min(step / 100, 1)
        expected = 1 - 0.04 * 0.5 * (1 + math.cos(math.pi * done))
        assert float(momentum(step)) == pytest.approx(expected, abs=1e-6)


# === FeatureQueue ===


def test_the_queue_is_first_in_first_out():
    queue = FeatureQueue(6, 2, seed=0)
    start = ops.convert_to_numpy(queue.features)
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1, rtol=1e-5)
    first = np.full((4, 2), 1.0, "float32")
    second = np.full((4, 2), 2.0, "float32")
    queue.enqueue(ops.convert_to_tensor(first))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(queue.features), np.concatenate([first, start[:2]])
    )
    queue.enqueue(ops.convert_to_tensor(second))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(queue.features),
        np.concatenate([second, first[:2]]),
    )


def test_the_queue_stays_float32_and_frozen():
    queue = FeatureQueue(6, 2, dtype="mixed_float16")
    queue.enqueue(ops.ones((2, 2), dtype="float16"))
    assert keras.backend.standardize_dtype(queue.features.dtype) == "float32"
    assert not queue.trainable_variables and len(queue.weights) == 1
    again = FeatureQueue.from_config(queue.get_config())
    assert (again.size, again.dim) == (6, 2)


@pytest.mark.parametrize(
    "shape, message",
    [((7, 2), "6 features, and can't take a batch of 7"), ((2, 3), "width 2")],
)
def test_the_queue_refuses_what_does_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        FeatureQueue(6, 2).enqueue(ops.ones(shape))


def test_the_queue_can_start_with_zeros():
    queue = FeatureQueue(6, 2, start="zeros")
    np.testing.assert_array_equal(ops.convert_to_numpy(queue.features), 0)
    for count in (2, 4, 6):
        queue.enqueue(ops.ones((2, 2)))
        features = ops.convert_to_numpy(queue.features)
        np.testing.assert_array_equal(features[:count], 1)
        np.testing.assert_array_equal(features[count:], 0)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(queue)
    )
    assert again.get_config() == queue.get_config()
    assert again.start == "zeros"
    np.testing.assert_array_equal(ops.convert_to_numpy(again.features), 0)
    with pytest.raises(ValueError, match="start.*ones"):
        FeatureQueue(6, 2, start="ones")


def test_a_snapshot_stays_as_it_was():
    queue = FeatureQueue(6, 2, seed=0)
    start = ops.convert_to_numpy(queue.features).copy()
    snapshot = queue.snapshot()
    queue.enqueue(ops.ones((4, 2)))
    np.testing.assert_array_equal(ops.convert_to_numpy(snapshot), start)
    later = queue.snapshot()
    np.testing.assert_array_equal(ops.convert_to_numpy(later)[:4], 1)
    assert keras.backend.standardize_dtype(later.dtype) == "float32"


def test_a_snapshot_is_good_for_a_step_that_enqueues():
    """The loss compares with the queue before this batch."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2, use_bias=False)
            self.dense.build((None, 2))
            self.queue = FeatureQueue(6, 2, start="zeros")

        def call(self, x, training=False):
            y = self.dense(x)
            snapshot = self.queue.snapshot()
            self.queue.enqueue(y)
            return ops.matmul(y, ops.transpose(snapshot))

        def compute_loss(
            self, x=None, y=None, y_pred=None, sample_weight=None, training=True
        ):
            return ops.sum(y_pred)

    model = Model()
    model.compile(keras.optimizers.SGD(0.25))
    x = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")
    kernel = ops.convert_to_numpy(model.dense.kernel).astype(float)
    queue = np.zeros((6, 2))
    for _ in range(3):
        y = x @ kernel
        # The sum over all pairs of dot products; the queue is a constant.
        kernel = kernel - 0.25 * np.outer(x.sum(0), queue.sum(0))
        queue = np.concatenate([y, queue])[:6]
        model.train_on_batch(x)
        np.testing.assert_allclose(
            ops.convert_to_numpy(model.dense.kernel), kernel, rtol=1e-4
        )
        np.testing.assert_allclose(
            ops.convert_to_numpy(model.queue.features), queue, rtol=1e-4
        )


# === on_one_device ===


def test_what_a_process_draws_alone_leaves_no_trace(monkeypatch):
    """Otherwise a process that draws pictures would seed other weights."""
    monkeypatch.setattr(processes, "process", lambda: (0, 2))

    def drawn_next():
        return [*arrays(small_network()), keras.random.normal((2,))]

    keras.utils.set_random_seed(1)
    expected = drawn_next()
    keras.utils.set_random_seed(1)
    on_one_device(
        lambda: (small_network(), FeatureQueue(8, 4), Prototypes(3).build((2,)))
    )
    for ours, theirs in zip(drawn_next(), expected, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs)
        )


# === gather ===


def test_gather_is_the_identity_on_one_device():
    x = ops.ones((3, 2))
    assert gather(x) is x


TORCH = textwrap.dedent(
    """
    import sys, torch, torch.distributed as dist
    rank = int(sys.argv[1])
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2],
                            rank=rank, world_size=2)
    from kerassl.distributed import gather
    x = torch.full((2, 3), float(rank + 1), requires_grad=True)
    everything = gather(x)
    assert everything.shape == (4, 3), everything.shape
    assert everything[:, 0].tolist() == [1.0, 1.0, 2.0, 2.0]
    weights = torch.arange(4.0)[:, None]
    (everything * weights).sum().backward()
    # The losses of both processes depend on each row.
    expected = 2 * weights[2 * rank : 2 * rank + 2].expand(2, 3)
    assert torch.equal(x.grad, expected), x.grad
    """
)

TENSORFLOW = textwrap.dedent(
    """
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from kerassl.distributed import gather
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    def step():
        rank = tf.distribute.get_replica_context().replica_id_in_sync_group
        return gather(tf.fill((2, 3), tf.cast(rank + 1, "float32")))
    results = strategy.experimental_local_results(
        strategy.run(tf.function(step)))
    for result in results:
        assert result[:, 0].numpy().tolist() == [1.0, 1.0, 2.0, 2.0], result
    """
)


def run_script(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"KERAS_BACKEND": keras.backend.backend()},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="JAX's jitted step sees the global batch",
)
@more("test_devices_equal_one")
def test_gather_on_two_devices(tmp_path):
    if keras.backend.backend() == "torch":
        running = [
            run_script(TORCH, str(rank), str(tmp_path / "store"))
            for rank in range(2)
        ]
    else:
        running = [run_script(TENSORFLOW)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
