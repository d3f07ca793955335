"""Fields of recipes: what can be changed, and how mistakes are answered."""

import dataclasses
import datetime
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kerassl import names, recipes
from kerassl.recipe_fields import (
    FIELDS,
    changed,
    check_recipe,
    find_recipe,
    list_changes,
    parse_change,
)
from kerassl.recipes.recipe import OPTIMIZERS, SCALINGS, VIEWS
from tests.backends import examples, once

pytestmark = once

NUMBERS = st.one_of(
    st.integers(-(2**31), 2**31),
    st.floats(allow_nan=False, allow_infinity=False),
)
WORDS = st.one_of(
    st.sampled_from(["true", "inf", "nan", "1", "a b", "a=b", "#", "'", '"']),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
)
VALUES = st.recursive(
    st.one_of(st.booleans(), NUMBERS, WORDS),
    lambda values: st.one_of(
        st.lists(values, max_size=3),
        st.dictionaries(WORDS, values, max_size=3),
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(["temperature", "momentum", "a", "b"])


def same(a, b):
    """Equal, and of the same types: 1, 1.0 and true differ."""
    return repr(a) == repr(b)


@settings(max_examples=examples(100))
@example({"temperature": [["A"]]}, True)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.booleans())
def test_listed_changes_make_the_wanted_recipe(values, is_added):
    fields = find_recipe("mae", "cpu")
    old = fields["method_args"] if is_added else {}
    wanted = {**fields, "method_args": {**old, **values}}
    words = list_changes(fields, wanted)
    if not is_added:
        assert words is None  # The other keys can't be removed.
        return
    if words is None:  # Only keys with characters of paths can't be given.
        assert any(isinstance(value, dict) for value in values.values())
        return
    result = fields
    for word in words:
        result = changed(result, dict([parse_change(word)]))
    assert result == wanted


@settings(max_examples=examples(100))
@given(st.sampled_from([*recipes.methods()]), st.data())
def test_any_recipe_can_be_made_of_any_other_or_none(method, data):
    first, second = (
        data.draw(st.sampled_from(recipes.names(method))) for _ in range(2)
    )
    fields, wanted = (find_recipe(method, name) for name in (first, second))
    words = list_changes(fields, wanted)
    if first == second:
        assert words == []
    elif words is not None:
        result = fields
        for word in words:
            result = changed(result, dict([parse_change(word)]))
        assert result == wanted


@pytest.mark.parametrize(
    "words, path, value",
    [
        ("epochs=3", "epochs", 3),
        ("optimizer.learning_rate=0.8", "optimizer.learning_rate", 0.8),
        ("views.crop_area=[0.2, 1.0]", "views.crop_area", [0.2, 1.0]),
        ("encoder=vit_nano", "encoder", "vit_nano"),
        ('encoder="vit_nano"', "encoder", "vit_nano"),
        ("method_args.a = { epochs = 1 }", "method_args.a", {"epochs": 1}),
        ("optimizer.nesterov=true", "optimizer.nesterov", True),
    ],
)
def test_values_are_tomls(words, path, value):
    found = parse_change(words)
    assert found[0] == path and same(found[1], value)


@pytest.mark.parametrize("words", ["epochs", "=3", "views.=1", "a.b=[1", "a="])
def test_other_forms_are_refused(words):
    with pytest.raises(ValueError, match="FIELD.KEY=VALUE|as in TOML"):
        parse_change(words)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimiser.learning_rate": 1}, "'optimiser'. Nearest: optimizer"),
        ({"epoch": 1}, "'epoch'. Nearest: epochs"),
        ({"epochs.first": 1}, "`epochs` is not a dict"),
        ({"schedule.warmup_epoch": 1}, "Nearest: warmup_epochs"),
        ({"method": "byol"}, "no field of recipes 'method'"),
    ],
)
def test_unknown_fields_are_refused_with_the_nearest(changes, message):
    with pytest.raises(ValueError, match=message):
        changed(find_recipe("simclr", "cpu"), changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimizer": {"learnin_rate": 1}}, "Nearest: learning_rate"),
        ({"views": {"blurr": 0}}, "views simclr 'blurr'. Nearest: blur"),
        ({"method_args": {"temprature": 1}}, "Nearest: temperature"),
        ({"encoder": "resnet_nan"}, "Nearest: resnet_nano"),
        ({"optimizer": {"name": "lars"}}, "lacks learning_rate"),
        ({"optimizer.name": "sdg"}, "`optimizer` lacks|Nearest: sgd"),
        ({"optimizer.learning_rate": "fast"}, "must be a number"),
        ({"optimizer.learning_rate": True}, "must be a number"),
        ({"schedule.scaling": "square"}, "no scaling 'square'"),
        ({"epochs": 0}, "`epochs`"),
        ({"epochs": True}, "`epochs`"),
        ({"seed": False}, "`seed`"),
        ({"image_size": True}, "`image_size`"),
        ({"name": 5}, "`name`"),
        ({"precision": False}, "no precision False"),
        ({"precision": ""}, "no precision"),
        # What `recipe.json` can't hold.
        ({"schedule.warmup_share": math.inf}, "finite numbers"),
        ({"method_args.temperature": math.nan}, "finite numbers"),
        ({"views.blur": datetime.date(2024, 1, 1)}, "finite numbers"),
    ],
)
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipes.get("simclr").change(**changes)


def test_dicts_are_merged():
    recipe = recipes.get("simclr")
    rate = {**recipe.optimizer, "learning_rate": 0.8}
    for changes in (
        {"optimizer": {"learning_rate": 0.8}},
        {"optimizer.learning_rate": 0.8},
    ):
        assert recipe.change(**changes) == recipe.replace(optimizer=rate)
    assert recipe.optimizer["learning_rate"] == 0.4
    deep = recipes.get("byol").change(**{"method_args.momentum": 0.9})
    assert deep.method_args["momentum"] == 0.9
    again = deep.change(method_args={"momentum": {"cosine_from": 0.5}})
    assert again.method_args["momentum"] == {"cosine_from": 0.5}


def test_another_optimizer_or_view_takes_no_arguments_over():
    recipe = recipes.get("simclr").change(
        **{
            "optimizer.learning_rate": 1e-3,
            "optimizer.name": "adamw",
            "views.preset": "byol",
        }
    )
    assert recipe.optimizer == {"name": "adamw", "learning_rate": 1e-3}
    assert recipe.views == {"preset": "byol"}


@pytest.mark.parametrize("is_first", [False, True])
def test_changes_hold_whatever_their_order(is_first):
    changes = {
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "optimizer.weight_decay": 0.1,
        "views": {"preset": "byol"},
        "views.size": 24,
    }
    if not is_first:
        changes = dict(reversed(changes.items()))
    recipe = recipes.get("simclr").change(**changes)
    assert recipe.optimizer == {
        "name": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
    }
    assert recipe.views == {"preset": "byol", "size": 24}


def test_files_of_recipes(tmp_path):
    fields = (
        'encoder = "resnet_nano"\nepochs = 2\nbatch_size = 8\n'
        "method_args = {}\n"
        'views = { preset = "simclr" }\n'
        'optimizer = { name = "sgd", learning_rate = 0.1 }\n'
        'schedule = { scaling = "none" }\n'
    )
    path = tmp_path / "my.toml"
    path.write_text(f'[method]\nclass = "SimCLR"\n[mine]\n{fields}')
    recipe = recipes.get("simclr", str(path))
    assert (recipe.name, recipe.epochs) == ("mine", 2)
    assert recipes.get("simclr", f"{path}:mine") == recipe
    with pytest.raises(ValueError, match="'min'. Nearest: mine"):
        recipes.get("simclr", f"{path}:min")
    path.write_text(f"[mine]\n{fields}[other]\n{fields}")
    with pytest.raises(ValueError, match="2 recipes.*All: mine, other"):
        recipes.get("simclr", str(path))
    assert recipes.get("simclr", f"{path}:other").name == "other"
    for own in ('method = "byol"', 'name = "theirs"'):
        path.write_text(f"[mine]\n{own}\n{fields}")
        with pytest.raises(ValueError, match="Leave it out"):
            recipes.get("simclr", str(path))
    path.write_text("[mine]\nepochs = 2\n")
    with pytest.raises(ValueError, match="lacks batch_size, encoder"):
        recipes.get("simclr", str(path))
    path.write_text(fields)
    with pytest.raises(ValueError, match="`encoder` must be in a table"):
        recipes.get("simclr", str(path))
    path.write_text("not TOML")
    with pytest.raises(ValueError, match="is not TOML"):
        recipes.get("simclr", str(path))
    with pytest.raises(FileNotFoundError):
        recipes.get("simclr", str(tmp_path / "none.toml"))


def test_names_without_keras_are_those_with_it():
    assert names.VIEWS == tuple(VIEWS)
    assert names.OPTIMIZERS == tuple(OPTIMIZERS)
    assert names.SCALINGS == tuple(SCALINGS)
    fields = {field.name for field in dataclasses.fields(recipes.Recipe)}
    assert {"method", *FIELDS} == fields
    for method in recipes.methods():
        for name in recipes.names(method):
            check_recipe(find_recipe(method, name))
