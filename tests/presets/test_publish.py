"""What a push makes public, and what it leaves alone."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml

import kerassl
from kerassl import encoders, recipes, runs
from kerassl.cli.main import main
from kerassl.presets import PresetError, privacy
from kerassl.presets.convert import SOURCES
from kerassl.presets.load import zoo
from tests.hub_server.card import LICENSES, problems
from tests.presets import make
from tests.presets.on_hub import NAME, URI, files, on_one_backend, titles

SECRETS = ("lovelace", "secret", "/home", "clinic")


def run_of(folder, data, scores=None):
    """A run's folder, of one's own images."""
    recipe = recipes.get("simclr").replace(epochs=1)
    folder.mkdir()
    encoders.build("resnet_nano", (16, 16, 3)).save(folder / "encoder.keras")
    settings = {
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "data": data,
        "limit": 500,
        "data_dir": "/home/lovelace/tfds",
        **runs.environment(),
    }
    (folder / "recipe.json").write_text(json.dumps(settings))
    (folder / "history.csv").write_text("epoch,loss,seconds\n1,3.0,1.5\n")
    if scores is not None:
        (folder / "scores.json").write_text(json.dumps(scores))
    return folder


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize(
    "data",
    [
        "/home/lovelace/secret",
        "../secret/clinic",
        "C:\\Users\\lovelace\\secret",
        "/home/lovelace/secret.npz",
        "secret.npy",
        "~lovelace/secret",
        "folder:secret",
        "folder:2020 and mnist",
        "secret:clinic",
    ],
)
def test_what_is_a_path(data):
    names = privacy.public_names(["cifar10", data, "tfds:a/b:1.0.0", data])
    assert names == {
        "cifar10": "cifar10",
        "tfds:a/b:1.0.0": "tfds:a/b:1.0.0",
        data: "own images",
    }
    assert privacy.public_spec(data) in ("folder:PATH", "PATH.npz", "PATH.npy")


@pytest.mark.parametrize(
    "data",
    [
        "folder:/home/lovelace/secret clinic/x-rays",
        "/home/lovelace/secret.npz",
    ],
)
def test_paths_of_a_run_stay_at_home(data, tmp_path):
    scores = {
        "knn": {"data": data, "accuracy": 0.5},
        f"knn, {data}2": {"data": f"{data}2", "accuracy": 0.25},
        "knn, tfds:mnist": {"data": "tfds:mnist", "accuracy": 0.75},
        f"knn, mnist and {data}": {
            "data": f"mnist and {data}",
            "accuracy": 0.5,
        },
        "knn, mnist and cifar10": {"data": "mnist and cifar10", "accuracy": 0},
    }
    run = run_of(tmp_path / "secret", data, scores)
    folder = runs.save_preset(run, tmp_path / "preset")
    for path in folder.iterdir():
        content = path.read_bytes().decode("latin-1")
        assert not [word for word in SECRETS if word in content], path.name
    info = kerassl.verify_preset(folder)
    assert info.datasets == ("own images",)
    assert {k: (v["data"], v["accuracy"]) for k, v in info.scores.items()} == {
        "knn": ("own images", 0.5),
        "knn, own images 2": ("own images 2", 0.25),
        "knn, tfds:mnist": ("tfds:mnist", 0.75),
        "knn, own images 3": ("own images 3", 0.5),
        "knn, mnist and cifar10": ("mnist and cifar10", 0),
    }
    assert "--data " in info.training["command"]
    card = (folder / "README.md").read_text()
    assert problems(card) == ([], [])
    fields = header(card)
    assert "license" not in fields and "datasets" not in fields
    assert info.license == "unknown"
    kinds = [
        result["dataset"]["type"]
        for result in fields["model-index"][0]["results"]
    ]
    own = "imagefolder"
    assert kinds == [own, own, "ylecun/mnist", own, own]


def test_a_folder_by_a_bare_name_stays_at_home(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "lovelace_clinic"
    photos.mkdir()
    for i in range(40):
        image.new("RGB", (16, 16), (i, 0, 0)).save(photos / f"{i}.png")
    recipe = recipes.get("simclr").replace(
        epochs=1, batch_size=32, encoder="resnet_nano"
    )
    run = runs.start(tmp_path / "run", recipe, photos.name)
    run_of(run.folder, photos.name)
    (run.folder / "recipe.json").write_text(json.dumps(run.settings))
    folder = runs.save_preset(run.folder, tmp_path / "preset")
    for path in folder.iterdir():
        assert b"lovelace" not in path.read_bytes(), path.name
    assert kerassl.verify_preset(folder).datasets == ("own images",)
    # The same words resume it.

    def resume(*arguments, **options):
        raise ValueError("that's far enough")

    monkeypatch.setattr(runs, "resume", resume)
    words = ["pretrain", "--resume", "--output", "run", "--data", photos.name]
    assert main(words) == 2
    assert "far enough" in capsys.readouterr().err


@pytest.mark.parametrize("datasets", ["ada/x-rays", ["ada/x-rays"]])
def test_a_name_for_own_images(tmp_path, datasets):
    data = "folder:/home/lovelace/secret"
    run = run_of(tmp_path / "run", data, {"knn": {"data": data}})
    folder = runs.save_preset(
        run, tmp_path / "a", datasets=datasets, license="cc-by-4.0"
    )
    info = kerassl.verify_preset(folder)
    assert info.datasets == ("ada/x-rays",)
    assert info.scores["knn"]["data"] == "ada/x-rays"
    fields = header((folder / "README.md").read_text())
    assert fields["datasets"] == ["ada/x-rays"]
    assert fields["license"] == "cc-by-4.0"


@pytest.mark.parametrize(
    "datasets, data", [(["mnist"], "mnist"), (["mnist", "cifar10"], "unknown")]
)
def test_scores_that_do_not_name_their_data(tmp_path, datasets, data):
    run = run_of(tmp_path / "run", "mnist")
    folder = runs.save_preset(
        run, tmp_path / "a", datasets=datasets, scores={"knn": {"accuracy": 1}}
    )
    fields = header((folder / "README.md").read_text())
    (result,) = fields["model-index"][0]["results"]
    assert result["dataset"]["name"] == data


@pytest.mark.parametrize(
    "data, hub_id",
    [
        ("cifar10", "uoft-cs/cifar10"),
        ("cifar10:3.0.2", "uoft-cs/cifar10"),
        ("tfds:mnist", "ylecun/mnist"),
        ("mnist:3.0.1", "ylecun/mnist"),
        ("tfds:mnist_corrupted/fog:1.0.0", "mnist_corrupted"),
        ("fashion_mnist_small", "fashion_mnist_small"),
        ("imagenet-1k", "ILSVRC/imagenet-1k"),
        ("ada/x-rays", "ada/x-rays"),
        ("own images", None),
        ("folder:photos", None),
        ("folder:2020", None),
        ("mnist:3.npz", None),
        ("a/b/c", None),
        ("", None),
    ],
)
def test_ids_of_data_sets(data, hub_id):
    assert privacy.hub_id(data) == hub_id
    if hub_id:
        card = f"---\ndatasets: [{hub_id}]\n---\n"
        assert problems(card) == ([], [])


@pytest.mark.parametrize(
    "text, found",
    [
        ("python train.py --data /home/ada/x", "/home/ada/x"),
        ("see 'C:\\Users\\ada' there", "C:\\Users\\ada"),
        ("--data folder:photos/cats", "folder:photos/cats"),
        ("--data folder:PATH", None),
        ("beside hub:/home/ada/x", "/home/ada/x"),
        ("https://example.org/home/ada/x", None),
        ("images of a home/garden", None),
        (str(Path.cwd() / "runs" / "a"), str(Path.cwd() / "runs" / "a")),
    ],
)
def test_local_paths(text, found):
    assert next(privacy.local_paths(text), None) == found


def test_the_cards_of_all_that_comes_with_kerassl():
    cards = sorted(zoo().glob("*/README.md"))
    assert cards
    for path in cards:
        assert problems(path.read_text()) == ([], [])
    assert {
        source.license for source in SOURCES.values() if not source.stated
    } <= LICENSES


@on_one_backend
@pytest.mark.parametrize(
    "file, fields",
    [
        ("kerassl.json", {"datasets": ["folder:/home/ada/x"]}),
        ("kerassl.json", {"training": {"a": ["python /home/ada/x.py"]}}),
        ("kerassl.json", {"scores": {"knn, /home/ada/x": {}}}),
        ("README.md", "Trained in /home/ada/x."),
    ],
)
def test_a_preset_with_a_path_is_not_sent(
    preset, server, client, tmp_path, file, fields
):
    folder = tmp_path / "a"
    shutil.copytree(preset, folder)
    if file == "README.md":
        (folder / file).write_text(fields)
    else:
        make.reseal(folder, **fields)
    kerassl.verify_preset(folder)
    with pytest.raises(PresetError, match=f"{file}.*/home/ada/x"):
        kerassl.upload_preset(URI, folder)
    assert not server.requests


@on_one_backend
def test_a_card_that_the_hub_refuses(preset, server, client, tmp_path):
    folder = tmp_path / "a"
    shutil.copytree(preset, folder)
    for text, reason in (
        ("---\nlicense: mine\n---\n", '"license" must be one of'),
        ("---\ndatasets: ['mnist:3.0.1']\n---\n", "is not valid"),
        ("---\n a: b: c\n---\n", "README.md"),
    ):
        (folder / "README.md").write_text(text)
        with pytest.raises(PresetError, match=reason) as error:
            kerassl.upload_preset(URI, folder)
        assert "\n" not in str(error.value)
    assert not server.repositories


@on_one_backend
def test_a_push_is_told_and_confirmed(preset, server, client, tmp_path):
    plans = []
    with pytest.raises(PresetError, match="Nothing was sent"):
        kerassl.upload_preset(
            URI, preset, private=True, confirm=lambda p: plans.append(p)
        )
    assert not server.repositories
    (plan,) = plans
    assert (plan.name, plan.revision) == (NAME, "main")
    assert plan.is_new and plan.is_private
    assert plan.files == {k: len(v) for k, v in files(preset).items()}
    assert plan.info == kerassl.verify_preset(preset)

    def confirm(plan):
        plans.append(plan)
        return True

    kerassl.upload_preset(URI, preset, confirm=confirm)
    kerassl.upload_preset(f"{URI}@next", preset, confirm=confirm)
    assert not plans[1].is_private and plans[1].is_new
    assert not plans[2].is_new and plans[2].revision == "next"
    assert not (plans[2].keeps_card or plans[2].replaces_card)


@on_one_backend
def test_the_address_comes_first(preset, server, client, tmp_path):
    with pytest.raises(ValueError, match=r"upload_preset\(uri, preset\)"):
        kerassl.upload_preset(preset, URI)
    run = run_of(tmp_path / "run", "folder:/home/ada/secret")
    with pytest.raises(PresetError, match="not a file of a preset"):
        kerassl.upload_preset(URI, run)
    with pytest.raises(TypeError, match=r"kerassl\.runs\.save_preset"):
        kerassl.save_preset(run, tmp_path / "a")
    assert not server.requests


@on_one_backend
def test_a_card_edited_on_the_hub_is_kept(
    preset, other_preset, server, client, tmp_path
):
    kerassl.upload_preset(URI, preset)
    mine = b"---\nlicense: mit\n---\n# Mine\n"
    huggingface_hub.HfApi().create_commit(
        NAME,
        [huggingface_hub.CommitOperationAdd("README.md", mine)],
        commit_message="Edit",
    )

    def card():
        return server.repositories[NAME].at("main").files["README.md"].read()

    for source in (other_preset, preset):  # twice: it stays a user's
        plans = []
        with pytest.warns(UserWarning, match="was kept"):
            upload = kerassl.upload_preset(URI, source)
        assert upload.kept_card and card() == mine
        kerassl.upload_preset(
            URI, source, confirm=lambda plan: plans.append(plan) or True
        )
        assert plans[0].keeps_card
        assert titles(server)[0] == "Upload a preset with kerassl"
    kerassl.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == {**files(preset), "README.md": mine}
    upload = kerassl.upload_preset(
        URI,
        preset,
        overwrite_card=True,
        confirm=lambda plan: plan.replaces_card and not plan.keeps_card,
    )
    assert not upload.kept_card
    assert card() == files(preset)["README.md"]


@on_one_backend
def test_a_card_edited_in_the_folder_is_pushed(
    preset, server, client, tmp_path, recwarn
):
    folder = tmp_path / "a"
    shutil.copytree(preset, folder)
    kerassl.upload_preset(URI, folder)
    for number in range(2):
        text = f"---\nlicense: mit\n---\n# Mine {number}\n"
        (folder / "README.md").write_text(text)
        before = files(folder)
        assert not kerassl.upload_preset(URI, folder).kept_card
        assert files(folder) == before
        there = server.repositories[NAME].at("main").files
        assert there["README.md"].read() == text.encode()
    (folder / "README.md").unlink()
    kerassl.upload_preset(URI, folder)
    assert "README.md" in server.repositories[NAME].at("main").files
    encoder = kerassl.load_encoder(URI)
    images = np.zeros((1, 16, 16, 3), "float32")
    assert encoder.predict(images, verbose=0).shape == (1, 128)
    assert not [w for w in recwarn.list if "kept" in str(w.message)]
