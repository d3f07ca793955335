"""The command that is printed makes the recipe that was trained."""

import shlex

import pytest

from kerassl import recipes
from kerassl.cli.main import main
from kerassl.recipes.command import pretrain_command


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


@pytest.mark.parametrize(
    "change", [{"method_args": {"mask_ratio": 0.5}}, {"name": "mine"}]
)
def test_a_recipe_changed_in_python_has_no_command(change):
    recipe = recipes.get("mae").replace(**change)
    assert pretrain_command(settings_of(recipe)) is None
