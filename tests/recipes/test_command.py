"""The command that is printed makes the recipe that was trained."""

import shlex

import pytest

from kerassl import recipes
from kerassl.cli.main import main
from kerassl.recipe_fields import parse_change
from kerassl.recipes.command import pretrain_command
from kerassl.value_range import parse_range


def settings_of(recipe, **more):
    return {
        "recipe": recipe.to_dict(),
        "data": "fashion_mnist_small",
        "limit": None,
        "backend": "torch",
        **more,
    }


def test_the_command_makes_the_same_recipe(monkeypatch):
    recipe = recipes.get("mae").replace(epochs=1, batch_size=32, seed=3)
    settings = settings_of(recipe, limit=64)
    line = pretrain_command(settings, "a run")
    assert line == (
        "KERAS_BACKEND=torch kerassl pretrain mae --recipe cpu --data "
        "fashion_mnist_small --epochs 1 --batch-size 32 --seed 3 --limit 64 "
        "--output 'a run'"
    )
    made = []

    def start(folder, recipe, data, **options):
        made.append((folder, recipe, data, options["limit"]))
        raise ValueError("seen")

    monkeypatch.setattr("kerassl.runs.start", start)
    assert main(shlex.split(line)[2:]) == 2
    assert made == [("a run", recipe, "fashion_mnist_small", 64)]


def test_devices_are_told():
    settings = settings_of(recipes.get("mae"), devices=2)
    assert pretrain_command(settings).endswith("mnist_small --devices 2")
    settings["devices"] = 1
    assert pretrain_command(settings).endswith("--data fashion_mnist_small")


@pytest.mark.parametrize("guard", ["off", "neighbors", "knn", None])
def test_another_guard_is_told(guard):
    settings = settings_of(recipes.get("simclr"), guard="off")
    assert "--guard" not in pretrain_command(settings)
    recipe, weights = recipes.going_on(recipes.get("simclr")), {"source": "a"}
    settings = settings_of(recipe, weights=weights)
    if guard is not None:  # A run of Python's records none.
        settings["guard"] = guard
    words = shlex.split(pretrain_command(settings))
    if guard in ("off", "knn"):
        assert words[-2:] == ["--guard", guard]
    else:
        assert "--guard" not in words


def test_a_changed_recipe_is_given_as_changes():
    recipe = recipes.get("mae").change(
        name="mine",
        epochs=3,
        method_args={"mask_ratio": 0.5},
        views={"preset": "simclr", "crop_area": [0.5, 1.0]},
    )
    line = pretrain_command(settings_of(recipe))
    words = shlex.split(line)
    given = [b for a, b in zip(words, words[1:]) if a == "--set"]
    assert "name=mine" in given and "method_args.mask_ratio=0.5" in given
    assert "views.preset=simclr" in given and "--epochs 3" in line
    again = recipes.get("mae", words[words.index("--recipe") + 1])
    changes = dict(map(parse_change, given))
    assert again.change(**changes, epochs=3) == recipe


def test_a_recipe_that_lacks_an_argument_has_no_command():
    recipe = recipes.get("mae").replace(method_args={"mask_ratio": 0.5})
    assert pretrain_command(settings_of(recipe)) is None


@pytest.mark.parametrize(
    "stated, words",
    [
        ((0, 10_000), "--range=0,10000"),
        ((-0.1, 1 / 3), "--range=-0.1,0.3333333333333333"),
        ((1e-7, 3e20), "--range=1e-07,3e+20"),
        (([0, 0], [5, 5]), "--range=0,5"),
        (([0, 0], [5, 6]), None),
    ],
)
def test_a_range_that_was_stated_in_python(stated, words):
    recorded = parse_range(stated).to_dict()
    settings = settings_of(recipes.get("mae"), value_range=recorded)
    line = pretrain_command(settings)
    if words is None:
        assert line is None
    else:
        assert line.endswith(f"--data fashion_mnist_small {words}")
        again = parse_range(words.removeprefix("--range="))
        assert again.low[0] == recorded["low"][0]
        assert again.high[0] == recorded["high"][0]
    # As it was typed, even if it was measured for each channel.
    settings["range"] = "1%,99%"
    assert pretrain_command(settings).endswith(" --range=1%,99%")


def test_the_range_of_the_weights_is_implied():
    recipe = recipes.going_on(recipes.get("simclr"))
    recorded = {"low": [0.0, 0.0], "high": [5.0, 6.0]}
    weights = {"source": "runs/a", "value_range": recorded}
    settings = settings_of(recipe, value_range=recorded, weights=weights)
    assert "--range" not in pretrain_command(settings)
    settings["value_range"] = {"low": [0.0], "high": [5.0]}
    assert "--range=0,5" in pretrain_command(settings)
