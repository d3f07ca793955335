"""One registration point: what is declared, and what follows from it."""

import dataclasses
import inspect

import pytest

import kerassl
from kerassl import methods, names, recipes, registry
from kerassl.recipes.recipe import method_class
from tests.backends import once
from tests.contracts.methods import METHODS

pytestmark = once

ENTRIES = registry.entries()
CLASSES = {
    name: value
    for name, value in vars(methods).items()
    if inspect.isclass(value) and name != "SelfSupervisedModel"
}


def test_every_class_has_recipes():
    """If this fails, add `kerassl/recipes/NAME.toml` with a [method] table."""
    assert set(CLASSES) == {entry.class_name for entry in ENTRIES.values()}


def test_every_method_is_in_the_contract():
    """If this fails, add a line to `tests/contracts/methods.py`."""
    assert set(METHODS) == set(ENTRIES)


def test_every_class_is_public():
    assert {*CLASSES, "SelfSupervisedModel"} == set(methods.__all__)
    assert set(methods.__all__) <= set(kerassl.__all__)
    assert sorted(set(kerassl.__all__)) == sorted(kerassl.__all__)
    for name in kerassl.__all__:
        assert hasattr(kerassl, name)


def test_a_class_that_is_missing_is_named():
    entry = dataclasses.replace(ENTRIES["simclr"], class_name="SimCLear")
    with pytest.raises(ValueError, match="names the class SimCLear"):
        method_class(entry)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_one_default(name):
    found = registry.entries_of(CLASSES[name])
    assert [entry.default for entry in found].count(True) == 1
    assert found[0].default


@pytest.mark.parametrize("name", ENTRIES)
def test_the_family_is_the_folder_and_the_paper_is_cited(name):
    entry = ENTRIES[name]
    cls = CLASSES[entry.class_name]
    assert cls.__module__.split(".")[2] == entry.family
    assert entry.url in cls.__doc__
    page = registry.RECIPES.parents[1] / "docs" / "methods" / f"{entry.page}.md"
    assert f"kerassl.{entry.class_name}" in page.read_text(encoding="utf-8")


def test_methods_are_ordered_by_family_and_year():
    order = [
        (registry.FAMILIES.index(entry.family), entry.year)
        for entry in ENTRIES.values()
    ]
    assert order == sorted(order)
    assert tuple(ENTRIES) == names.METHODS == tuple(recipes.methods())


@pytest.mark.parametrize(
    "table, message",
    [
        ("[cpu]\n", "no .method. table"),
        ("[method]\nfamily = 'contrastive'\n[cpu]", "class"),
        ("[method]\nclass = 'A'\ncolor = 1\n[cpu]", "color"),
        ("[method]\nfamily = 'x'", "class"),
    ],
)
def test_broken_tables_are_refused(table, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(table)
    with pytest.raises(ValueError, match=message):
        registry._read(path)
