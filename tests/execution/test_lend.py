"""Lent layers compute what Keras's do, and leave no trace."""

import copy
import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerassl.execution import batch_norm, lent
from kerassl.networks import all_layers
from tests.backends import more
from tests.contracts.methods import METHODS, labels_for, tiny_encoder

BACKEND = keras.backend.backend()
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's kernels")
LENT = (layers.BatchNormalization, layers.Conv2D)


def network(frozen=True):
    """Convolutions and normalizations of all kinds, one of them frozen."""
    inputs = keras.Input((13, 12, 3))
    x = layers.Conv2D(8, 5, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization(momentum=0.9, scale=False)(x)
    x = layers.Conv2D(
        8, 4, padding="same", dilation_rate=2, groups=2, activation="gelu"
    )(x)
    x = layers.BatchNormalization(momentum=0.9, center=False)(x)
    x = layers.Conv2D(8, 3, use_bias=False, activation="gelu")(x)
    x = layers.BatchNormalization(name="frozen")(x)
    x = layers.Reshape((-1, 4))(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.ReLU()(layers.BatchNormalization(axis=1)(x))
    x = layers.Dense(6, use_bias=False)(layers.Flatten()(x))
    model = keras.Model(inputs, layers.BatchNormalization(epsilon=1e-5)(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.2, 0.6, weight.shape))
    model.get_layer("frozen").trainable = not frozen
    return model


def pass_of(model, x, training=True):
    """Returns outputs, gradients of input and weights, moving statistics."""
    import torch

    x = torch.tensor(x, requires_grad=True)
    model.zero_grad()
    outputs = model(x, training=training).float()
    (outputs**3 * torch.arange(1, 7)).sum().backward()
    gradients = [weight.value.grad for weight in model.trainable_weights]
    moving = [weight.value for weight in model.non_trainable_weights]
    found = [outputs, x.grad, *gradients, *moving]
    return [ops.convert_to_numpy(one).astype("float64") for one in found]


def distances(found, expected):
    return [
        np.linalg.norm(one - other) / np.linalg.norm(other)
        for one, other in zip(found, expected, strict=True)
    ]


@pytest.fixture(params=["graph", "layers"])
def way(request, monkeypatch):
    """Lends whole graphs, or layers only."""
    if request.param == "layers":
        from kerassl.execution.graph import Graph

        monkeypatch.setattr(Graph, "takes", lambda graph, inputs: False)


@on_torch
@pytest.mark.parametrize("training", [True, False])
def test_it_computes_what_keras_does(way, training):
    x = np.random.default_rng(1).normal(size=(6, 13, 12, 3)).astype("float32")
    model = network()
    weights = model.get_weights()
    expected = pass_of(model, x, training)
    model.set_weights(weights)
    with lent(model):
        found = pass_of(model, x, training)
    assert max(distances(found, expected)) < 1e-5
    # One value a channel: all equal the offset.
    dense = keras.Sequential([keras.Input((3,)), layers.BatchNormalization()])
    with lent(dense):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(dense(np.ones((1, 3)), training=True)), 0.0
        )


@on_torch
@pytest.mark.parametrize(
    "policy, error",
    [
        ("mixed_float16", 2e-3),
        ("mixed_bfloat16", 2e-2),
        ("float16", 2e-3),
        ("bfloat16", 5e-2),
    ],
)
def test_half_precision_is_as_near_as_kerass(way, policy, error):
    x = np.random.default_rng(1).normal(size=(6, 13, 12, 3)).astype("float32")
    model = network()
    truth = pass_of(model, x)
    weights = network().get_weights()
    keras.config.set_dtype_policy(policy)
    half = network()
    assert half.output.dtype == policy.removeprefix("mixed_")
    half.set_weights(weights)
    plain = distances(pass_of(half, x), truth)
    half.set_weights(weights)
    with lent(half):
        found = distances(pass_of(half, x), truth)
    for one, other in zip(found, plain):
        assert one < max(1.5 * other, error)


@on_torch
def test_moving_statistics_honor_a_stateless_scope(way):
    model = network()
    before = model.get_weights()
    with lent(model), keras.StatelessScope() as scope:
        model(np.ones((4, 13, 12, 3), "float32"), training=True)
    moving = model.layers[2].moving_mean
    assert np.abs(scope.get_current_value(moving) - moving.value).max() > 0
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


@on_torch
def test_evaluation_may_precede_training_in_a_graph():
    norm = layers.BatchNormalization()
    norm.build((None, 3))
    with lent(norm):
        x = ops.convert_to_tensor(np.eye(3, dtype="float32"))
        outputs = norm(x, training=False) + norm(x, training=True)
        outputs.square().sum().backward()
    assert norm.gamma.value.grad.abs().min() > 0


def test_inputs_that_hardly_vary_give_no_nan():
    x = 10 + 1e-3 * np.random.default_rng(0).normal(size=(256, 64))
    model = keras.Sequential(
        [keras.Input((64,)), layers.BatchNormalization(epsilon=1e-5)]
    )
    with lent(model):
        y = ops.convert_to_numpy(model(x.astype("float32"), training=True))
    assert 0.29 < y.std() < 0.31


def kinds(model):
    return {type(x) for x in all_layers(model) if isinstance(x, LENT)}


@pytest.mark.skipif(BACKEND == "jax", reason="nothing is lent")
@pytest.mark.parametrize("over_devices", [True, False])
def test_classes_are_lent_to_all_layers_and_given_back(over_devices):
    model = METHODS["byol"](tiny_encoder())

    before = kinds(model)
    with lent(model, over_devices):
        within = kinds(model)
    assert before == kinds(model) == set(LENT)
    norm = batch_norm.GlobalBatchNormalization
    assert (norm in within) == over_devices
    assert within.isdisjoint(LENT) == (BACKEND == "torch")

    class Own(layers.BatchNormalization):
        pass

    with lent(own := Own(), over_devices):
        assert type(own) is Own


@on_torch
def test_a_step_lends_and_restores_after_an_error(tmp_path, monkeypatch):
    model = METHODS["simclr"](tiny_encoder())
    model.compile(keras.optimizers.SGD(0.1))
    seen = []

    def call(graph, inputs, training):
        seen.append((graph.network.name, training))
        if len(seen) > 8:
            raise RuntimeError("stopped")
        return original(graph, inputs, training)

    from kerassl.execution.graph import Graph

    original = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", call)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), "uint8")
    model.train_on_batch(images)
    encoder = model.encoder.name
    assert seen == [(encoder, True), ("projector", True)]
    model.projector = model.head("projector", 24, (8,), output_bias=True)
    model.test_on_batch(images)
    assert seen[2:] == [(encoder, False), ("projector", False)]
    model.embed(images)
    assert seen[4:] == [(encoder, False)]
    model.encoder.save(tmp_path / "encoder.keras")
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(RuntimeError, match="stopped"):
        model.fit(images, batch_size=4, epochs=99, verbose=0)
    assert kinds(model) == set(LENT)
    assert not hasattr(type(model.encoder), "graph")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    modules = {type(layer).__module__ for layer in loaded.layers}
    assert {name.split(".")[0] for name in modules} == {"keras"}


@on_torch
def test_what_was_recorded_is_kept_while_the_model_is_the_same(monkeypatch):
    from kerassl.execution.graph import Graph

    model, recorded = network(), []
    record = Graph._record
    monkeypatch.setattr(
        Graph, "_record", lambda graph: recorded.append(record(graph))
    )
    x = np.random.default_rng(1).normal(size=(3, 13, 12, 3)).astype("float32")

    def outputs():
        with lent(model):
            return ops.convert_to_numpy(model(x, training=False))

    model(x)  # Keras notes that it was called.
    expected = outputs()
    np.testing.assert_array_equal(outputs(), expected)
    assert len(recorded) == 1
    # Weights may change; it is their layers that count.
    model.layers[-1].beta.assign(model.layers[-1].beta + 1.0)
    np.testing.assert_allclose(outputs(), expected + 1.0, rtol=1e-5)
    assert len(recorded) == 1
    model.get_layer("frozen").trainable = True
    outputs()
    assert len(recorded) == 2
    # Neither a copy nor a file has what was recorded.
    assert "_lent" in vars(model) and "_lent" not in vars(copy.deepcopy(model))


@on_torch
@pytest.mark.parametrize("name", ["dinov2", "ibot", "ijepa"])
def test_a_teachers_parts_run_as_graphs(name):
    model = METHODS[name](tiny_encoder())
    teacher = model.teacher_parts()
    parts = [teacher.rest] if name == "ijepa" else [teacher.rest, model.rest]
    with lent(model):
        graphs = [part.graph for part in parts]
        assert all(graph.steps and not graph.called for graph in graphs)
    assert not hasattr(teacher.rest, "graph")


@on_torch
def test_a_step_collects_nothing_from_all_layers(monkeypatch):
    """Keras would walk all layers for weights and metrics, some eight times."""
    model = METHODS["simclr"](tiny_encoder())
    model.compile(keras.optimizers.SGD(0.1))
    x = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), "uint8")
    model.fit(x, verbose=0)
    asked = []
    for name in ("weights", "variables", "metrics"):
        mine = getattr(layers.Layer, name)

        def counted(layer, name=name, mine=mine):
            asked.append(name)
            return mine.fget(layer)

        monkeypatch.setattr(layers.Layer, name, property(counted))
    given = ops.convert_to_tensor(x)
    logs = model.train_function([(given,)])
    assert not asked
    assert set(logs) == {"loss", *model.metric_names}
    gradients = [v.value.grad for v in model.trainable_weights]
    assert len(gradients) > 9 and all(g is not None for g in gradients)
    # What is frozen later isn't trained, and keeps no gradient.
    frozen = model.encoder.trainable_weights
    model.encoder.trainable = False
    model.compile(keras.optimizers.SGD(0.1))
    before = [ops.convert_to_numpy(weight).copy() for weight in frozen]
    model.train_on_batch(x)
    for weight, old in zip(frozen, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), old)
        assert weight.value.grad is None


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that PyTorch's compiler traces."""
    import torch

    found = []

    def trace(graph, inputs):
        found.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend=trace)
    )
    return found


def losses_of_a_fit(name, **compile_arguments):
    """Returns the losses of two epochs, each with a smaller last batch."""
    x = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), "uint8")
    keras.utils.set_random_seed(0)
    model = METHODS[name](tiny_encoder())
    model.compile(keras.optimizers.SGD(0.1), **compile_arguments)
    labels = labels_for(model, len(x))
    history = model.fit(x, labels, batch_size=8, epochs=2, verbose=0).history
    assert model.jit_compile == compile_arguments["jit_compile"]
    return history["loss"]


# Once for full batches, and once for a last batch of another size.
TRACED_TWICE = 2 * 2


@on_torch
def test_a_compiled_fit_traces_a_pass_and_a_loss_twice(graphs):
    expected = losses_of_a_fit("simclr", jit_compile=False)
    found = losses_of_a_fit("simclr", jit_compile=True)
    assert found == pytest.approx(expected, rel=1e-4)
    assert len(graphs) == TRACED_TWICE


@on_torch
@more("test_a_compiled_fit_traces_a_pass_and_a_loss_twice")
@pytest.mark.parametrize("name", [name for name in METHODS if name != "simclr"])
def test_so_does_that_of_any_method(name, graphs):
    losses_of_a_fit(name, jit_compile=True)
    assert len(graphs) == TRACED_TWICE


@on_torch
def test_a_normalization_moves_few_bytes():
    """In bfloat16 PyTorch's own moves 10 for each element, and Keras's 172."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    moved = []

    class Bytes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            infos = [r.alias_info for r in function._schema.returns]
            if not any(info and not info.is_write for info in infos):
                flat = keras.tree.flatten((args, found))
                tensors = [x for x in flat if isinstance(x, torch.Tensor)]
                moved.extend(x.numel() * x.element_size() for x in tensors)
            return found

    inputs = keras.Input((8, 8, 64), dtype="bfloat16")
    norm = layers.BatchNormalization(dtype="mixed_bfloat16")
    model = keras.Model(inputs, norm(inputs))
    x = torch.ones((16, 8, 8, 64), dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.ones_like(x)
    with lent(model):
        model(x, training=True).backward(gradient)
        with Bytes():
            model(x, training=True).backward(gradient)
    assert 10 <= sum(moved) / x.numel() <= 20
