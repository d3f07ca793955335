"""From a class to its recipe: `from_recipe` and `compile("auto")`."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from kerassl import recipes
from kerassl.layers import CosineMomentum
from kerassl.recipes import build
from tests.backends import more
from tests.contracts.methods import tiny_encoder


@pytest.mark.parametrize(
    "method, name",
    [
        pytest.param(
            method,
            name,
            marks=()
            if name == "cpu"
            else more("test_every_recipe_builds_a_compiled_model"),
        )
        for method in recipes.methods()
        for name in recipes.names(method)
    ],
)
def test_every_recipe_gives_a_compiled_model(method, name):
    cls = recipes.METHODS[method]
    # Recipes name a teacher of color images.
    shape = (28, 28, 3 if method == "distillation" else 1)
    if recipes.get(method, name).encoder.startswith("vit"):
        encoder = kerassl.encoders.build("vit_nano", shape)
    else:
        inputs = keras.Input(shape)
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same")(inputs / 255)
        x = keras.layers.GlobalAveragePooling2D()(x)
        encoder = keras.Model(inputs, x)
    narrow = {
        key: 16
        for key in ("hidden_dim", "projection_dim", "bottleneck_dim")
        if key in recipes.get(method, name).method_args
    }
    model = cls.from_recipe(
        f"{method}/{name}", encoder=encoder, steps=20, method_args=narrow
    )
    assert type(model) is cls and model.compiled
    assert (model.recipe.method, model.recipe.name) == (method, name)
    assert model.recipe.image_size in (None, 28)
    for key in narrow:
        assert model.recipe.method_args[key] == 16


@pytest.mark.parametrize(
    "method",
    [
        "simclr",
        "vicreg",
        "rotation",
        pytest.param("moco_v1", marks=pytest.mark.every_backend),
    ],
)
def test_views_may_be_smaller_than_the_images(method, images):
    model = recipes.METHODS[method].from_recipe(
        f"{method}/cpu", encoder=tiny_encoder(), steps=2, views={"size": 24}
    )
    assert set(model.augmenter.sizes.values()) == {24}
    assert np.isfinite(model.train_on_batch(images[:8])).all()
    assert model.embed(images[:8]).shape == (8, 24)


@pytest.mark.parametrize(
    "method, image_size, views, size",
    [
        ("visreg", 28, {}, 14),
        ("fastsiam", 64, {}, 32),
        ("ibot", 96, {}, 48),
        ("dinov2", 64, {"size": {"share": 0.3}}, 16),  # Patches of 8.
    ],
)
def test_views_may_be_a_share_of_the_images(method, image_size, views, size):
    model = recipes.METHODS[method].from_recipe(
        f"{method}/cpu",
        image_shape=(image_size, image_size, 3),
        steps=2,
        views=views,
    )
    assert set(model.augmenter.sizes.values()) == {size}


@pytest.mark.parametrize(
    "method",
    [
        "moco_v3",
        "dino",
        pytest.param("byol", marks=pytest.mark.every_backend),
    ],
)
def test_a_momentum_encoder_takes_the_same_sizes(method, images):
    model = recipes.METHODS[method].from_recipe(
        f"{method}/cpu",
        encoder=tiny_encoder(),
        steps=2,
        views={"size": 24},
        method_args={"momentum": 0.5},
    )
    kernel, followed = (
        network.weights[0]
        for network in (model.momentum_encoder.network, model.encoder)
    )
    before, started = np.array(kernel.numpy()), np.array(followed.numpy())
    model.trainable = True
    model.compile(keras.optimizers.SGD(0.1))
    model.train_on_batch(images[:8])
    assert not kernel.trainable
    after, moved = kernel.numpy(), followed.numpy()
    assert np.abs(moved - started).max() > 0
    np.testing.assert_allclose(after, (before + moved) / 2, atol=1e-6)


def test_a_momentum_encoder_of_free_size_is_called_as_it_is():
    inputs = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(inputs / 255)
    encoder = keras.Model(inputs, keras.layers.Dense(4)(x))
    views = kerassl.augmentation.byol(24)
    model = kerassl.BYOL(encoder, hidden_dim=8, augmenter=views)
    assert model.momentum_encoder_of("view_1") is model.momentum_encoder
    assert not model.untracked_networks()


@pytest.mark.parametrize("method", ["mae", "context_encoder", "simmim"])
def test_some_methods_take_one_size(method):
    with pytest.raises(ValueError, match="encoder's size, 28 .* 20"):
        recipes.METHODS[method].from_recipe(
            f"{method}/cpu",
            image_shape=(28, 28, 1),
            steps=2,
            views={"size": 20},
        )


@pytest.mark.every_backend
def test_it_is_what_the_command_line_trains(images):
    recipe = recipes.get("byol").change(optimizer={"learning_rate": 0.8})
    model = kerassl.BYOL.from_recipe(
        image_shape=(28, 28, 1),
        steps=50,
        **{"optimizer.learning_rate": 0.8},
    )
    same = recipes.build_model(recipe, (28, 28, 1), steps_per_epoch=5)
    assert model.recipe == same.recipe == recipe
    configs = [m.optimizer.get_config() for m in (model, same)]
    for config in configs:
        config.pop("name")  # Keras numbers them.
    assert configs[0] == configs[1]
    assert model.momentum.get_config() == same.momentum.get_config()
    for a, b in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    history = model.fit(images[:32], batch_size=16, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.every_backend
@pytest.mark.parametrize("steps", [1, 7, 39, 391, 1001])
def test_schedules_end_with_the_steps(steps):
    model = kerassl.BYOL.from_recipe(
        encoder=tiny_encoder(), steps=steps, epochs=7
    )
    assert isinstance(model.momentum, CosineMomentum)
    assert model.momentum.steps == steps
    config = model.optimizer.get_config()["learning_rate"]["config"]
    assert config["decay_steps"] + config["warmup_steps"] == steps


def test_the_recipes_of_classes_with_several():
    build = dict(encoder=tiny_encoder(), steps=10)
    for name, expected in (
        ("cpu", ("moco_v2", 2)),
        ("moco_v2/cpu", ("moco_v2", 2)),
        ("moco_v1/cpu", ("moco_v1", 1)),
    ):
        model = kerassl.MoCo.from_recipe(name, **build)
        assert (model.recipe.method, model.version) == expected
    assert kerassl.SimCLR.from_recipe(**build).recipe.method == "simclr"
    with pytest.raises(ValueError, match="recipe family of MoCo 'moco_v3'"):
        kerassl.MoCo.from_recipe("moco_v3/cpu", **build)
    with pytest.raises(ValueError, match="no recipe of simclr 'cifer'.*cifar"):
        kerassl.SimCLR.from_recipe("cifer", **build)


def test_subclasses_take_their_base_classes_recipes():
    class Mine(kerassl.SimCLR):
        pass

    model = Mine.from_recipe(encoder=tiny_encoder(), steps=10)
    assert type(model) is Mine and model.recipe.method == "simclr"

    class New(kerassl.methods.SelfSupervisedModel):
        pass

    with pytest.raises(ValueError, match="New has no recipes"):
        New.from_recipe(encoder=tiny_encoder(), steps=10)
    with pytest.raises(ValueError, match="New has no recipes"):
        New(tiny_encoder()).compile("auto")


def test_the_encoder_may_be_a_name_or_a_model():
    shape = dict(image_shape=(28, 28, 1), steps=10)
    model = kerassl.SimCLR.from_recipe(encoder="resnet_18_small", **shape)
    assert model.recipe.encoder == "resnet_18_small"
    assert model.encoder.output_shape[-1] == 512
    encoder = tiny_encoder()
    model = kerassl.SimCLR.from_recipe(encoder=encoder, **shape)
    assert model.encoder is encoder
    with pytest.raises(ValueError, match="`image_shape` is .28, 28, 3."):
        kerassl.SimCLR.from_recipe(
            encoder=encoder, image_shape=(28, 28, 3), steps=10
        )
    with pytest.raises(ValueError, match="Give `image_shape`"):
        kerassl.SimCLR.from_recipe(steps=10)
    with pytest.raises(ValueError, match="no encoder 'resnet_nan'"):
        kerassl.SimCLR.from_recipe(encoder="resnet_nan", **shape)
    with pytest.raises(ValueError, match="`steps`"):
        kerassl.SimCLR.from_recipe(image_shape=(28, 28, 1), steps=0)
    for given in ({"encoder": encoder}, {"image_shape": (28, 28, 1)}):
        with pytest.raises(ValueError, match="`image_size` is 32, and the"):
            kerassl.SimCLR.from_recipe(image_size=32, steps=10, **given)
    steps = np.int64(10)
    model = kerassl.SimCLR.from_recipe(
        encoder=encoder, image_size=28, steps=steps
    )
    assert model.recipe.image_size == 28


def test_the_recipe_has_the_size_of_the_images():
    model = kerassl.SimCLR.from_recipe(
        "imagenet", encoder=tiny_encoder(), steps=10
    )
    assert model.recipe.image_size == 28
    model = kerassl.SimCLR.from_recipe(encoder=tiny_encoder(), steps=10)
    assert model.recipe.image_size is None  # As the recipe has it.


@pytest.mark.every_backend
def test_auto_is_the_default_recipes_optimizer(monkeypatch):
    model = kerassl.SimCLR(tiny_encoder())
    model.compile("auto")
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    rate = ops.convert_to_numpy(model.optimizer.learning_rate)
    assert float(rate) == pytest.approx(0.2)  # 0.4 at 256; the batch is 128.
    assert model.optimizer.momentum == 0.9
    assert "decay_steps" not in str(model.get_compile_config())
    monkeypatch.setattr(build, "has_accelerator", lambda: True)
    model.compile("auto")
    assert isinstance(model.optimizer, kerassl.optimizers.LARS)
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.RMSprop)


@pytest.mark.parametrize("shape", [(None, None, 3), (24, 28, 3)])
def test_auto_for_encoders_of_other_shapes(shape):
    encoder = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    augmenter = kerassl.augmentation.simclr(24)
    model = kerassl.SimCLR(encoder, augmenter=augmenter)
    model.compile("auto")
    assert isinstance(model.optimizer, keras.optimizers.SGD)


def test_auto_keeps_rates_of_single_layers(images):
    model = kerassl.ContextEncoder(
        tiny_encoder(), bottleneck_dim=16, discriminator_dim=8
    )
    model.compile("auto")
    shares = recipes.get("context_encoder").schedule["shares"]
    rates = sorted(
        float(ops.convert_to_numpy(optimizer.learning_rate))
        for optimizer in model.optimizer.optimizers
    )
    assert rates[0] / rates[1] == pytest.approx(*shares.values())
    history = model.fit(images[:32], batch_size=16, verbose=0).history
    assert np.isfinite(history["loss"]).all()
