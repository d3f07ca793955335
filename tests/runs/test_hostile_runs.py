"""Broken files in a run's folder: one line tells of them, no traceback."""

import contextlib
import io
import json
import re
import shutil
import zipfile

import keras
import pytest

from kerassl import presets, recipes, runs
from kerassl.cli.main import main
from kerassl.renamed import recipe_hash
from kerassl.run_folder import read_scores, read_settings
from kerassl.runs.checkpoint import MEMBER

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="No backend computes here"
)

EVIL = "\x1b]0;evil\x07\u202e\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    recipe = recipes.get("rotation", "cpu").replace(
        encoder="resnet_nano", epochs=1, batch_size=16
    )
    run = runs.start(folder, recipe, "fashion_mnist_small", limit=16)
    run.train()
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def refused(*arguments):
    """Returns the one line that a command tells."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        assert main([str(a) for a in arguments]) == 2
    (line,) = errors.getvalue().splitlines()
    assert line.isprintable() and len(line) < 2500
    assert output.getvalue() == ""
    return line


def test_without_a_change_nothing_is_refused(folder, tmp_path, capsys):
    assert main(["pretrain", "--resume", "--output", str(folder)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert main(["report", str(folder), "--images", "20"]) == 0
    runs.save_preset(folder, tmp_path / "preset")
    presets.verify_preset(tmp_path / "preset")


def set_field(folder, name, value, seal=False):
    path = folder / "recipe.json"
    settings = json.loads(path.read_text())
    *parts, last = name.split(".")
    fields = settings
    for part in parts:
        fields = fields[part]
    fields[last] = value
    if seal:
        settings["recipe_hash"] = recipe_hash(settings["recipe"])
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "name, value",
    [
        ("backend", EVIL),
        ("backend", ["torch"]),
        ("data", 5),
        ("data_dir", {}),
        ("data_notes", 5),
        ("data_notes", [5]),
        ("device", EVIL * 1000),
        ("guard", EVIL),
        ("monitor", "knn"),
        ("keep", -1),
        ("devices", "x"),
        ("images", "x"),
        ("limit", "x"),
        ("max_unreadable", []),
        ("versions", 3),
        ("extended", 3),
        ("recipe_hash", 3),
        ("recipe", []),
        ("recipe", {EVIL: 1}),
        ("recipe.batch_size", None),
        ("recipe.encoder", {}),
        ("recipe.epochs", "x"),
        ("recipe.method", [EVIL]),
        ("recipe.method_args", 3),
        ("recipe.optimizer", "x"),
        ("recipe.optimizer", {"name": "sgd"}),
        ("recipe.optimizer", {"name": "sgd", "learning_rate": "x"}),
        ("recipe.schedule", {"scaling": ["linear"]}),
        ("recipe.schedule", {"scaling": "linear", "warmup_epochs": "x"}),
        ("recipe.schedule", {"scaling": "linear", "shares": [1]}),
        ("recipe.seed", "x"),
        ("recipe.views", ["preset"]),
        ("recipe.views", {"preset": {}}),
        ("recipe.name", "x"),  # Another hash.
    ],
)
def test_fields_of_the_recipe(folder, tmp_path, name, value):
    set_field(folder, name, value)
    words = rf"recipe\.json|{name.removeprefix('recipe.')}"
    line = refused("pretrain", "--resume", "--output", folder)
    assert re.search(words, line)
    if name != "recipe.name":
        assert re.search(words, refused("report", folder))
        with pytest.raises(ValueError, match=words):
            runs.save_preset(folder, tmp_path / "preset")


@pytest.mark.parametrize(
    "name, value",
    [
        ("recipe.method_args", {"evil": 1}),
        ("recipe.views", {"preset": "crop_flip", "evil": 1}),
        ("recipe.optimizer", {"name": "sgd", "learning_rate": 1, "evil": 1}),
        (
            "recipe.optimizer",
            {
                "name": "sgd",
                "learning_rate": 1,
                "gradient_accumulation_steps": "x",
            },
        ),
    ],
)
def test_arguments_of_the_recipe(folder, name, value):
    """Those that only the classes know, in a run that begins again."""
    (folder / "checkpoint.keras").unlink()
    set_field(folder, name, value, seal=True)
    line = refused("pretrain", "--resume", "--output", folder)
    assert name.removeprefix("recipe.") in line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "3",
        "[" * 420 + "]" * 420,
        '{"recipe": ' + "9" * 400 + "}",
        '{"recipe": NaN}',
        '{"data": "x", "data": "y"}',
        '{"data": "' + "x" * 200_000 + '"}',
        "[0, " * 300_000,
        "\x00\xff",
    ],
)
@pytest.mark.parametrize("name", ["recipe.json", "scores.json"])
def test_json(folder, name, text):
    (folder / name).write_bytes(text.encode("latin-1"))
    assert name in refused("report", folder)


@pytest.mark.parametrize(
    "scores",
    [
        {"knn": 3},
        {"knn": {"accuracy": "x"}},
        {"knn": {"accuracy": 0.5, "untrained_accuracy": []}},
        {"knn": {"accuracy": 0.5, "stages": []}},
        {"knn": {"accuracy": 0.5, "stages": {EVIL: EVIL}}},
        {"knn": {"accuracy": 0.5, "settings": [1]}},
        {EVIL: {"accuracy": EVIL}},
    ],
)
def test_scores(folder, tmp_path, scores):
    (folder / "scores.json").write_text(json.dumps(scores))
    assert "scores.json" in refused("report", folder)
    with pytest.raises(ValueError, match="scores.json"):
        runs.save_preset(folder, tmp_path / "preset")


def test_scores_may_have_nan(folder):
    text = '{"knn": {"accuracy": 0.5, "effective_rank": NaN}}'
    (folder / "scores.json").write_text(text)
    assert read_scores(folder)["knn"]["accuracy"] == 0.5


def test_older_runs_have_fewer_settings(folder):
    path = folder / "recipe.json"
    settings = json.loads(path.read_text())
    for name in ("max_unreadable", "limit", "data_dir", "images_hash"):
        settings.pop(name, None)
    path.write_text(json.dumps(settings))
    found = read_settings(folder)
    assert found["max_unreadable"] == 0.01
    assert found["limit"] is found["data_dir"] is None


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings.pop("recipe_hash"),
        lambda settings: settings["recipe"].pop("method"),
        lambda settings: settings["recipe"].pop("name"),
        lambda settings: settings.update(weights={}),
        lambda settings: settings.update(teacher={"source": 1}),
        lambda settings: settings.update(
            weights=dict(source="a", name="a", sha256=64 * "0", datasets=5)
        ),
    ],
)
def test_settings_that_readers_need(folder, change):
    path = folder / "recipe.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="recipe.json"):
        read_settings(folder)


@pytest.mark.parametrize(
    "text",
    [
        "epoch,seconds\n1,nan\n",
        "epoch,seconds\n1,-5\n",
        "epoch,seconds\n1,x\n",
        "epoch,loss\ninf,1\n",
        "loss\n1\n",
        "epoch,loss\n1,2,3\n",
        "epoch,loss\n1,\x1b\n",
        'epoch,"',
        "\x00\n1\n",
    ],
)
def test_history(folder, tmp_path, text):
    (folder / "history.csv").write_text(text)
    assert "history.csv" in refused("report", folder)
    with pytest.raises(ValueError, match="history.csv"):
        runs.save_preset(folder, tmp_path / "preset")


def test_code_in_a_keras_file(folder, tmp_path):
    """A Lambda isn't run; one line says what it is."""
    images = keras.Input((28, 28, 1))
    x = keras.layers.Lambda(lambda x: x * 2, name="evil")(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(images, x).save(folder / "encoder.keras")
    data = ("--data", "fashion_mnist_small")
    assert "Lambda" in refused("evaluate", folder, *data)
    assert "Lambda" in refused("report", folder)
    with pytest.raises(ValueError, match="Lambda"):
        runs.save_preset(folder, tmp_path / "preset")


@pytest.mark.parametrize("kind", ["bytes", "empty", "class"])
def test_broken_keras_files(folder, kind):
    path = folder / "encoder.keras"
    if kind == "bytes":
        path.write_bytes(b"PK\x03\x04" + bytes(1000))
    elif kind == "empty":
        zipfile.ZipFile(path, "w").close()
    else:
        change_member(
            path, "config.json", lambda t: t.replace("Conv2D", "Evil")
        )
    assert "encoder.keras" in refused("report", folder)


def change_member(path, name, change):
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    members[name] = change(members[name].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)


@pytest.mark.parametrize(
    "position",
    [
        [],
        {"epoch": "x"},
        {"epoch": -1},
        {"seconds": None},
        {"history": 3},
        {"history": [3]},
        {"metrics": ["x"]},
        {EVIL: 1},
    ],
)
def test_positions(folder, position):
    path = folder / "checkpoint.keras"
    change_member(path, MEMBER, lambda text: json.dumps(position))
    line = refused("pretrain", "--resume", "--output", folder)
    assert "checkpoint.keras" in line


def test_a_checkpoint_of_another_model(folder):
    path = folder / "checkpoint.keras"
    with zipfile.ZipFile(path) as archive:
        position = archive.read(MEMBER)
    shutil.copy(folder / "encoder.keras", path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, position)
    line = refused("pretrain", "--resume", "--output", folder)
    assert "not a checkpoint" in line
