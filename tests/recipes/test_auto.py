"""The rules of `kerassl pretrain auto`."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerassl import auto, recipes
from kerassl.auto import PRESET, RELEASED, RULES, Facts
from kerassl.names import METHODS

GPU = dict(accelerator=True)


@pytest.mark.parametrize(
    "facts, given, method, weights, changes",
    [
        (Facts(50_000, 32), {}, "simclr", None, {}),
        (Facts(20_000, 32), {}, "simclr", None, {"epochs": 25}),
        (Facts(300, 500), {}, "simclr", PRESET, {"epochs": 3}),
        (Facts(300, 28, 1), {"epochs": 9}, "simclr", PRESET, {}),
        (Facts(300, 28, 1, photos=False), {}, "simclr", None, {"epochs": 100}),
        (Facts(300, 28), {"weights": "runs/a"}, "simclr", None, {}),
        (Facts(300, 28), {"weights": PRESET}, "simclr", None, {"epochs": 3}),
        (Facts(20_000, 32), {"recipe": "fast"}, "simclr", None, {}),
        (Facts(300, 28), {"recipe": "fast"}, "simclr", PRESET, {}),
        (Facts(300, 28), {"encoder": "vit_nano"}, "dino", None, None),
        (Facts(50_000, 32), {"batch_size": 64}, "fastsiam", None, {}),
        (
            Facts(49_999, 32),
            {"batch_size": 64},
            "fastsiam",
            None,
            {"epochs": 14},
        ),
        (
            Facts(25_000, 32),
            {"encoder": "vit_nano"},
            "dino",
            None,
            {"epochs": 28},
        ),
        (Facts(50_000, 32), {"batch_size": 256}, "simclr", None, {}),
        (Facts(9_000, 32, **GPU), {}, "simclr", None, {}),
        (Facts(9_000, 224, **GPU), {}, "swav", None, {}),
        (Facts(9_000, 224, released=True, **GPU), {}, "dinov2", RELEASED, {}),
        (
            Facts(9_000, 224, 4, released=True, photos=False, **GPU),
            {},
            "swav",
            None,
            {"views.preset": "any_channels"},
        ),
    ],
)
def test_what_is_chosen(facts, given, method, weights, changes):
    choice = recipes.choose(facts, given)
    assert (choice.method, choice.weights) == (method, weights)
    assert changes is None or choice.changes == changes
    assert not set(choice.changes) & set(given)
    # Each rule that had a say is a line, and the recipe takes the changes.
    assert choice.reasons and not any("\n" in x for x in choice.reasons)
    recipe = recipes.default(method, facts.image_size, facts.accelerator)
    recipe.change(**choice.changes)


def test_labels_are_told_and_not_used():
    plain = recipes.choose(Facts(50_000, 32))
    labeled = recipes.choose(Facts(50_000, 32, labels=True))
    assert labeled.changes == plain.changes
    assert set(labeled.reasons) - set(plain.reasons) == {labeled.reasons[-1]}
    assert "supcon" in labeled.reasons[-1]


def test_a_reason_claims_no_change_that_is_not_made():
    for given in ({}, {"recipe": "fast"}, {"epochs": 9}):
        choice = recipes.choose(Facts(300, 28), given)
        told = any("3 epochs" in reason for reason in choice.reasons)
        assert told == ("epochs" in choice.changes) == (not given)


def test_the_command_names_the_choice():
    words = "pretrain auto --data folder:a --epochs 9".split()
    choice = recipes.choose(Facts(50_000, 32, 5), {"epochs": 9})
    assert auto.command(words, 1, choice) == (
        "kerassl pretrain simclr --data folder:a --epochs 9 --set "
        "views.preset=any_channels"
    )
    choice = recipes.choose(Facts(300, 32))
    assert shlex.split(auto.command(words, 1, choice))[-4:] == [
        *("--from", PRESET),
        *("--epochs", "3"),
    ]


def test_every_rule_has_evidence_and_is_in_the_table():
    for rule in RULES:
        assert rule.evidence in auto.table()
        method = rule.gives(Facts(300, 32), {"method": "dino"}).get(
            "method", METHODS[0]
        )
        assert method in METHODS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.when[:30])
def test_pages_have_the_numbers_that_a_rule_takes_from_them(rule):
    docs = Path(__file__).parents[2] / "docs"
    # A page is linked after what it says.
    *claims, _ = re.split(r"\]\(", rule.evidence)
    pages = re.findall(r"\]\(([\w/]+\.md)", rule.evidence)
    for claim, page in zip(claims, pages, strict=True):
        text = (docs / page).read_text(encoding="utf-8")
        for number in re.findall(r"\d+\.\d", claim):
            assert number in text, (number, page)


def test_facts_of_photos_of_16_bits_and_of_arrays(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    deep = np.random.default_rng(0).integers(0, 9999, (70, 80), "uint16")
    for name in ("a", "b"):
        (tmp_path / "deep" / name).mkdir(parents=True)
        Image.fromarray(deep).save(tmp_path / "deep" / name / "0.png")
    found = recipes.facts(f"folder:{tmp_path / 'deep'}")
    assert found == Facts(2, 70, 1, photos=False, labels=True)
    (tmp_path / "cache/models/keras/dinov2/keras/dinov2_small").mkdir(
        parents=True
    )
    np.save(tmp_path / "x.npy", np.zeros((5, 33, 40, 3), "uint8"))
    found = recipes.facts(str(tmp_path / "x.npy"), limit=4)
    assert found == Facts(4, 33, 3, released=True)
