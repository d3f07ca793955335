"""Graphs run with PyTorch alone as Keras runs them."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerassl import SimCLR, encoders, losses
from kerassl.encoders.resnet import small_resnet
from kerassl.execution import lent
from kerassl.execution.lend import lending
from kerassl.layers import ChannelwiseDense, MLPHead, MomentumNetwork
from kerassl.optimizers import LARS
from tests.backends import WAITS, calls, count_kernels, more
from tests.contracts.methods import METHODS, labels_for, tiny_encoder
from tests.execution.test_lend import distances, pass_of

if keras.backend.backend() != "torch":
    pytest.skip("PyTorch's graphs", allow_module_level=True)


def of_all_kinds():
    """A network with all layers that are known, and some that aren't."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [
            keras.Input((None, None, 8)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.BatchNormalization(momentum=0.8, name="shared"),
            layers.Activation("silu"),
        ],
        name="inner",
    )
    inputs = keras.Input((14, 13, 3))
    x = layers.Rescaling(0.5, offset=[0.1, -0.1, 0.3])(inputs)
    x = layers.ZeroPadding2D(((1, 0), (2, 1)))(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    # An offset would be taken away by later layers, but for rounding.
    x = layers.LayerNormalization(center=False)(x)
    x = layers.Add()([inner(inner(x)), x])
    x = layers.Concatenate()(
        [
            layers.MaxPooling2D(2, 2, padding="same")(x),
            layers.AveragePooling2D(3, strides=2, padding="same")(x),
        ]
    )
    x = layers.BatchNormalization(momentum=0.9)(
        layers.DepthwiseConv2D(2, use_bias=False)(x)
    )
    x = layers.ReLU(name="hooked")(x) * 2.0
    y = layers.GlobalMaxPooling2D(keepdims=True)(x)
    y = layers.Flatten()(layers.Identity()(y))
    z = layers.Dropout(0.0)(layers.GlobalAveragePooling2D()(x))
    x = layers.Add()([layers.Dense(16, activation="tanh")(y), z])
    x = layers.Reshape((4, 4))(x)
    x = layers.LayerNormalization()(x)
    x = layers.Dense(6, activation="gelu")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.BatchNormalization()(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + rng.uniform(0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def network():
    return of_all_kinds()


X = np.random.default_rng(1).normal(size=(5, 14, 13, 3)).astype("float32")


def called(model):
    """Returns the layers that Keras calls, once the model is lent."""
    with lent(model):
        graph = type(model).graph
        return [] if not graph.steps else graph.called


def test_layers_of_all_kinds(network):
    weights = network.get_weights()
    for training in (True, False):
        network.set_weights(weights)
        expected = pass_of(network, X, training)
        network.set_weights(weights)
        with lent(network):
            found = pass_of(network, X, training)
        assert max(distances(found, expected)) < 2e-5
    network.set_weights(weights)
    assert [name.split("_")[0] for name in called(network)] == [
        "depthwise",
        "multiply",
    ]


def test_layers_that_paint_and_that_reduce_tokens():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4, 3))
    x = layers.Conv2DTranspose(6, 4, strides=2, padding="same")(inputs)
    x = ChannelwiseDense()(layers.LeakyReLU(0.1)(x))
    x = layers.Conv2DTranspose(4, (3, 2), (1, 2), activation="tanh")(x)
    x = layers.Cropping2D(((1, 0), (2, 1)))(x)
    # The padding isn't the same on all sides.
    x = layers.Conv2DTranspose(4, 3, 2, padding="same", name="odd")(x)
    tokens = layers.Reshape((-1, 4))(x)
    x = layers.GlobalAveragePooling1D(keepdims=True)(tokens)
    x = layers.Add()([x, layers.Cropping1D((1, 2))(tokens)])
    x = layers.Dense(6)(layers.GlobalMaxPooling1D()(x)[:, 1:])
    model = keras.Model(inputs, x)
    x = np.random.default_rng(0).normal(size=(3, 5, 4, 3)).astype("float32")
    expected = pass_of(model, x)
    odd, item = called(model)
    assert odd == "odd" and item.startswith("get_item")
    with lent(model):
        assert max(distances(pass_of(model, x), expected)) < 1e-5


def test_convolutions_pad_and_sums_overwrite_what_is_free():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 8, 3))
    x = layers.ZeroPadding2D(1)(inputs)
    left = layers.Conv2D(6, 3, strides=2)(x)
    right = layers.Conv2D(6, 3, strides=2)(x)
    # Its result is needed twice, once under another name.
    left = layers.BatchNormalization()(left)
    same = layers.Identity()(left)
    small = layers.ReLU()(left)
    right = layers.BatchNormalization()(right)
    x = layers.Add()([same, right])  # Overwrites `right`.
    x = layers.Activation("relu")(x)  # And again.
    x = layers.Add()([x, small])
    # Its negative values are needed after the ReLU, too.
    x = layers.Add()([layers.ReLU()(x := layers.BatchNormalization()(x)), x])
    # Padding that is needed for itself, and one that isn't even.
    x = layers.ZeroPadding2D(1)(x)
    y = layers.Conv2D(6, 4)(layers.ZeroPadding2D(((0, 1), (1, 0)))(x))
    x = layers.Add()([layers.Conv2D(6, 3)(x), layers.MaxPooling2D(3, 1)(x), y])
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    weights = model.get_weights()
    x = np.random.default_rng(1).normal(size=(5, 9, 8, 3)).astype("float32")
    expected = pass_of(model, x)
    model.set_weights(weights)
    with lent(model):
        found = pass_of(model, x)
        steps = type(model).graph.steps
        kinds = [type(step.layer) for step in steps]
        given = ops.convert_to_tensor(x)
        written = calls(lambda: model(given, training=True))
    # The bias before a normalization changes nothing.
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
    assert kinds.count(layers.ZeroPadding2D) == 2
    assert (written["add_"], written["relu_"]) == (1, 1)


def test_a_change_of_a_layer_is_noticed(network):
    hooked = network.get_layer("hooked")
    seen = []
    runs = lending(network, lambda: network(X, training=True))
    runs()
    hook = hooked.register_forward_hook(lambda *args: seen.append(args))
    runs()
    assert len(seen) == 1 and "hooked" in called(network)
    hook.remove()
    runs()
    assert len(seen) == 1
    hook = network.register_forward_hook(lambda *args: seen.append(args))
    runs()
    assert len(seen) == 2
    hook.remove()
    # `fit` changes PyTorch's `training`, which Keras's layers don't ask for.
    with lent(network):
        steps = type(network).graph.steps
        network.train(not network.training)
    with lent(network):
        assert type(network).graph.steps is steps
    # A frozen layer keeps its statistics.
    norm = network.get_layer("inner").get_layer("shared")
    moved = []
    for trainable in (True, False, True):
        norm.trainable = trainable
        before = ops.convert_to_numpy(norm.moving_mean).copy()
        runs()
        after = ops.convert_to_numpy(norm.moving_mean)
        moved.append(np.abs(after - before).max() > 0)
    assert moved == [True, False, True]


def test_what_does_more_than_its_class_is_left_to_keras():
    class Own(layers.Dense):
        graph = "has a name that kerassl uses, too"

        def call(self, inputs):
            return 2.0 * super().call(inputs)

    inputs = keras.Input((4,))
    with keras.RematScope(mode="full"):
        x = layers.Dense(4, name="again")(inputs)
    x = layers.Dense(4, activity_regularizer="l2", name="regularized")(x)
    x = layers.Dense(4, name="lora")(Own(4, name="own")(x))
    x = layers.Dense(4, dtype="bfloat16", name="half")(x)
    model = keras.Model(inputs, layers.Dense(4, name="plain")(x))
    model.get_layer("lora").enable_lora(2)
    names = ["again", "regularized", "own", "lora", "half"]
    assert called(model) == names
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    expected = ops.convert_to_numpy(model(x, training=False))
    with lent(model):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(model(x, training=False)), expected
        )
        assert len(model.losses) == 1


def test_inputs_of_another_shape_are_refused_as_by_keras(network):
    with lent(network), pytest.raises(ValueError, match="expected shape"):
        network(X[:, 1:], training=True)


def test_masks_and_several_inputs_are_left_to_keras():
    inputs = keras.Input((3, 4))
    masked = layers.Masking()(inputs)
    model = keras.Model(inputs, layers.BatchNormalization()(masked))
    two = keras.Model(
        [inputs, inputs2 := keras.Input((3, 4))], inputs + inputs2
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    x[0, 0] = 0.0
    expected = ops.convert_to_numpy(model(x, training=True))
    with lent(model), lent(two):
        found = ops.convert_to_numpy(model(x, training=True))
        assert ops.convert_to_numpy(two([x, x])).shape == x.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_head():
    head = MLPHead((6, 6, 6), output_normalization="batch_no_affine")
    head.build((None, 5))
    x = np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    weights = head.get_weights()
    expected = pass_of(head, x)
    head.set_weights(weights)
    with lent(head):
        assert type(head).graph.steps and not type(head).graph.called
        found = pass_of(head, x)
    assert max(distances(found, expected)) < 1e-5


def test_transformer_blocks():
    from keras_hub.layers import TransformerEncoder
    from keras_hub.models import ViTBackbone

    vit = ViTBackbone((16, 16, 3), 8, 2, 2, 8, 16, dropout_rate=0.0)
    rng = np.random.default_rng(0)
    for weight in vit.weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    x = rng.normal(size=(3, 16, 16, 3)).astype("float32")
    model = keras.Model(vit.input, vit.output[:, 0, :6])
    expected = pass_of(model, x)
    blocks = vit.get_layer("vit_encoder")
    with lent(model):
        found = pass_of(model, x)
        assert type(model).graph.called[0].startswith("get_item")
        assert type(model).graph.is_whole
    # The bias of keys changes nothing.
    near = [
        np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(other) + 1e-4
        for one, other in zip(found, expected, strict=True)
    ]
    assert all(near)
    tokens = rng.normal(size=(2, 4, 8)).astype("float32")
    expected = ops.convert_to_numpy(blocks(tokens))
    with lent(blocks):
        assert type(blocks).graph.steps
        found = ops.convert_to_numpy(blocks(tokens, training=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # MAE decodes with others.
    block = TransformerEncoder(6, 2, activation="gelu", normalize_first=True)
    block.build(tokens.shape)
    for weight in block.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    given = ops.convert_to_tensor(tokens)
    expected = ops.convert_to_numpy(block(given, training=True))
    with lent(block):
        assert type(block).graph.is_whole
        found = ops.convert_to_numpy(block(given, training=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # If KerasHub changed, Keras would call them.
    kind = type(blocks)
    vars(blocks).pop("_lent")
    before, kind.call = kind.call, lambda self, x: self.layer_norm(x)
    try:
        with lent(blocks):
            assert not type(blocks).graph.steps
    finally:
        kind.call = before


def test_a_vit_at_another_size():
    from keras_hub.models import ViTBackbone

    vit = ViTBackbone((16, 16, 3), 8, 1, 2, 6, 16, dropout_rate=0.0)
    encoder = encoders.as_encoder(vit, mean=[0.5] * 3, std=[0.2] * 3)
    model = encoders.at_size(encoder, 24)
    x = np.random.default_rng(0).uniform(0, 255, (3, 24, 24, 3))
    expected = pass_of(model, x.astype("float32"))
    with lent(model):
        assert type(model).graph.is_whole
        found = pass_of(model, x.astype("float32"))
    near = [
        np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(other) + 1e-4
        for one, other in zip(found, expected, strict=True)
    ]
    assert all(near)


@pytest.mark.parametrize("name", ["resnet_nano", "resnet_18"])
def test_the_kernels_of_an_encoder(name):
    """One a convolution, a normalization and a sum, and a kernel's copies."""
    encoder = encoders.build(name, (32, 32, 3))
    count = lambda kind: sum(  # noqa: E731
        isinstance(layer, kind) for layer in encoders.graph.flat_layers(encoder)
    )
    convolutions, norms = count(layers.Conv2D), count(layers.BatchNormalization)
    x = ops.convert_to_tensor(np.ones((4, 32, 32, 3), "float32"))
    with lent(encoder):
        encoder(x, training=True)
        outputs = []
        forward = count_kernels(
            lambda: outputs.append(encoder(x, training=True))
        )
        loss = outputs[0].sum()
        backward = count_kernels(loss.backward)
    others = count(layers.ReLU) + count(layers.Activation) + count(layers.Add)
    assert forward <= 2 * convolutions + norms + others + 16
    # Sums have no gradient of their own, but those of branches are added.
    assert backward <= 2 * convolutions + norms + others + 16


def test_an_offset_for_each_pixel():
    mean = np.random.default_rng(0).uniform(0, 1, (6, 5, 3)).astype("float32")
    inputs = keras.Input((6, 5, 3))
    x = layers.Rescaling(0.5, offset=-mean)(inputs)
    model = keras.Model(inputs, layers.Conv2D(4, 3)(x))
    images = np.random.default_rng(1).normal(size=(2, 6, 5, 3))
    images = images.astype("float32")
    expected = model.predict(images, verbose=0)
    with lent(model):
        found = keras.ops.convert_to_numpy(model(images))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_kernels_of_a_step(tmp_path):
    """A step of SimCLR on ready views, with ResNet-50's 53 convolutions."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    x = small_resnet(
        x, (8, 8, 8, 8), (3, 4, 6, 3), bottleneck=True, stem_strides=2
    )
    model = SimCLR(keras.Model(inputs, x), projection_dim=8)
    model.compile(LARS(0.1, weight_decay=1e-6))
    views = {name: np.ones((4, 32, 32, 3)) for name in ("view_1", "view_2")}
    model.train_on_batch(views)
    found = calls(lambda: model.train_on_batch(views))
    assert sum(n for name, n in found.items() if name not in WAITS) <= 520
    # No kernel is copied, neither before its convolution nor its gradient.
    assert found["clone"] + found["copy_"] + found["_to_copy"] <= 20
    # Files, shapes and values are Keras's.
    stem = model.encoder.get_layer("stem_conv").kernel
    assert stem.shape == (3, 3, 3, 8) and not stem.value.is_contiguous()
    weights = model.get_weights()
    model.save_weights(tmp_path / "model.weights.h5")
    model.set_weights([weight * 0.0 for weight in weights])
    model.load_weights(tmp_path / "model.weights.h5")
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not stem.value.is_contiguous()


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("byol", "swav", "context_encoder")
        else pytest.param(name, marks=more("a method of each kind"))
        for name in METHODS
    ],
)
def test_the_forward_pass_and_loss_are_traced_without_a_break(name):
    import torch

    model = METHODS[name](tiny_encoder())
    x = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), "uint8")
    views = model.make_views(ops.convert_to_tensor(x))
    weights, labels = model.get_weights(), {}
    if model.needs_labels:
        labels["labels"] = ops.convert_to_tensor(labels_for(model, 4))

    def loss(views):
        outputs = model.forward_views(views, training=True)
        return model.objective(outputs | labels)["loss"]

    expected = float(loss(views))
    model.set_weights(weights)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    with lent(model):
        # 1e-6, since SimSiam's loss is near 0.
        assert float(compiled(views)) == pytest.approx(expected, 1e-5, 1e-6)


def test_so_are_a_loss_with_a_queue_and_maes_decoder():
    import torch

    whole = functools.partial(torch.compile, fullgraph=True, backend="eager")
    rng = np.random.default_rng(0)
    queries, keys, queue, tokens, rank = (
        ops.convert_to_tensor(x.astype("float32"))
        for x in (
            *(rng.normal(size=shape) for shape in [(4, 3), (4, 3), (9, 3)]),
            rng.normal(size=(2, 5, 8)),
            rng.permuted(np.tile(np.arange(16), (2, 1)), axis=1),
        )
    )
    loss = losses.info_nce(queries, keys, 0.2, queue)
    traced = whole(losses.info_nce)(queries, keys, 0.2, queue)
    for name in loss:
        assert float(traced[name]) == pytest.approx(float(loss[name]))
    model, rank = METHODS["mae"](tiny_encoder()), rank.long()
    width = model.backbone.hidden_dim
    tokens = ops.tile(tokens, (1, 1, width))[..., :width]
    expected = model.decode(tokens, rank, training=True)
    with lent(model), torch.no_grad():
        found = whole(model.decode)(tokens, rank, training=True)
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_momentum_network_and_its_hooks():
    momentum = MomentumNetwork(tiny_encoder(), 0.9)
    x = np.random.default_rng(0).uniform(0, 255, (3, 28, 28, 1))
    weights = momentum.get_weights()
    runs = lending(
        keras.Sequential([keras.Input((28, 28, 1)), momentum]),
        lambda: ops.convert_to_numpy(momentum(x, training=True)),
    )
    expected = ops.convert_to_numpy(momentum(x, training=True))
    moved = momentum.get_weights()
    momentum.set_weights(weights)
    np.testing.assert_allclose(runs(), expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(momentum.get_weights(), moved, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    seen = []
    momentum.register_forward_hook(lambda *args: seen.append(args))
    runs()
    assert len(seen) == 1
