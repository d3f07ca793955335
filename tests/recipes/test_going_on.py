"""Recipes that go on from trained weights."""

import keras
import numpy as np
import pytest

import kerassl
from kerassl import encoders, recipes

PRESET = "simclr_resnet_nano_cifar10"


def rates(model, step):
    """Returns the learning rates of the parts, and of the rest, at a step."""
    found = {}
    for optimizer in model.optimizer.optimizers:
        optimizer.iterations.assign(step)
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        part = optimizer.name.rpartition("_")[2]
        is_part = part.startswith(("stage", "projector"))
        found[part if is_part else ""] = rate
    return found


def built(method="simclr", steps=20, **changes):
    recipe = recipes.going_on(recipes.get(method)).change(
        epochs=5, batch_size=256, **changes
    )
    encoder = encoders.build("resnet_nano", (32, 32, 3))
    return recipes.build_model(recipe, (32, 32, 3), steps, encoder)


def test_heads_are_warmed_up_then_parts_decay():
    model = built(schedule={"warmup_epochs": 0})
    frozen, thawed = rates(model, 19), rates(model, 20)
    parts = ("stage1", "stage2", "stage3")
    assert set(frozen) == {"", *parts}
    assert [frozen[name] for name in parts] == [0, 0, 0]
    assert frozen[""] > 0.35
    # The peak is 0.4, and the last part has a tenth of it.
    for name, share in zip(parts, (0.75**2, 0.75, 1)):
        assert thawed[name] == pytest.approx(0.04 * share, rel=1e-5)


def test_a_short_run_is_frozen_for_a_fifth():
    recipe = recipes.going_on(recipes.get("simclr")).replace(epochs=2)
    assert recipe.resolve(50)["frozen_steps"] == {"encoder": 20}
    assert recipe.replace(epochs=10).resolve(50)["frozen_steps"] == {
        "encoder": 50
    }


def test_parts_have_rates_and_epochs_of_their_own():
    model = built(
        schedule={
            "warmup_epochs": 0,
            "shares": {"stage1": 0.0},
            "frozen_epochs": {"encoder": 0, "stage2": 2},
            "frozen_share": 1.0,
            "constant": ["projector"],
        }
    )
    for step, expected in ((0, (0, 0, 1)), (39, (0, 0, 1)), (40, (0, 1, 1))):
        found = rates(model, step)
        moves = [found[f"stage{i}"] > 0 for i in (1, 2, 3)]
        assert moves == [bool(x) for x in expected]
        assert found["projector"] == pytest.approx(0.4)


def test_byol_starts_its_target_from_the_weights():
    assert recipes.going_on(recipes.get("byol")).method_args["copy_weights"]
    assert (
        "copy_weights"
        not in recipes.going_on(recipes.get("simclr")).method_args
    )


def test_from_recipe_goes_on_from_weights():
    model = kerassl.SimCLR.from_recipe("cpu", weights=PRESET, steps=10)
    assert model.recipe.encoder == "weights"
    assert model.recipe.schedule["layer_decay"] < 1
    start = kerassl.load_encoder(PRESET)
    for a, b in zip(model.encoder.get_weights(), start.get_weights()):
        np.testing.assert_array_equal(a, b)
    resized = kerassl.BYOL.from_recipe(
        "cpu",
        weights=PRESET,
        image_shape=(48, 48, 3),
        steps=10,
        precision="mixed_bfloat16",
    )
    assert resized.encoder.input_shape == (None, 48, 48, 3)
    assert resized.encoder.layers[2].compute_dtype == "bfloat16"
    np.testing.assert_array_equal(
        resized.encoder.get_weights()[0], start.get_weights()[0]
    )
    for arguments, message in (
        ({"encoder": "resnet_nano"}, "either `weights` or `encoder`"),
        ({"image_shape": (32, 32, 1)}, "must be .height, width, 3."),
        ({"weights": "nowhere"}, "There is no encoder nowhere"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            kerassl.SimCLR.from_recipe(
                "cpu", **{"weights": PRESET, "steps": 10, **arguments}
            )


@pytest.mark.parametrize(
    "schedule, message",
    [
        ({"shares": {"stage9": 1}}, "no part of simclr 'stage9'.*stage1"),
        ({"frozen_epochs": {"encoder": -1}}, "frozen_epochs.encoder.*least 0"),
        ({"layer_decay": 2}, "layer_decay.*at most 1"),
    ],
)
def test_mistakes_are_named(schedule, message):
    with pytest.raises(ValueError, match=message):
        built(schedule=schedule)


def test_weights_must_be_given():
    recipe = recipes.going_on(recipes.get("simclr"))
    with pytest.raises(ValueError, match="goes on from trained weights"):
        recipes.build_model(recipe, (32, 32, 3), 5)
