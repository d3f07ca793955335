"""What the base class offers to methods, with a method of a user's own."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl import augmentation
from kerassl.augmentation import View, ViewAugmenter
from kerassl.layers import FeatureQueue
from tests.contracts.methods import METHODS, tiny_encoder

pytestmark = pytest.mark.every_backend

SIZES = (28, 20, 28, 24, 20)


@keras.saving.register_keras_serializable(package="tests")
class Watched(keras.layers.Layer):
    """Keeps the shapes of its inputs."""

    seen: list = []

    def call(self, inputs):
        Watched.seen.append(tuple(inputs.shape))
        return inputs


def watched_encoder():
    body = tiny_encoder()
    inputs = keras.Input((28, 28, 1))
    x = Watched()(inputs)
    for layer in body.layers[1:]:
        x = layer(x)
    return keras.Model(inputs, x)


class Mean(kerassl.methods.SelfSupervisedModel):
    """Brings the features of all views near their mean."""

    counts_steps = True

    def forward_views(self, views, training=False):
        return self.encode_views(views, training=training)

    def objective(self, outputs):
        features = ops.stack(list(outputs.values()))
        away = features - ops.mean(features, axis=0)
        return {"loss": ops.mean(ops.square(away))}


def mean_model(sizes=SIZES):
    augmenter = ViewAugmenter([View(size, blur=0.0) for size in sizes])
    model = Mean(watched_encoder(), augmenter)
    model.compile(keras.optimizers.SGD(0.1))
    return model


def numpy(outputs):
    return {name: ops.convert_to_numpy(x) for name, x in outputs.items()}


def test_a_users_method_makes_one_pass_for_each_view_size(images):
    model = mean_model()
    views = model.make_views(ops.convert_to_tensor(images[:8]))
    Watched.seen.clear()
    outputs = numpy(model.encode_views(views))
    assert Watched.seen == [(16, 28, 28, 1), (16, 20, 20, 1), (8, 24, 24, 1)]
    # Each view's features are those of a pass of its own.
    assert set(outputs) == set(views)
    for name, view in views.items():
        encoder = kerassl.encoders.at_size(model.encoder, view.shape[1])
        alone = ops.convert_to_numpy(encoder(view, training=False))
        np.testing.assert_allclose(outputs[name], alone, rtol=1e-3, atol=1e-4)
    losses = model.fit(images, batch_size=32, epochs=2, verbose=0).history
    assert losses["loss"][1] < losses["loss"][0]


def test_some_views_and_a_head_for_all_of_them(images):
    model = mean_model()
    views = model.make_views(ops.convert_to_tensor(images[:8]))
    whole = numpy(model.encode_views(views))
    calls = []

    def head(features, training):
        calls.append((tuple(features.shape), training))
        return 2.0 * features

    Watched.seen.clear()
    names = ["view_4", "view_2"]
    some = numpy(model.encode_views(views, names, head, training=False))
    assert Watched.seen == [(8, 24, 24, 1), (8, 20, 20, 1)]
    assert calls == [((16, 24), False)]
    assert list(some) == names
    for name in names:
        np.testing.assert_allclose(some[name], 2 * whole[name], 1e-3, 1e-4)


def test_an_augmenter_that_names_no_sizes_has_the_encoders(images):
    class Twice(keras.layers.Layer):
        view_names = ["a", "b"]

        def call(self, inputs):
            return {"a": ops.cast(inputs, "float32"), "b": ops.flip(inputs, 2)}

    model = Mean(tiny_encoder(), Twice())
    views = model.make_views(ops.convert_to_tensor(images[:8]))
    assert {tuple(x.shape) for x in model.encode_views(views).values()} == {
        (8, 24)
    }


@pytest.mark.parametrize(
    "augmenter",
    [keras.Sequential([keras.layers.RandomCrop(12, 12)]), lambda x: {"a": x}],
)
def test_an_augmenter_has_names_of_views(augmenter):
    with pytest.raises(ValueError, match="`view_names`.*ViewAugmenter.*fit"):
        Mean(tiny_encoder(), augmenter)


def test_views_that_keep_the_images_size_have_the_encoders(images):
    flips = [augmentation.RandomHorizontalFlip()]
    augmenter = ViewAugmenter([View(28, blur=0.0), flips])
    assert list(augmenter.sizes.values()) == [28, None]
    model = Mean(watched_encoder(), augmenter)
    views = model.make_views(ops.convert_to_tensor(images[:8]))
    Watched.seen.clear()
    assert len(model.encode_views(views)) == 2
    assert Watched.seen == [(16, 28, 28, 1)]


def test_steps_are_counted_where_a_method_asks_for_it(images, tmp_path):
    model = mean_model((28, 28))
    model.fit(images[:64], batch_size=32, epochs=2, verbose=0)
    assert int(model.steps) == 4
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects={"Mean": Mean}
    )
    assert int(loaded.steps) == 4


@pytest.mark.parametrize("method", METHODS)
def test_only_methods_that_count_have_a_weight_more(method):
    model = METHODS[method](tiny_encoder())
    names = [weight.name for weight in model.weights]
    assert names.count("steps") == model.counts_steps


def test_a_batch_beyond_a_queue_is_refused(images):
    for memory in (FeatureQueue(40, 8), [FeatureQueue(40, 8)]):
        model = mean_model()
        model.memory = memory
        with pytest.raises(ValueError, match="larger `queue_size`"):
            model.fit(images, batch_size=64, verbose=0)
        assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("given", [["mask_1"], ["mask_1", "mask_2"]])
def test_what_is_drawn_comes_with_the_views_or_not(images, given):
    """As a whole: some of it would have been drawn anew, unnoticed."""
    model = METHODS["ibot"](tiny_encoder())
    model.compile("sgd")
    made = model.make_views(ops.convert_to_tensor(images[:4]))
    views = {name: made[name] for name in (*model.augmenter.view_names, *given)}
    if len(given) == 2:
        assert model.make_views(views) == views
        return
    message = r"all of \['mask_1', 'mask_2'\] .* Found: \['mask_1'\]"
    with pytest.raises(ValueError, match=message):
        model(views)
    with pytest.raises(ValueError, match=message):
        model.fit(numpy(views), verbose=0)


def test_encoders_and_ready_made_views_may_be_oblong():
    encoder = keras.Sequential(
        [
            keras.Input((16, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )

    class Oblong(keras.layers.Layer):
        view_names = ("view_1", "view_2")

        def call(self, images):
            return {name: images + 0.0 for name in self.view_names}

    model = kerassl.SimCLR(encoder, augmenter=Oblong(), projection_dim=4)
    views = model.encode_views(model.make_views(np.ones((3, 16, 8, 1)) * 9.0))
    assert {name: tuple(x.shape) for name, x in views.items()} == {
        "view_1": (3, 4),
        "view_2": (3, 4),
    }


class Weighted(Mean):
    """Has arguments of its own."""

    def __init__(self, encoder, weight, *args, areas=(0.2, 1.0), **kwargs):
        super().__init__(encoder, *args, **kwargs)
        self.weight = weight
        self.areas = areas


def test_arguments_are_read_from_attributes():
    augmenter = ViewAugmenter([View(28)] * 2)
    model = Weighted(tiny_encoder(), 2.0, augmenter, name="weighted")
    config = model.get_config()
    assert config["weight"] == 2.0 and config["areas"] == [0.2, 1.0]
    again = Weighted.from_config(config)
    assert (again.name, again.weight) == ("weighted", 2.0)
    assert again.augmenter.view_names == augmenter.view_names
    del model.weight
    with pytest.raises(ValueError, match="Weighted.*`weight`.*`get_config`"):
        model.get_config()


def test_a_compiled_encoder_does_not_keep_a_model_from_loading(tmp_path):
    def loss_of_a_user(y_true, y_pred):
        return ops.mean(y_pred)

    encoder = tiny_encoder()
    encoder.compile("adam", loss=loss_of_a_user)
    model = METHODS["byol"](encoder)
    model.compile("sgd")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.compiled and not again.encoder.compiled
    for found, expected in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(found, expected)


def test_a_method_may_keep_its_arguments_elsewhere():
    class Doubled(Weighted):
        def __init__(self, encoder, half, **kwargs):
            super().__init__(encoder, 2 * half, **kwargs)

        def get_config(self):
            config = super().get_config()
            return {"half": config.pop("weight") / 2, **config}

    config = Doubled(tiny_encoder(), half=1.5).get_config()
    assert config["half"] == 1.5 and "weight" not in config
    assert Doubled.from_config(config).weight == 3.0
