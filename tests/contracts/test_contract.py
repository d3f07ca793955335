"""What every method must do, on real small images, on each backend."""

import functools
import inspect
import json
import math
from collections import defaultdict
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import backend, ops

import kerassl
from kerassl import data
from kerassl.environment import environment
from kerassl.networks import owners
from tests.backends import count_waits, more, once, unordered
from tests.contracts.methods import (
    EPOCHS,
    METHODS,
    ON_VITS,
    STATISTICS,
    labels_for,
    tiny_encoder,
)

BATCH = 32
# Of one size: JAX compiles each operation for each.
VIEWS = 256
BACKEND = keras.backend.backend()
# One method of each kind: plain, with a queue, with a momentum schedule, with a
# discriminator.
OF_EACH_KIND = ("simclr", "moco_v2", "byol", "context_encoder")
# The base class's own features are tested on these. Each of these tests
# compiles a step.
A_FEW = pytest.mark.parametrize("make", OF_EACH_KIND, indirect=True)
# TensorFlow and JAX take seconds to compile a step. By default they run these
# methods: also with small crops, a teacher, a ViT and tiles. Parity covers all.
EVERYWHERE = (*OF_EACH_KIND, "swav", "dino", "mae", "jigsaw")
ON_PYTORCH = more(
    "the same on PyTorch, and on three kinds of methods",
    always_on="torch",
    always=OF_EACH_KIND[:3],
)


@pytest.fixture(scope="module")
def images():
    # The last batch is a partial one.
    return data.load("fashion_mnist_small", "train", limit=500).images


@pytest.fixture(
    scope="module",
    params=[
        method
        if method in EVERYWHERE
        else pytest.param(
            method,
            marks=more("PyTorch's run and parity", always_on="torch"),
        )
        for method in METHODS
    ],
)
def make(request):
    """A function that makes a compiled model of the method."""

    def build(optimizer=None, frozen=False, **compile_arguments):
        encoder = tiny_encoder()
        encoder.trainable = not frozen
        model = METHODS[request.param](encoder)
        model.compile(
            optimizer or keras.optimizers.Adam(0.01),
            **compile_arguments,
        )
        return model

    build.epochs = EPOCHS.get(request.param, 2)
    build.is_vit = request.param in ON_VITS
    build.statistics = STATISTICS.get(request.param, 4)
    return build


def values(variables):
    return [ops.convert_to_numpy(v) for v in variables]


def moved(before, variables):
    return [
        np.abs(a.astype("float64") - b).max() > 0
        for a, b in zip(before, values(variables))
    ]


def fit(model, images, epochs=2, **kwargs):
    count = len(next(iter(images.values())) if type(images) is dict else images)
    settings = dict(y=labels_for(model, count), epochs=epochs, verbose=0)
    history = model.fit(images, batch_size=BATCH, **(settings | kwargs)).history
    for name, scalars in history.items():
        assert np.isfinite(scalars).all(), (name, scalars)
    return history


@pytest.fixture(scope="module")
def trained(make, images):
    """A trained model, and what its epochs did. Tests may train it further."""
    keras.utils.set_random_seed(3)
    model = make()
    trainable = values(model.trainable_variables)
    moving = values(statistics(model))
    history = {}

    def train():
        history.update(fit(model, images, make.epochs))

    # Tracing once more takes seconds.
    order = unordered(train) if BACKEND == "tensorflow" else train()
    return SimpleNamespace(
        model=model,
        history=history,
        order=order,
        trainable_moved=moved(trainable, model.trainable_variables),
        statistics_moved=moved(moving, statistics(model)),
        views=ready_made_views(model, images[:VIEWS]),
    )


def ready_made_views(model, images):
    """Returns views that the model made of images, as NumPy arrays."""
    made = model.make_views(images)
    return {
        name: ops.convert_to_numpy(made[name])
        for name in (*model.augmenter.view_names, *model.drawn_names)
    }


def momentum_copies(model):
    """Returns pairs of a network and its momentum copy."""
    kind = kerassl.layers.MomentumNetwork
    return [
        (getattr(model, layer_name.removeprefix("momentum_")), layer.network)
        for layer_name, layer in vars(model).items()
        if isinstance(layer, kind)
    ]


def seeds_of_views(model):
    """The seeds of what ready-made views have; a loss may draw as well."""
    seeds = [v for v in model.variables if "seed" in v.name]
    if hasattr(model, "draw_directions"):
        return [v for v in seeds if v is not model.seed_generator.state]
    return seeds


def as_json(config):
    # A tuple in a config is loaded as a list.
    return json.dumps(config, sort_keys=True)


def statistics(model):
    """The moving means and variances of batch normalization."""
    return [v for v in model.non_trainable_variables if "moving" in v.path]


def test_it_learns_and_moves_what_it_should(make, trained):
    history = trained.history
    assert history["loss"][-1] < history["loss"][0]
    assert set(trained.model.metric_names) < set(history)
    # Keras's default on JAX, so other tests need not ask for it there.
    assert trained.model.jit_compile or BACKEND != "jax"
    assert all(trained.trainable_moved)
    assert len(trained.statistics_moved) >= make.statistics
    assert all(trained.statistics_moved)


def test_accumulated_steps_on_ready_made_views_with_frozen_weights(
    make, trained
):
    # Frozen when the model is made, and partly thawed later.
    model = make(
        keras.optimizers.Adam(0.01, gradient_accumulation_steps=2), frozen=True
    )
    model.encoder.trainable = True
    layers = [x for x in model.encoder.layers if x.trainable_weights]
    first, *others = layers[: 1 if make.is_vit else 2]
    for layer in (first, *others):
        layer.trainable = False
    views = {name: view[:BATCH] for name, view in trained.views.items()}
    frozen = first.weights + [w for layer in others for w in layer.weights]
    before = values(frozen), values(model.trainable_variables)
    seeds = values(seeds_of_views(model))
    copies = momentum_copies(model)
    copied = [values(copy.weights) for _, copy in copies]
    fit(model, views, epochs=1)
    assert not any(moved(before[1], model.trainable_variables))
    # SwAV's prototypes rest in the first two steps.
    fit(model, views, epochs=5)
    assert int(model.optimizer.iterations) == 3
    assert not any(moved(before[0], frozen))
    assert all(moved(before[1], model.trainable_variables))
    for (network, copy), old in zip(copies, copied):
        for a, b, b_old in zip(network.weights, copy.weights, old):
            a_new, b_new = values([a, b])
            if any(a is w for w in frozen):
                np.testing.assert_array_equal(a_new, b_new)
            elif a.trainable:
                assert np.abs(b_new - b_old).max() > 0, a.path
    # The augmenter drew nothing.
    np.testing.assert_array_equal(seeds, values(seeds_of_views(model)))
    same = model.make_views(views)
    for name in views:
        np.testing.assert_array_equal(
            ops.convert_to_numpy(same[name]), views[name]
        )


@A_FEW
def test_labels_change_nothing(make, trained, images):
    keras.utils.set_random_seed(3)
    history = fit(make(), images, epochs=1, y=np.arange(len(images)))
    without = {name: found[:1] for name, found in trained.history.items()}
    assert history == without


def test_evaluate_gives_the_objective(trained):
    """That of one batch of ready-made views, and nothing is trained."""
    model, labels = trained.model, labels_for(trained.model, 64)
    views = {name: view[:64] for name, view in trained.views.items()}
    before = values(model.trainable_variables + statistics(model))
    # Some methods draw what isn't part of the views.
    seeds = [v for v in model.variables if "seed" in v.name]
    drawn = values(seeds)
    scores = model.evaluate(
        views, labels, batch_size=64, verbose=0, return_dict=True
    )
    assert set(scores) == {"loss", *model.metric_names}
    assert not any(moved(before, model.trainable_variables + statistics(model)))
    for seed, value in zip(seeds, drawn):
        seed.assign(value)
    views = keras.tree.map_structure(ops.convert_to_tensor, views)
    outputs = model(views, training=False)
    if model.needs_labels:
        outputs = {**outputs, "labels": ops.convert_to_tensor(labels)}
    for name, value in model.objective(outputs).items():
        value = float(ops.convert_to_numpy(value))
        assert scores[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_a_single_image_leaves_no_nan(make, images):
    """Neither in `train_on_batch`, where it is allowed, nor in `evaluate`."""
    model = make()
    batch = images[:1], labels_for(model, 1)
    # Nor a mask in place of a loss.
    assert all(abs(x) < 1e4 for x in model.test_on_batch(*batch))
    if model.min_batch > 1:
        with pytest.raises(ValueError, match="batch of 1 "):
            model.train_on_batch(*batch)
    else:
        assert all(map(math.isfinite, model.train_on_batch(*batch)))
    assert all(np.isfinite(value).all() for value in values(model.weights))


def test_embed_gives_the_encoders_features(trained, images):
    model = trained.model
    features = model.embed(images[:10])
    assert features.dtype == np.float32
    assert features.shape == (10, model.encoder.output_shape[-1])
    expected = ops.convert_to_numpy(
        model.feature_encoder(
            ops.convert_to_tensor(images[:10]), training=False
        )
    )
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
    loaded = data.load("fashion_mnist_small", limit=10)
    np.testing.assert_allclose(
        model.embed(loaded), features, rtol=1e-5, atol=1e-6
    )


def test_views_differ_within_a_batch_and_between_calls(trained, images):
    model = trained.model
    same = np.repeat(images[:1], VIEWS, axis=0)
    seen = []
    for _ in range(2):
        made = model.make_views(same)
        for name in model.augmenter.view_names:
            seen += list(ops.convert_to_numpy(made[name])[:2])
    for i in range(len(seen)):
        for j in range(i):
            if seen[i].shape == seen[j].shape:  # Views may differ in size.
                assert np.abs(seen[i] - seen[j]).max() > 1


@ON_PYTORCH
def test_a_saved_run_goes_on_elsewhere(trained, images, tmp_path):
    model = trained.model
    model.save(tmp_path / "run.keras")
    again = keras.saving.load_model(tmp_path / "run.keras")
    assert type(again) is type(model)
    assert as_json(again.get_config()) == as_json(model.get_config())
    # With a partial batch of the size that `trained` has, so that JAX compiles
    # nothing new.
    few = images[: 4 * BATCH + len(images) % BATCH]
    here = fit(model, few, epochs=1, shuffle=False)
    there = fit(again, few, epochs=1, shuffle=False)
    # GPUs sum in varying order: on an H100 weights differed by 1e-6, with steps
    # of 1e-2.
    scale = 1 if "cpu" in environment()["device"] else 10
    assert here["loss"] == pytest.approx(there["loss"], rel=scale * 1e-6)
    for a, b in zip(values(model.variables), values(again.variables)):
        np.testing.assert_allclose(a, b, scale * 1e-6, scale**2 * 1e-7)


def test_config_round_trip(trained):
    model = trained.model
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model)
    )
    assert as_json(again.get_config()) == as_json(model.get_config())
    shapes = [tuple(w.shape) for w in model.weights]
    assert [tuple(w.shape) for w in again.weights] == shapes
    assert again.optimizer is None or type(again.optimizer) is type(
        model.optimizer
    )


def check_mixed_precision(make, images, policy, monkeypatch):
    if BACKEND == "jax" and make.is_vit and "cpu" in environment()["device"]:
        # JAX's attention has no float16 gradient on CPUs.
        policy = "mixed_bfloat16"
    keras.config.set_dtype_policy(policy)
    # Compiled, which is Keras's default only on JAX. PyTorch takes too long.
    model = make(jit_compile=BACKEND != "torch")
    before = values(model.trainable_variables)
    traced = note_dtypes(monkeypatch, model)
    # Half of them, but MoCo's loss takes more steps to fall.
    if make.epochs < 6:
        images = images[: 8 * BATCH + len(images) % BATCH]
    history = fit(model, images, make.epochs)
    assert history["loss"][-1] < history["loss"][0]
    assert any(moved(before, model.trainable_variables))
    # Views and layers in half precision; what is kept, and the loss, is not.
    half = policy.removeprefix("mixed_")
    assert traced == {"views": {half}, "scalars": {"float32"}}
    assert {x.compute_dtype for x in owners(model.encoder)} == {half}
    kept = [*model.variables, *model.optimizer.variables]
    assert {v.dtype for v in kept if "int" not in v.dtype} == {"float32"}
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")


@ON_PYTORCH
def test_float16(make, images, monkeypatch):
    check_mixed_precision(make, images, "mixed_float16", monkeypatch)


@more("test_float16")
def test_bfloat16(make, images, monkeypatch):
    check_mixed_precision(make, images, "mixed_bfloat16", monkeypatch)


def note_dtypes(monkeypatch, model):
    """Notes the dtypes of views and of the objective when a step is traced."""
    found = defaultdict(set)
    kind = type(model)
    forward_views, objective = kind.forward_views, kind.objective

    def note(name, tensors):
        found[name] |= {backend.standardize_dtype(t.dtype) for t in tensors}

    def noting_views(self, views, training=False):
        note("views", [views[name] for name in self.augmenter.view_names])
        return forward_views(self, views, training=training)

    def noting_scalars(self, outputs):
        scalars = objective(self, outputs)
        note("scalars", scalars.values())
        return scalars

    monkeypatch.setattr(kind, "forward_views", noting_views)
    monkeypatch.setattr(kind, "objective", noting_scalars)
    return found


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that PyTorch traced; `None` on the other backends.

    Tracing forward and backward is the method's part; the minute that Inductor
    takes for each to generate C++ is not.
    """
    if BACKEND != "torch":
        yield None
        return
    import torch

    found = []

    def trace(graph, inputs):
        found.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    traced = functools.partial(torch.compile, backend=trace)
    monkeypatch.setattr(torch, "compile", traced)
    # PyTorch stops tracing code after too many recompilations. All methods
    # share Keras's code, so without a reset later methods would not be traced
    # at all. A method's code is traced once, Keras's for each layer.
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        yield found


def traces(graphs, model):
    """Whether a graph has the method's code: PyTorch skips it silently."""
    code = inspect.getfile(type(model))
    return any(
        code in (node.stack_trace or "")
        for graph in graphs
        for node in graph.graph.nodes
    )


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's compiler")
@more(
    "methods of each kind, and test_graph.py's fullgraph=True",
    always=("simclr", "moco_v2", "context_encoder", "dino", "mae"),
)
def test_its_own_code_is_traced(trained, graphs, monkeypatch):
    """What `jit_compile` traces of a method, without Keras's layers and step.

    Keras's layers take most of the time of tracing.
    """
    import torch

    call = keras.layers.Layer.__call__
    untraced = torch._dynamo.disable(call)

    def call_layer(layer, *args, **kwargs):
        is_ours = type(layer).__module__.startswith("kerassl")
        return (call if is_ours else untraced)(layer, *args, **kwargs)

    monkeypatch.setattr(keras.layers.Layer, "__call__", call_layer)
    model = trained.model
    given = {k: ops.convert_to_tensor(v[:4]) for k, v in trained.views.items()}
    views = model.make_views(given)
    given = {}
    if model.needs_labels:
        given["labels"] = ops.convert_to_tensor(labels_for(model, 4))
    compiled = torch.compile(
        lambda views: model.objective(
            model.forward_views(views, training=True) | given
        )
    )
    assert math.isfinite(float(compiled(views)["loss"]))
    assert traces(graphs, model)


@more("test_float16 and, on PyTorch, test_its_own_code_is_traced")
def test_jit_compile(make, images, graphs):
    model = make(jit_compile=True)
    before = values(model.trainable_variables)
    history = fit(model, images[:128], make.epochs)
    # MoCo's loss rises while keys replace the random queue.
    assert history["loss"][-1] < history["loss"][0] * 1.1
    assert all(moved(before, model.trainable_variables))
    if BACKEND == "torch":
        assert traces(graphs, model)


@once
def test_the_host_hardly_waits_for_a_gpu(trained, images):
    model, batch = trained.model, [images[:BATCH]]
    if model.needs_labels:
        batch.append(labels_for(model, BATCH))
    model.train_on_batch(*batch)
    # Keras's own, such as Adam's powers and the metrics' weights, and a seed.
    data = tuple(map(ops.convert_to_tensor, batch))
    assert 0 < count_waits(lambda: model.train_function([data])) <= 10


@pytest.mark.skipif(BACKEND != "tensorflow", reason="others keep the order")
def test_weights_are_read_before_they_are_updated(trained):
    found, count = trained.order
    assert count and not found


@A_FEW
@pytest.mark.skipif(BACKEND == "torch", reason="Keras allows 1 on PyTorch")
def test_steps_per_execution(make, images):
    model = make(steps_per_execution=2)
    history = fit(model, images[: 14 * BATCH], make.epochs)
    assert history["loss"][-1] < history["loss"][0]
    assert int(model.optimizer.iterations) == make.epochs * 14


def test_a_loss_or_metrics_are_refused(trained):
    model = trained.model
    with pytest.raises(ValueError, match="brings its own loss"):
        model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="KNNMonitor"):
        model.compile("sgd", metrics=["accuracy"])


@pytest.mark.parametrize(
    "x,message",
    [
        (np.zeros((4, 28, 28, 3), "uint8"), "channels"),
        (np.zeros((4, 28, 28), "uint8"), "28, 28"),
        (np.random.rand(4, 28, 28, 1).astype("float32"), "255"),
        ({"pixels": np.zeros((4, 28, 28, 1))}, None),
    ],
)
def test_wrong_input_is_refused_before_work(trained, x, message):
    model = trained.model
    # For a dict without images or views the error names the views.
    message = message or model.augmenter.view_names[0]
    with pytest.raises(ValueError, match=message):
        model.fit(x, verbose=0)
