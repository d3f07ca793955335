"""The test's Hub answers `huggingface_hub` as the real one would."""

import json
import time

import huggingface_hub
import keras
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, errors

from tests.hub_server import Fault, HubServer
from tests.hub_server.client import connect

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="No backend computes here"
)

NAME = "alice/encoder"
WEIGHTS = np.random.default_rng(0).normal(size=60_000).astype("f4").tobytes()
FILES = {"model.weights.h5": WEIGHTS, "config.json": b"{}"}


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture(params=["http", "xet"])
def api(request, hub, monkeypatch, tmp_path):
    """The client, with a repository of one commit; waits are kept instead."""
    connect(monkeypatch, hub, tmp_path, xet=request.param == "xet")
    client = huggingface_hub.HfApi()
    client.create_repo(NAME)
    client.waits = []
    monkeypatch.setattr(time, "sleep", client.waits.append)
    commit(client)
    return client


def commit(api, files=FILES, **arguments):
    operations = [CommitOperationAdd(p, data) for p, data in files.items()]
    return api.create_commit(
        NAME, operations, commit_message="Add files", **arguments
    )


def read(folder):
    return {p: (folder / p).read_bytes() for p in FILES}


def snapshot(api, tmp_path, **arguments):
    """Downloads into a cache of its own."""
    from pathlib import Path

    cache = tmp_path / f"cache-{len(list(tmp_path.iterdir()))}"
    return Path(api.snapshot_download(NAME, cache_dir=cache, **arguments))


def test_files_come_back(api, hub, tmp_path):
    assert api.whoami()["name"] == "alice"
    folder = snapshot(api, tmp_path)
    assert read(folder) == FILES
    assert folder.name == api.repo_info(NAME).sha
    assert [c.title for c in api.list_repo_commits(NAME)] == [
        "Add files",
        "initial commit",
    ]
    large, small = api.get_paths_info(NAME, ["model.weights.h5", "config.json"])
    assert large.lfs.size == large.size == len(WEIGHTS)
    assert small.lfs is None
    over_xet = hub.repositories[NAME].at("main").files["model.weights.h5"]
    assert bool(hub.xet.xorbs) == bool(over_xet.xet_hash)
    assert bool(hub.xet.xorbs) != bool(hub.large_files)


def test_a_client_without_xet_reads_what_came_over_xet(
    hub, monkeypatch, tmp_path
):
    connect(monkeypatch, hub, tmp_path, xet=True)
    api = huggingface_hub.HfApi()
    api.create_repo(NAME)
    # Zeros too: xet packs them.
    data = {**FILES, "model.weights.h5": WEIGHTS + bytes(200_000)}
    commit(api, data)
    connect(monkeypatch, hub, tmp_path)
    assert read(snapshot(api, tmp_path)) == data


def test_revisions(api, tmp_path):
    first = api.repo_info(NAME).sha
    api.create_branch(NAME, branch="next")
    changed = {**FILES, "config.json": b"[]"}
    second = commit(api, changed, revision="next").oid
    assert read(snapshot(api, tmp_path, revision="next")) == changed
    assert read(snapshot(api, tmp_path, revision=second)) == changed
    assert read(snapshot(api, tmp_path, revision=first)) == FILES
    assert {
        b.name: b.target_commit for b in api.list_repo_refs(NAME).branches
    } == {
        "main": first,
        "next": second,
    }
    with pytest.raises(errors.RevisionNotFoundError):
        snapshot(api, tmp_path, revision="none")


def test_commits_are_whole(api):
    head = api.repo_info(NAME).sha
    assert commit(api).oid == head  # nothing to change
    api.create_commit(
        NAME, [CommitOperationDelete("config.json")], commit_message="Delete"
    )
    assert "config.json" not in api.list_repo_files(NAME)
    with pytest.raises(errors.HfHubHTTPError, match="412"):
        commit(api, {"new": b"1"}, parent_commit=head)
    with pytest.raises(errors.RemoteEntryNotFoundError):
        api.create_commit(
            NAME,
            [
                CommitOperationAdd("new", b"1"),
                CommitOperationDelete("config.json"),
            ],
            commit_message="Not possible",
        )
    assert "new" not in api.list_repo_files(NAME)


def test_what_is_not_there(api):
    with pytest.raises(errors.RepositoryNotFoundError):
        api.repo_info("alice/none")
    with pytest.raises(errors.RemoteEntryNotFoundError):
        api.hf_hub_download(NAME, "none")
    with pytest.raises(errors.RevisionNotFoundError):
        api.hf_hub_download(NAME, "config.json", revision="none")


def test_tokens(api, hub, monkeypatch, tmp_path):
    api.create_repo("alice/secret", private=True)

    def status(call, *arguments):
        with pytest.raises(errors.HfHubHTTPError) as raised:
            call(*arguments)
        return raised.value.response.status_code

    connect(monkeypatch, hub, tmp_path, token="hf_alice_reads")
    assert api.repo_info("alice/secret").private
    assert not api.repo_info(NAME).private
    assert status(commit, api) == 403
    assert status(api.create_repo, "alice/other") == 403
    connect(monkeypatch, hub, tmp_path, token="hf_bob")
    assert status(api.repo_info, "alice/secret") == 404
    assert status(commit, api) == 403
    connect(monkeypatch, hub, tmp_path, token="hf_unknown")
    assert status(api.whoami) == 401
    assert status(api.repo_info, NAME) == 401
    connect(monkeypatch, hub, tmp_path, token=None)
    assert read(snapshot(api, tmp_path)) == FILES
    assert status(api.repo_info, "alice/secret") == 401
    assert status(api.create_repo, "alice/other") == 401


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub(api, hub, status):
    hub.faults.append(Fault("/preupload/", 2, status, {"Retry-After": "3"}))
    commit(api, {"config.json": b"[]"})
    assert api.waits == [4.0, 4.0]
    hub.faults.append(Fault("/commit/", 1, status))
    with pytest.raises(errors.HfHubHTTPError, match=str(status)):
        commit(api, {"config.json": b"{}"})


def test_a_connection_cut_in_mid_file_is_resumed(api, hub, tmp_path):
    place = "/stored/|/v1/xorbs/"
    hub.faults.append(Fault(place, cut=100_000, method="GET"))
    assert read(snapshot(api, tmp_path)) == FILES
    assert hub.count("GET", place) == 2


def test_a_flipped_bit_passes_the_client(api, hub, tmp_path):
    hub.flip_bit(NAME, "model.weights.h5")
    hub.flip_bit(NAME, "config.json")
    files = read(snapshot(api, tmp_path))
    for path, data in FILES.items():
        different = [a ^ b for a, b in zip(files[path], data) if a != b]
        assert len(files[path]) == len(data) and len(different) == 1


RESULT = {
    "task": {"type": "image-classification"},
    "dataset": {"type": "uoft-cs/cifar10", "name": "CIFAR-10"},
    "metrics": [{"type": "accuracy", "value": 0.5}],
}


def index(**changes):
    return {"model-index": [{"name": "a", "results": [RESULT | changes]}]}


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"license": "mine"}, '"license" must be one of'),
        ({"license": "Apache-2.0"}, '"license" must be one of'),
        ({"datasets": ["cifar10", "folder:/home/a"]}, r'"datasets\[1\]" with'),
        ({"datasets": ["tfds:mnist"]}, "is not valid"),
        ({"datasets": "mnist:3.0.1"}, "is not valid"),
        ({"datasets": [None]}, "is not valid"),
        ({"model-index": "none"}, '"model-index" must be an array'),
        ({"model-index": [{"name": "a"}]}, r'\.results" must be an array'),
        (index(task=None), r'results\[0\]\.task" is required'),
        (index(dataset={"type": "a"}), r'dataset\.name" is required'),
        (
            index(dataset={"type": "own images", "name": "a"}),
            r'dataset\.type" with value "own images" fails to match',
        ),
        (index(metrics=[{"type": "a"}]), r'metrics\[0\]\.value" is required'),
    ],
)
def test_cards_are_checked_before_a_commit(
    hub, monkeypatch, tmp_path, fields, message
):
    connect(monkeypatch, hub, tmp_path)
    client = huggingface_hub.HfApi()
    client.create_repo(NAME)
    good = {"license": "mit", "datasets": ["mnist", "a/b.c"], **index()}
    for content in (good, good | fields):
        card = f"---\n{json.dumps(content)}\n---\n# A card\n".encode()
        if content is good:
            head = commit(client, {"README.md": card}).oid
            continue
        with pytest.raises(ValueError, match=message):
            commit(client, {"README.md": card})
    assert client.repo_info(NAME).sha == head
