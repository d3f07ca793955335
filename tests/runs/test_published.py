"""What the preset of a run says of its weights, its teacher and labels."""

import json
import shlex

import numpy as np
import pytest

import kerassl
from kerassl import encoders, recipes, runs
from kerassl.cli.main import main
from kerassl.names import BEST, ENCODER, START
from kerassl.presets.privacy import private_text
from kerassl.recipes.command import pretrain_command
from kerassl.renamed import recipe_hash
from kerassl.run_folder import folder_of, read_settings
from kerassl.runs.weights import (
    describe_weights,
    is_public,
    public_source,
    public_weights,
)

ZOO = "simclr_resnet_nano_cifar10"
SIMCLR, SUPCON = recipes.get("simclr"), recipes.get("supcon")
GOING_ON = recipes.going_on(SIMCLR)
OWN = {
    "source": "/work/x/runs/a",
    "sha256": 64 * "0",
    "name": "resnet_nano",
    "license": "mit",
    "method": "supcon",
    "datasets": ["cifar10"],
}


@pytest.fixture(scope="module")
def encoder():
    return encoders.build("resnet_nano", (28, 28, 1))


@pytest.fixture
def make(encoder, tmp_path):
    """Writes what a run leaves, but for its checkpoint."""

    def make_run(name, recipe, data="fashion_mnist_small", **settings):
        folder = tmp_path / name
        folder.mkdir()
        encoder.save(folder / ENCODER)
        settings |= {
            "recipe": recipe.to_dict(),
            "recipe_hash": recipe.hash,
            "data": data,
            "limit": None,
            **runs.environment(),
        }
        (folder / "recipe.json").write_text(json.dumps(settings))
        return folder

    return make_run


def saved(run, folder, **options):
    """Returns a preset's info and card, without a private path in either."""
    runs.save_preset(run, folder, **options)
    for name in ("kerassl.json", "README.md"):
        assert private_text(name, (folder / name).read_bytes()) is None
    card = (folder / "README.md").read_text()
    return kerassl.verify_preset(folder), card


def test_names_of_data_follow_those_of_the_weights(make, tmp_path):
    run = make("run", GOING_ON, "folder:/data/photos", weights=OWN)
    info, card = saved(run, tmp_path / "a", datasets=["my photos"])
    assert info.datasets == ("cifar10", "my photos")
    assert "pretrained with simclr on cifar10, my photos" in card
    info, _ = saved(run, tmp_path / "b")
    assert info.datasets == ("cifar10", "own images")


def test_which_sources_are_public(encoder, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source, expected in (
        ("hf://ada/resnet@v1", True),
        ("hub:dinov2_small", True),
        ("dinov2_small", True),
        ("hub:hf://ada/vit", True),
        ("hub:kaggle://keras/vit/keras/vit_base", True),
        ("hub:/work/vit", False),
        ("hub:vits/base", False),
        ("hub:./vit", False),
        ("runs/a", False),
        ("mypreset", False),
        ("vit.keras", False),
        (ZOO, True),
    ):
        assert is_public(source) is expected, source
        # As older runs recorded them.
        weights = {"source": source, "name": "dinov2_backbone"}
        found = public_source(weights)
        assert found == (source if expected else None)
    released = describe_weights("dinov2_small", encoder)
    assert released["source"] == "dinov2_small" and released["is_public"]
    kerassl.save_preset(encoder, "mypreset")
    weights = describe_weights("mypreset", encoder)
    assert weights["name"] == weights["source"] and not weights["is_public"]
    assert public_weights(weights).startswith("mypreset (own weights), ")
    # A local folder comes before a preset of kerassl.
    zoo = kerassl.load_encoder(ZOO)
    before = describe_weights(ZOO, zoo)
    make(ZOO, SIMCLR)
    shadowed = describe_weights(ZOO, encoder)
    assert public_source(shadowed) is None
    assert public_weights(shadowed).startswith("resnet_nano (own weights)")
    assert public_source(before) == ZOO  # What was opened then.


@pytest.mark.every_backend
def test_a_teacher_of_my_own(make, tmp_path):
    teacher = make("teacher", SUPCON, "cifar10")
    recipe = recipes.get("distillation").change(
        epochs=1, batch_size=32, method_args={"teacher": str(teacher)}
    )
    run = runs.start(tmp_path / "run", recipe, "fashion_mnist_small", limit=64)
    run.train()
    known = run.settings["teacher"]
    assert (known["source"], known["method"]) == (str(teacher), "supcon")
    assert known["supervised"] is True
    info, card = saved(run.folder, tmp_path / "a")
    # The run's own recipe, except for the path.
    wanted = run.settings["recipe"]
    method_args = {**wanted["method_args"], "teacher": "TEACHER"}
    assert info.recipe == {**wanted, "method_args": method_args}
    assert info.recipe_hash == recipe_hash(info.recipe)
    assert info.datasets == ("cifar10", "fashion_mnist_small")
    words = shlex.split(info.training["command"])
    assert words[words.index("--set") + 1] == "method_args.teacher=TEACHER"
    row = "teacher: resnet_nano (own weights), trained with supcon, license "
    assert f"- {row}not known, sha256 {known['sha256'][:16]}" in card
    assert "cifar10, fashion_mnist_small.\n" in card  # Not: without labels.
    # A run that goes on from the student has the same history.
    found = describe_weights(run.folder, run.model.encoder)
    assert found["datasets"] == ["cifar10", "fashion_mnist_small"]
    assert found["supervised"] is True
    again = describe_weights(tmp_path / "a", run.model.encoder)
    assert again["supervised"] is True


def test_other_teachers(make, tmp_path):
    recipe = recipes.get("distillation").change(method_args={"teacher": ZOO})
    public = OWN | {"source": ZOO, "is_public": True, "supervised": False}
    run = make("a", recipe, teacher=public)
    info, card = saved(run, tmp_path / "preset_a")
    assert info.recipe["method_args"]["teacher"] == ZOO
    assert f"teacher: {ZOO}, trained with supcon, license mit" in card
    assert "fashion_mnist_small, without labels.\n" in card
    # An older run didn't record it.
    path = "/work/x/runs/a"
    older = recipe.change(method_args={"teacher": path})
    info, card = saved(make("b", older), tmp_path / "preset_b")
    assert info.recipe["method_args"]["teacher"] == "TEACHER"
    assert path not in card and "labels used: not known" in card
    # Nor is the folder of an encoder of KerasHub named.
    hub = SIMCLR.replace(encoder="hub:/work/x/vit")
    info, card = saved(make("c", hub), tmp_path / "preset_c")
    assert info.recipe["encoder"] == "hub:PATH" and "/work/x" not in card
    assert "fashion_mnist_small.\n" in card


@pytest.mark.parametrize(
    "recipe, weights, words",
    [
        (SIMCLR, None, ", without labels."),
        (SUPCON, None, ", with labels."),
        (GOING_ON, {"supervised": False}, ", without labels."),
        (GOING_ON, {"supervised": True}, "."),
        (GOING_ON, {}, "."),
        (recipes.going_on(SUPCON), {}, ", with labels."),
    ],
)
def test_labels(make, encoder, tmp_path, recipe, weights, words):
    settings = {} if weights is None else {"weights": OWN | weights}
    run = make("run", recipe, **settings)
    _, card = saved(run, tmp_path / "preset")
    assert f"fashion_mnist_small{words}\n" in card
    assert ("labels used" in card) is (weights is not None)
    # And so do runs that go on from it.
    expected = {", without labels.": False, ", with labels.": True}.get(words)
    if weights and weights["supervised"]:
        expected = True
    for source in (run, tmp_path / "preset"):
        found = describe_weights(source, encoder)
        assert found.get("supervised") is expected


def test_whether_others_used_labels_is_not_known(encoder, tmp_path):
    encoder.save(tmp_path / "other.keras")
    kerassl.save_preset(encoder, tmp_path / "preset")
    for source in (tmp_path / "other.keras", "hub:dinov2_small"):
        assert "supervised" not in describe_weights(source, encoder)
    # It has no recipe that tells.
    found = describe_weights(tmp_path / "preset", encoder)
    assert "supervised" not in found


def test_files_of_a_run(make, encoder):
    run = make("run", GOING_ON, weights=OWN | {"supervised": True})
    whole = describe_weights(run, encoder)
    assert whole["datasets"] == ["cifar10", "fashion_mnist_small"]
    for name in (BEST, START, "other.keras"):
        (run / name).write_bytes((run / ENCODER).read_bytes())
    for name in (ENCODER, BEST):
        found = describe_weights(run / name, encoder)
        assert found == whole | {"source": str(run / name)}
    found = describe_weights(run / START, encoder)
    assert found == OWN | {
        "source": str(run / START),
        "is_public": False,
        "sha256": whole["sha256"],
        "supervised": True,
    }
    assert "method" not in describe_weights(run / "other.keras", encoder)


def test_kept_checkpoints_are_of_the_run(make, encoder):
    recorded = {"low": [0.0], "high": [9.0]}
    run = make("run", GOING_ON, weights=OWN, value_range=recorded)
    path = run / "checkpoints" / "epoch_0002.keras"
    path.parent.mkdir()
    path.write_bytes((run / ENCODER).read_bytes())
    whole = describe_weights(run, encoder)
    assert whole["value_range"] == recorded and whole["license"] == "mit"
    found = describe_weights(path, encoder)
    assert found == whole | {"source": str(path)}
    assert folder_of(path.with_name("epoch_0003.keras")) is None


def test_weights_may_be_of_no_method(make, encoder, tmp_path):
    kerassl.save_preset(encoder, tmp_path / "preset")
    weights = describe_weights(tmp_path / "preset", encoder)
    assert weights["method"] is None
    run = make("run", GOING_ON, weights=weights, teacher=weights)
    assert read_settings(run)["weights"] == weights
    _, card = saved(run, tmp_path / "again")
    assert "(own weights), license" in card


def test_a_best_encoder_is_named(make, tmp_path, capsys):
    run = make("run", GOING_ON, weights=OWN)
    _, card = saved(run, tmp_path / "last")
    assert BEST not in card
    (run / BEST).write_bytes((run / ENCODER).read_bytes())
    _, card = saved(run, tmp_path / "best")
    assert BEST in card
    data = ["fashion_mnist_small", "--limit", "2", "--output"]
    for words in (
        ["presets", "save", str(run), str(tmp_path / "saved")],
        ["embed", str(run), *data, str(tmp_path / "features.npy")],
    ):
        assert main(words) == 0
        assert f"best encoder is taken, {BEST}" in capsys.readouterr().err


def test_a_range_stated_in_python(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "images.npy"
    np.save(path, rng.integers(0, 10_000, (64, 32, 32, 1)).astype("float32"))
    recipe = SIMCLR.replace(epochs=1, batch_size=32)
    run = runs.start(tmp_path / "a", recipe, str(path), value_range=(0, 10_000))
    command = pretrain_command(run.settings)
    assert " --range=0,10000" in command
    run.train()
    # Not that of the weights again.
    going_on = GOING_ON.replace(epochs=1, batch_size=32)
    for name in ("b", "c"):
        weights = tmp_path / "a" / ("" if name == "b" else ENCODER)
        run = runs.start(tmp_path / name, going_on, str(path), weights=weights)
        found = run.settings["value_range"]
        assert found == {"low": [0.0], "high": [10_000.0]}
        assert "--range" not in pretrain_command(run.settings)
