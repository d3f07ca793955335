"""Presets on a Hub of the test's own, through everything that goes wrong."""

import contextlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest

from kerassl import encoders, presets
from kerassl.presets import PresetError, download, hub_calls
from tests.backends import more
from tests.hub_server import Fault, HubServer
from tests.hub_server.client import connect, variables
from tests.presets.on_hub import (
    LARGE,
    NAME,
    URI,
    both,
    files,
    on_one_backend,
    refused,
    titles,
)

pytestmark = on_one_backend


@both
def test_first_and_second_push(preset, server, client, tmp_path, capfd):
    first = presets.upload_preset(URI, preset)
    assert titles(server) == ["Upload a preset with kerassl", "initial commit"]
    head = server.repositories[NAME].at("main")
    assert first.uri == f"{URI}@{head.sha}"
    assert first.url == f"{server.url}/{NAME}/commit/{head.sha}"
    assert presets.upload_preset(URI, preset) == first
    assert server.repositories[NAME].at("main") is head
    assert capfd.readouterr().out == ""
    folder = tmp_path / "new" / "a"
    assert presets.download_preset(URI, folder) == folder
    assert files(folder) == files(preset)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
    assert not any(path.is_symlink() for path in tmp_path.glob("new/a/*"))


def test_a_push_takes_the_place_of_an_older_preset(
    preset, server, client, tmp_path
):
    api = huggingface_hub.HfApi()
    api.create_repo(NAME)
    add = huggingface_hub.CommitOperationAdd
    left = "image_converter.json"
    api.create_commit(
        NAME,
        [add(left, b"{}"), add("notes.txt", b"mine")],
        commit_message="Older",
    )
    smaller = tmp_path / "smaller"
    shutil.copytree(preset, smaller)
    presets.upload_preset(URI, smaller, commit_message="Newer")
    assert titles(server) == ["Newer", "Older", "initial commit"]
    there = set(server.repositories[NAME].at("main").files)
    assert there == {*files(smaller), "notes.txt", ".gitattributes"}
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == files(smaller)


@both
def test_a_private_preset(preset, server, client, tmp_path):
    presets.upload_preset(URI, preset, private=True)
    assert server.repositories[NAME].private
    presets.upload_preset(URI, preset)  # it stays what it is
    assert server.repositories[NAME].private
    presets.download_preset(URI, tmp_path / "a")
    client("other", token=None)
    assert "is private and needs a token" in refused(URI, tmp_path / "b")
    client("other", token="hf_bob")
    assert "is private and the token" in refused(URI, tmp_path / "b")


def test_a_public_repository_stays_without_a_private_preset(
    preset, server, client
):
    huggingface_hub.HfApi().create_repo(NAME)
    with pytest.raises(presets.HubError, match="is public"):
        presets.upload_preset(URI, preset, private=True)
    assert titles(server) == ["initial commit"]


@pytest.mark.parametrize(
    "token, reason",
    [
        ("hf_unknown", "doesn't accept the token"),
        ("hf_alice_reads", "write access"),
        ("hf_bob", "write access"),
        (None, "requires a token"),
    ],
)
def test_tokens_that_may_not_push(preset, server, client, token, reason):
    client(token=token)
    with pytest.raises(presets.HubError, match=reason):
        presets.upload_preset(URI, preset)
    assert not server.repositories
    client()
    huggingface_hub.HfApi().create_repo(NAME)
    client(token=token)
    with pytest.raises(presets.HubError, match=reason):
        presets.upload_preset(URI, preset)
    assert titles(server) == ["initial commit"]


def test_what_is_not_there(preset, server, client, tmp_path):
    folder = tmp_path / "a"
    assert "no alice/encoder on the Hub" in refused(URI, folder)
    huggingface_hub.HfApi().create_repo(NAME)
    assert "kerassl.json" in refused(URI, folder)
    assert "no revision v1" in refused(f"{URI}@v1", folder)
    assert "no revision " + "0" * 40 in refused(URI, folder, "0" * 40)
    presets.upload_preset(URI, preset)
    del server.repositories[NAME].at("main").files["model.weights.h5"]
    assert "model.weights.h5" in refused(URI, folder)


@pytest.mark.parametrize(
    "uri",
    [
        "alice/encoder",
        "hf://encoder",
        "hf://alice/encoder/file",
        "hf://alice/encoder@",
        "hf://alice/../encoder",
        "hf://alice/encoder@../../x",
        "hf://alice/encoder@a@b",
        "hf://alice/enc oder",
        "https://huggingface.co/alice/encoder",
    ],
)
def test_addresses_have_one_form(uri):
    with pytest.raises(PresetError, match="hf://owner/name@revision"):
        hub_calls.parse_uri(uri)


def test_addresses():
    assert hub_calls.parse_uri(URI) == (NAME, "main")
    assert hub_calls.parse_uri(URI, "v1") == (NAME, "v1")
    assert hub_calls.parse_uri(f"{URI}@refs/pr/1") == (NAME, "refs/pr/1")
    with pytest.raises(PresetError, match="another: v2"):
        hub_calls.parse_uri(f"{URI}@v1", "v2")


@both
def test_pinned_revisions_and_branches(
    preset, other_preset, server, client, tmp_path
):
    first = presets.upload_preset(URI, preset)
    second = presets.upload_preset(URI, other_preset)
    third = presets.upload_preset(f"{URI}@next", preset)
    for number, (uri, expected) in enumerate(
        [
            (first.uri, preset),
            (second.uri, other_preset),
            (third.uri, preset),
            (URI, other_preset),
            (f"{URI}@next", preset),
        ]
    ):
        folder = presets.download_preset(uri, tmp_path / str(number))
        assert files(folder) == files(expected)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "path",
    ["/repos/create", "/preupload/", "/commit/", "/revision/", "/tree/"],
)
def test_a_busy_hub_is_asked_again(
    preset, server, client, waits, tmp_path, path, status
):
    server.faults.append(Fault(path, 2, status))
    presets.upload_preset(URI, preset)
    assert titles(server)[1:] == ["initial commit"]
    assert len(waits) == 2 and 0 < min(waits) < max(waits)
    server.faults.append(Fault(path, 2, status, {"Retry-After": "7"}))
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == files(preset)


def test_a_hub_that_says_when_to_come_back(preset, server, client, waits):
    server.faults.append(Fault("/commit/", 1, 429, {"Retry-After": "7"}))
    presets.upload_preset(URI, preset)
    assert waits == [7]
    server.faults.append(Fault("/create", 1, 429, {"Retry-After": "300"}))
    with pytest.raises(presets.HubError, match="rate limit"):
        presets.upload_preset(URI, preset)
    assert waits == [7]


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_stays_busy(preset, server, client, waits, tmp_path, status):
    presets.upload_preset(URI, preset)
    server.faults.append(Fault("/", 1000, status))
    reason = "rate limit" if status == 429 else "status 503"
    assert reason in refused(URI, tmp_path / "a")
    assert len(waits) >= len(hub_calls.WAITS)
    with pytest.raises(presets.HubError, match=reason):
        presets.upload_preset(URI, preset)


@pytest.mark.parametrize("path", ["/resolve/", "/stored/"])
def test_a_busy_storage(preset, server, client, waits, tmp_path, path):
    presets.upload_preset(URI, preset)
    server.faults.append(Fault(path, 2, 503))
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == files(preset)
    server.faults.append(Fault(path, 1000, 503))
    client("other")
    assert "status 503" in refused(URI, tmp_path / "b")
    server.faults.clear()
    presets.download_preset(URI, tmp_path / "b")


@both
def test_a_connection_cut_in_mid_file_is_resumed(
    preset, server, client, tmp_path
):
    presets.upload_preset(URI, preset)
    server.faults.append(Fault(LARGE, cut=10_000, method="GET"))
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == files(preset)
    assert server.count("GET", LARGE) == 2


@both
def test_a_flipped_bit_is_caught(preset, server, client, waits, tmp_path):
    presets.upload_preset(URI, preset)
    healthy = dict(server.xet.xorbs), server.repositories[NAME].at("main")
    server.flip_bit(NAME, "model.weights.h5")
    assert "model.weights.h5" in refused(URI, tmp_path / "a")
    with pytest.raises(PresetError, match="model.weights.h5"):
        presets.load_encoder(URI)
    # What the cache holds doesn't outlive the fault.
    server.flip_bit(NAME, "model.weights.h5")
    assert server.xet.xorbs == healthy[0]
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == files(preset)
    presets.load_encoder(URI)


@both
def test_offline(preset, server, client, tmp_path):
    upload = presets.upload_preset(URI, preset)
    client(offline=True)
    reason = refused(URI, tmp_path / "a")
    assert "isn't complete in the cache" in reason
    assert "HF_HUB_OFFLINE" in reason
    client()
    download.download(URI)
    client(offline=True)
    count = len(server.requests)
    for number, uri in enumerate([URI, upload.uri]):
        folder = presets.download_preset(uri, tmp_path / str(number))
        assert files(folder) == files(preset)
    with pytest.raises(presets.HubError, match="HF_HUB_OFFLINE"):
        presets.upload_preset(URI, preset)
    assert len(server.requests) == count


def test_a_hub_that_is_not_there(preset, client, monkeypatch, tmp_path):
    with HubServer() as gone:
        connect(monkeypatch, gone, tmp_path / "cache")
    assert "can't be reached" in refused(URI, tmp_path / "a")
    with pytest.raises(presets.HubError, match="can't be reached"):
        presets.upload_preset(URI, preset)


def test_an_existing_folder_is_refused(preset, server, client, tmp_path):
    presets.upload_preset(URI, preset)
    count = len(server.requests)
    with pytest.raises(PresetError, match="exists already"):
        presets.download_preset(URI, tmp_path)
    assert len(server.requests) == count


@contextlib.contextmanager
def full_disk(kind, folder):
    """Lets a folder hold less than a preset."""
    folder.mkdir()
    if kind == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("Mounting isn't allowed")
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@both
@pytest.mark.parametrize("kind", ["tmpfs", "quota"])
@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_full_disk(preset, server, client, waits, tmp_path, kind):
    presets.upload_preset(URI, preset)
    client("large")
    download.download(URI)
    with full_disk(kind, tmp_path / "small"):
        client("small/cache")
        assert "disk is full" in refused(URI, tmp_path / "small" / "a")
        client("large")
        assert "disk is full" in refused(URI, tmp_path / "small" / "a")
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == files(preset)


def test_processes_pull_at_once(preset, server, client, tmp_path):
    presets.upload_preset(URI, preset)

    def pull(folder):
        try:
            presets.download_preset(URI, folder)
        except PresetError:
            os._exit(1)
        os._exit(0)

    # A fork starts at once; three others would import Keras one by one.
    folders = [tmp_path / name for name in ("a", "b", "c", "c")]
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=pull, args=(folder,)) for folder in folders
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    assert codes[:2] == [0, 0] and sorted(codes[2:]) == [0, 1]
    for folder in folders:
        assert files(folder) == files(preset)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a", "b", "c", "cache"}


PLAIN = """
import sys
sys.modules["kerassl"] = None  # importing it fails
import keras_hub, numpy as np
backbone = keras_hub.models.Backbone.from_preset(sys.argv[1])
converter = keras_hub.layers.ImageConverter.from_preset(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], backbone.predict(converter(images), verbose=0))
classifier = keras_hub.models.ImageClassifier.from_preset(
    sys.argv[4], num_classes=3
)
assert classifier.backbone.name == "resnet_nano"
"""


@more("test_loads_without_kerassl", always_on="torch")
def test_kerashub_loads_it_without_kerassl(preset, server, client, tmp_path):
    encoder = encoders.build("vit_nano", image_shape=(16, 16, 3))
    presets.save_preset(encoder, tmp_path / "vit")
    presets.upload_preset(URI, tmp_path / "vit")
    presets.upload_preset("hf://alice/small", preset)
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3))
    np.save(tmp_path / "images.npy", images.astype("float32"))
    subprocess.run(
        [
            sys.executable,
            "-c",
            PLAIN,
            URI,
            tmp_path / "images.npy",
            tmp_path / "output.npy",
            "hf://alice/small",
        ],
        env={**os.environ, **variables(server, tmp_path / "cache")},
        check=True,
    )
    # The features are the class token.
    tokens = np.load(tmp_path / "output.npy")
    np.testing.assert_allclose(
        tokens[:, 0], encoder.predict(images, verbose=0), rtol=1e-4, atol=1e-5
    )
