"""`kerassl presets`, on a Hub of the test's own."""

import contextlib
import importlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import huggingface_hub
import keras
import pytest

import kerassl
from kerassl import encoders
from kerassl.cli.main import main
from kerassl.presets import load, save_preset
from kerassl.presets.checkpoints import SOURCES
from kerassl.presets.load import open_source
from tests.hub_server import HubServer
from tests.hub_server.client import connect

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="No backend computes here"
)

URI = "hf://alice/encoder"
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of a run and of a preset."""
    folder = tmp_path_factory.mktemp("presets")
    arguments = (
        "pretrain simclr --data fashion_mnist_small --encoder resnet_nano "
        "--limit 32 --epochs 1 --batch-size 32 --output"
    ).split()
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*arguments, str(folder / "run")]) == 0
    save_preset(
        encoders.build("resnet_nano", image_shape=(28, 28, 1)),
        folder / "preset",
        datasets=["images \x1b[31m of mine"],
        scores={"knn": {"accuracy": 0.75}},
        training={"license": "mit", "parameters": 1, "name": "another"},
    )
    return folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with HubServer() as server:
        connect(monkeypatch, server, tmp_path / "cache")
        yield server


def printed(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    """Returns the one line that tells an error."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line


def test_a_run_goes_to_the_hub_and_comes_back(hub, folders, tmp_path, capsys):
    run = folders / "run"
    before = {path: path.read_bytes() for path in run.iterdir()}
    text = printed(
        capsys, "presets", "push", run, URI, *"--private --yes --json".split()
    )
    upload = json.loads(text)
    repository = hub.repositories["alice/encoder"]
    sha = repository.at("main").sha
    assert repository.private
    assert len(repository.history("main")) == 2
    assert upload == {
        "uri": f"{URI}@{sha}",
        "url": f"{hub.url}/alice/encoder/commit/{sha}",
        "kept_card": False,
    }
    assert {path: path.read_bytes() for path in run.iterdir()} == before

    pulled = tmp_path / "pulled"
    text = printed(capsys, "presets", "pull", upload["uri"], pulled)
    assert text == f"{pulled}: verified\n"
    for source in (URI, pulled):
        text = printed(capsys, "presets", "verify", source)
        assert text == (
            f"{source}: verified; resnet_nano, images 28 x 28 x 1, 128 "
            "features\n"
        )
    info = json.loads(printed(capsys, "presets", "show", URI, "--json"))
    assert info["name"] == "encoder" and info["method"] == "simclr"
    evaluate = "--data fashion_mnist_small --train-limit 64 --test-limit 32"
    arguments = ["evaluate", URI, *evaluate.split(), "--json"]
    last = printed(capsys, *arguments).splitlines()[-1]
    assert 0 <= json.loads(last)["knn"]["accuracy"] <= 1
    assert "exists already" in refused(capsys, "presets", "pull", URI, pulled)


def test_a_preset_goes_to_the_hub_once(hub, folders, capsys):
    push = ("presets", "push", "--yes")
    first = printed(capsys, *push, folders / "preset", URI, "--message", "One")
    second = printed(capsys, *push, folders / "preset", URI)
    assert first == second
    history = hub.repositories["alice/encoder"].history("main")
    assert [commit.title for commit in history] == ["One", "initial commit"]


def test_show(folders, capsys):
    shown = printed(capsys, "presets", "show", folders / "preset")
    rows = dict(
        re.split("  +", line, maxsplit=1) for line in shown.splitlines()
    )
    assert rows["knn accuracy"] == "0.7500"
    assert rows["license"] == "none"
    assert rows["training: license"] == "mit"
    assert rows["name"] == "preset"
    assert int(rows["parameters"].replace(",", "")) > 100_000
    assert rows["trained on"] == r"images \x1b[31m of mine"


def test_list(capsys):
    shown = printed(capsys, "presets", "list")
    found = json.loads(printed(capsys, "presets", "list", "--json"))
    assert found == [info.to_dict() for info in kerassl.list_presets()]
    header, *lines = (line.split() for line in shown.splitlines())
    assert " ".join(header) == (
        "name knn linear linear_1% trained on license size encoder"
    )
    assert len(lines) == len(found) > 0
    for info, line in zip(found, lines):
        scores = [info["scores"][p]["accuracy"] for p in ("knn", "linear")]
        assert line[:3] == [info["name"], *(f"{s:.4f}" for s in scores)]
        assert line[4:6] == ["cifar10", "apache-2.0"]
        assert 0.5 < float(line[6]) < 30 and line[7] == "MB"


def test_the_zoo_is_published_and_resumed(hub, capsys, monkeypatch):
    zoo = kerassl.list_presets()[:2]
    monkeypatch.setattr(kerassl.presets, "list_presets", lambda: zoo)
    command = ("presets", "publish-zoo", "hf://alice", "--yes")
    upload = kerassl.presets.upload_preset

    def interrupted(uri, *args, **kwargs):
        if uri.endswith(zoo[1].name):
            raise kerassl.presets.HubError("The line is dead.")
        return upload(uri, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kerassl.presets, "upload_preset", interrupted)
        assert main([*command]) == 2
        *plan, error = capsys.readouterr().err.splitlines()
        assert "The line is dead" in error
        assert [line.split()[0] for line in plan[1:]] == [x.name for x in zoo]
    assert list(hub.repositories) == [f"alice/{zoo[0].name}"]
    first = hub.repositories[f"alice/{zoo[0].name}"].at("main").sha
    lines = printed(capsys, *command).splitlines()
    sent = {entry["name"]: entry["uri"] for entry in map(json.loads, lines)}
    assert list(sent) == [info.name for info in zoo]
    # What was there already made no other commit.
    assert sent[zoo[0].name] == f"hf://alice/{zoo[0].name}@{first}"
    for name, uri in sent.items():
        found = open_source(uri).info
        assert found == open_source(name).info


def test_presets_move_to_the_hub(hub, capsys, monkeypatch, tmp_path):
    first, second = kerassl.list_presets()[:2]
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    for name in ("index.json", first.name, second.name):
        (shutil.copy if "." in name else shutil.copytree)(
            load.zoo() / name, zoo / name
        )
    monkeypatch.setattr(load, "zoo", lambda: zoo)
    monkeypatch.setattr(load, "_index", load._index.__wrapped__)
    monkeypatch.setattr(kerassl.presets, "list_presets", lambda: [first])
    lines = printed(capsys, "presets", "publish-zoo", "hf://alice", "--yes")
    published = tmp_path / "published.jsonl"
    published.write_text(lines, encoding="utf-8")
    monkeypatch.syspath_prepend(SCRIPTS)
    script = importlib.import_module("move_presets")
    monkeypatch.setattr(script, "PRESETS", zoo)
    command = ["move_presets.py", str(published), first.name]
    monkeypatch.setattr(sys, "argv", [*command, second.name])
    with pytest.raises(SystemExit):
        script.main()
    assert f"has no {second.name}" in capsys.readouterr().err
    assert (zoo / first.name).exists()
    monkeypatch.setattr(sys, "argv", command)
    assert script.main() == 0
    assert not (zoo / first.name).exists() and (zoo / second.name).exists()
    assert open_source(first.name).info == first
    sha = hub.repositories[f"alice/{first.name}"].at("main").sha
    source = f"hf://alice/{first.name}"
    entry = load._index()[first.name]
    assert (entry["source"], entry["revision"]) == (source, sha)
    # From there, where the cache holds links, it is published again.
    again = printed(capsys, "presets", "publish-zoo", "hf://alice", "--yes")
    assert again == lines


@pytest.mark.parametrize("owner", ["hf://alice/encoder", "hf://"])
def test_the_zoo_goes_to_an_owner(capsys, owner):
    found = refused(capsys, "presets", "publish-zoo", owner, "--yes")
    assert "takes an owner" in found and owner in found


def test_publishing_the_zoo_asks(hub, capsys):
    found = refused(capsys, "presets", "publish-zoo", "hf://alice")
    assert "--yes" in found and not hub.requests


def test_a_folder_is_not_taken_for_the_zoo(hub, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = kerassl.list_presets()[1].name
    (tmp_path / name).mkdir()
    found = refused(capsys, "presets", "publish-zoo", "hf://alice", "--yes")
    assert f"{name} in the working directory" in found and not hub.requests


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self):
        return True


def test_a_push_asks(hub, folders, tmp_path, capsys, monkeypatch):
    preset, run = folders / "preset", folders / "run"
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "--yes" in refused(capsys, "presets", "push", preset, URI)
    for answer in ("", "\n", "n\n", "no\n"):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert main(["presets", "push", str(preset), URI]) == 2
        assert "Nothing was sent" in capsys.readouterr().err
    assert not hub.repositories
    size = (preset / "model.weights.h5").stat().st_size
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["presets", "push", str(preset), URI]) == 0
    asked = capsys.readouterr().err
    for text in (
        "hf://alice/encoder, branch main (new; everybody can see it)",
        f"{size:,} bytes",
        "none: others may look at it, but not use it",
        "images \\x1b[31m of mine",
        "Publish? [y/N]",
    ):
        assert text in asked
    assert "\x1b" not in asked
    words = "--license mit --data-name flowers --yes".split()
    assert main(["presets", "push", str(run), URI, *words]) == 0
    asked = capsys.readouterr().err
    assert "there already" in asked and "Publish?" not in asked
    info = json.loads(printed(capsys, "presets", "show", URI, "--json"))
    assert (info["license"], info["datasets"]) == ("mit", ["flowers"])


def test_a_push_tells_of_an_edited_card(hub, folders, capsys):
    push = ["presets", "push", str(folders / "preset"), URI, "--yes"]
    assert main(push) == 0
    huggingface_hub.HfApi().create_commit(
        "alice/encoder",
        [huggingface_hub.CommitOperationAdd("README.md", b"# Mine")],
        commit_message="Edit",
    )
    capsys.readouterr()
    assert main(push) == 0
    captured = capsys.readouterr()
    assert "README.md: kept the one that was edited" in captured.out
    assert "--overwrite-card" in captured.err
    assert main([*push, "--overwrite-card"]) == 0
    assert "is overwritten" in capsys.readouterr().err


def test_refusals_are_one_line(hub, folders, tmp_path, capsys):
    assert "no alice/encoder on the Hub" in refused(
        capsys, "presets", "show", URI
    )
    assert "kerassl.json" in refused(
        capsys, "presets", "verify", folders / "run"
    )
    assert "hf://owner/name" in refused(
        capsys, "presets", "push", "--yes", folders / "preset", "alice/encoder"
    )
    assert not hub.repositories
    changed = tmp_path / "changed"
    printed(capsys, "presets", "push", "--yes", folders / "preset", URI)
    hub.flip_bit("alice/encoder", "config.json")
    assert "config.json" in refused(capsys, "presets", "pull", URI, changed)
    assert not changed.exists()


def test_license_and_data_are_for_runs(hub, folders, capsys):
    for option in ("--license mit", "--data-name flowers"):
        push = ["presets", "push", "--yes", folders / "preset", URI]
        assert "are for runs" in refused(capsys, *push, *option.split())
    assert not hub.repositories


def test_a_run_without_an_epoch_is_a_run(hub, folders, tmp_path, capsys):
    shutil.copy(folders / "run" / "recipe.json", tmp_path)
    push = ["presets", "push", "--yes", tmp_path, URI, "--license", "mit"]
    assert "no epoch is finished" in refused(capsys, *push)
    assert not hub.repositories


def test_sources(capsys):
    printed_sources = printed(capsys, "presets", "sources")
    found = json.loads(printed(capsys, "presets", "sources", "--json"))
    assert set(found) == set(SOURCES)
    for name, source in SOURCES.items():
        # Those of a layout get theirs from the command line.
        assert found[name]["license"] == (source.license or "given")
        assert f"\n{name} " in printed_sources
        assert source.url in printed_sources


def test_convert(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    from tests.presets.torch_models import ViT

    file, folder = tmp_path / "dino.pth", tmp_path / "preset"
    torch.save(ViT().state_dict(), file)
    convert = ("presets", "convert", "dino_vit", file, folder)
    assert "num_heads" in refused(capsys, *convert)
    assert not folder.exists()
    words = (*convert, "--num-heads", 3, "--name", "dino")
    assert printed(capsys, *words) == f"{folder}\n"
    info = kerassl.verify_preset(folder)
    assert (info.name, info.license) == ("dino", "apache-2.0")
    assert "exists already" in refused(capsys, *words)
    assert printed(capsys, *words, "--overwrite") == f"{folder}\n"
    assert "Nearest: dino_vit" in refused(
        capsys, "presets", "convert", "dino", file, tmp_path / "other"
    )
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install torch" in refused(capsys, *words, "--overwrite")
