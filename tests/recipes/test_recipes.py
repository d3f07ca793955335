import dataclasses
import json

import keras
import pytest

from kerassl import encoders, recipes
from kerassl.augmentation import masks
from tests.backends import once

RECIPES = [
    pytest.param(method, name, marks=() if name == "cpu" else once)
    for method in recipes.methods()
    for name in recipes.names(method)
]


@pytest.mark.parametrize("method, name", RECIPES)
def test_every_recipe_builds_a_compiled_model(method, name):
    recipe = recipes.get(method, name)
    assert recipe.encoder in encoders.names()
    # The recipe's own encoder is tested where encoders are.
    small = "vit_nano" if recipe.encoder.startswith("vit") else "resnet_nano"
    recipe = recipe.replace(encoder=small)
    model = recipes.build_model(recipe, (32, 32, 3), steps_per_epoch=10)
    assert model.compiled
    # Some layers may have rates of their own.
    for optimizer in getattr(model.optimizer, "optimizers", [model.optimizer]):
        rate = keras.ops.convert_to_numpy(optimizer.learning_rate)
        assert float(rate) >= 0


@pytest.mark.parametrize("method, name", RECIPES)
def test_recipes_survive_json(method, name):
    recipe = recipes.get(method, name)
    text = json.dumps(recipe.to_dict())
    again = recipes.Recipe.from_dict(json.loads(text))
    assert again == recipe
    assert again.hash == recipe.hash


def test_hash_depends_on_content_alone():
    recipe = recipes.get("simclr", "cpu")
    assert len(recipe.hash) == 64
    turned = dataclasses.replace(
        recipe, optimizer=dict(reversed(recipe.optimizer.items()))
    )
    assert turned.hash == recipe.hash
    for changes in (
        {"seed": 1},
        {"epochs": 11},
        {"optimizer": {**recipe.optimizer, "learning_rate": 0.13}},
        {"views": {**recipe.views, "crop_area": [0.1, 1.0]}},
    ):
        assert recipe.replace(**changes).hash != recipe.hash


def test_replace_leaves_what_is_none():
    recipe = recipes.get("simclr", "cpu")
    assert recipe.replace(encoder=None, epochs=None) == recipe


@pytest.mark.parametrize(
    "scaling, expected", [("linear", 2.0), ("sqrt", 2**0.5), ("none", 1.0)]
)
def test_scaling_of_the_learning_rate(scaling, expected):
    recipe = recipes.get("simclr", "cpu")
    recipe = recipe.replace(
        batch_size=512,
        optimizer={"name": "sgd", "learning_rate": 1.0},
        schedule={**recipe.schedule, "scaling": scaling},
    )
    assert recipe.resolve(10)["learning_rate"] == pytest.approx(expected)


def test_warmup_takes_a_bounded_share_of_short_runs():
    recipe = recipes.get("simclr", "imagenet")  # 10 epochs of 100
    assert recipe.resolve(7)["warmup_steps"] == 70
    assert recipe.replace(epochs=20).resolve(10)["warmup_steps"] == 20
    assert recipe.replace(epochs=1).resolve(1) == {
        "learning_rate": pytest.approx(4.8),
        "total_steps": 1,
        "warmup_steps": 0,
        "frozen_steps": {},
    }


def test_shares_of_the_learning_rate():
    recipe = recipes.get("context_encoder", "cpu")
    recipe = recipe.replace(
        optimizer={"name": "sgd", "learning_rate": 1.0},
        schedule={
            "scaling": "none",
            "warmup_epochs": 1,
            "shares": {"discriminator": 0.1},
            "constant": ["decoder"],
        },
    )
    model = recipes.build_model(recipe, (32, 32, 3), steps_per_epoch=4)
    variables = model.trainable_variables
    for step in range(6):
        before = [keras.ops.convert_to_numpy(v) for v in variables]
        model.optimizer.apply(
            [keras.ops.ones(v.shape) for v in variables], variables
        )
        moves = {
            v.path.split("/")[0]: (old - keras.ops.convert_to_numpy(v)).max()
            for v, old in zip(variables, before)
        }
        rate = moves["bottleneck"]
        assert moves["discriminator"] == pytest.approx(0.1 * rate, abs=1e-6)
        assert moves["decoder"] == pytest.approx(1.0, abs=1e-6)
        expected = step / 4 if step < 4 else 1.0
        assert rate == pytest.approx(expected, abs=0.01)


def test_methods_count_updates_where_gradients_are_accumulated():
    recipe = recipes.get("byol", "imagenet")
    recipe = recipe.replace(
        encoder="resnet_nano",
        image_size=32,
        optimizer={**recipe.optimizer, "gradient_accumulation_steps": 4},
    )
    model = recipes.build_model(recipe, (32, 32, 3), steps_per_epoch=8)
    assert model.momentum.steps == recipe.epochs * 8 // 4


def test_ramps_follow_the_length_of_the_run():
    recipe = recipes.get("byol", "cpu").replace(
        epochs=10,
        method_args={"momentum": {"linear": [0.9, 1.0], "epochs": 3}},
        optimizer={
            "name": "adamw",
            "learning_rate": 1e-3,
            "weight_decay": {"cosine": [0.04, 0.4]},
        },
    )
    model = recipes.build_model(recipe, (32, 32, 3), steps_per_epoch=8)
    ramps = model.momentum, model.optimizer.decay
    found = [(r.start, r.end, r.steps, r.curve) for r in ramps]
    assert found == [(0.9, 1.0, 24, "linear"), (0.04, 0.4, 80, "cosine")]
    # They don't outlast the run.
    short = recipes.build_model(recipe.replace(epochs=2), (32, 32, 3), 8)
    assert short.momentum.steps == 16


def test_a_ramp_without_epochs_takes_the_whole_run():
    recipe = recipes.get("ijepa", "cpu").replace(epochs=20)
    model = recipes.build_model(recipe, (32, 32, 3), steps_per_epoch=8)
    assert model.momentum.steps == 160 and model.momentum.end == 1.0


def test_build_model_repeats_the_first_weights():
    recipe = recipes.get("simclr", "cpu")
    first, second, other = (
        recipes.build_model(r, (28, 28, 1), 10).encoder.get_weights()
        for r in (recipe, recipe, recipe.replace(seed=1))
    )
    assert all((a == b).all() for a, b in zip(first, second))
    assert any((a != b).any() for a, b in zip(first, other))


def test_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no method 'simclear'.*simclr"):
        recipes.get("simclear")
    with pytest.raises(ValueError, match="no recipe of simclr 'cifer'.*cifar"):
        recipes.get("simclr", "cifer")
    with pytest.raises(ValueError, match="no encoder 'resnet_18_smal'"):
        recipes.get("simclr").replace(encoder="resnet_18_smal")


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch_size": -1}, {"image_size": 0}, {"seed": -1}],
)
def test_numbers_are_refused_by_name(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"`{name}`"):
        recipes.get("simclr").replace(**changes)


@pytest.mark.parametrize(
    "size",
    ["half", {}, {"share": 0}, {"share": 1.5}, {"share": "half"}, {"part": 1}],
)
def test_other_sizes_of_views_are_refused(size):
    views = {"preset": "byol", "size": size}
    with pytest.raises(ValueError, match="`size` must be .* up to 1"):
        recipes.get("simclr").replace(views=views)


def test_milestones_and_a_warmup_are_refused():
    recipe = recipes.get("rotation", "cifar")
    assert recipe.schedule["milestones"]
    with pytest.raises(ValueError, match="no warmup.*warmup_epochs=5"):
        recipe.replace(schedule={**recipe.schedule, "warmup_epochs": 5})


def test_unknown_fields_are_refused():
    fields = {**recipes.get("simclr").to_dict(), "color": "red"}
    with pytest.raises(ValueError, match="color"):
        recipes.Recipe.from_dict(fields)


def test_the_rate_of_the_context_encoder_stays():
    recipe = recipes.get("context_encoder", "cifar").replace(
        encoder="resnet_nano"
    )
    model = recipes.build_model(recipe, (32, 32, 3), steps_per_epoch=2)
    for optimizer, peak in zip(model.optimizer.optimizers, (2e-4, 2e-3)):
        schedule = optimizer.get_config()["learning_rate"]["config"]
        rate = keras.optimizers.schedules.CosineDecay(**schedule)
        for step in (0, 500, 1000):
            assert float(rate(step)) == pytest.approx(peak)


def test_the_context_encoder_balances_its_losses_as_the_authors():
    arguments = recipes.get("context_encoder", "imagenet").method_args
    overlap, size = arguments["overlap"], 128
    mask = masks.make_masks("center", keras.ops.zeros((1, 0)), size, overlap)
    weights = keras.ops.convert_to_numpy(masks.hole_weights(mask, overlap))
    # What an error of one pixel in the hole counts: there, the mean is over the
    # pixels that are painted.
    here = arguments["reconstruction_weight"] / weights.sum()
    there = 0.999 / (size // 2) ** 2
    assert weights.max() == 10
    assert here == pytest.approx(there, rel=1e-3)
    assert arguments["adversarial_weight"] == pytest.approx(1 - 0.999)


@once
def test_decay_and_warmup_of_dinov2_belong_to_its_learning_rate():
    recipe = recipes.get("dinov2", "imagenet")
    # `vitl14.yaml`: 2e-4 at a batch of 1,024, 80 of 500 epochs of warmup.
    plan = recipe.resolve(1250)
    assert plan["learning_rate"] == pytest.approx(2e-4)
    assert plan["warmup_steps"] / plan["total_steps"] == pytest.approx(80 / 500)
    assert recipe.optimizer["weight_decay"] == {"cosine": [0.04, 0.2]}


@once
@pytest.mark.parametrize("method", ["lejepa", "visreg"])
def test_all_views_of_lejepa_have_dinos_colors(method):
    recipe = recipes.get(method, "imagenet").replace(encoder="resnet_nano")
    assert recipe.resolve(1000)["warmup_steps"] == 1000
    model = recipes.build_model(recipe, (224, 224, 3), steps_per_epoch=10)
    views = list(model.augmenter.views.values())
    assert [view.size for view in views] == [224] * 2 + [96] * 6
    areas = {view.size: view.crop_area for view in views}
    assert areas == {224: (0.3, 1.0), 96: (0.05, 0.3)}
    for view in views:
        assert (view.brightness, view.contrast) == (0.4, 0.4)
        assert (view.saturation, view.hue, view.jitter) == (0.2, 0.1, 0.8)
        assert (view.blur, view.solarize) == (0.5, 0.2)


@once
def test_the_rate_of_supcon_ends_as_the_authors():
    recipe = recipes.get("supcon", "cifar").replace(
        encoder="resnet_nano", epochs=10
    )
    model = recipes.build_model(recipe, (32, 32, 3), steps_per_epoch=2)
    schedule = model.optimizer.get_config()["learning_rate"]["config"]
    rate = keras.optimizers.schedules.CosineDecay(**schedule)
    peak = recipe.resolve(2)["learning_rate"]
    assert float(rate(20)) == pytest.approx(peak * 0.1**3)
