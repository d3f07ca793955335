"""Downloads that go wrong on the way, or should not happen."""

import json
import shutil

import huggingface_hub
import pytest

from kerassl import presets
from kerassl.presets import PresetError, download
from kerassl.presets.format.info import CONVERTER
from kerassl.presets.format.verify import MOST_BYTES
from tests.hub_server import Fault
from tests.presets import make
from tests.presets.on_hub import (
    LARGE,
    NAME,
    URI,
    both,
    files,
    on_one_backend,
    refused,
)

pytestmark = on_one_backend
API = "/api/models/"
PAGE = b"<html>Log in to this network</html>"
WEIGHTS = "model.weights.h5"


def commit(server, **changed):
    """Commits files behind kerassl's back."""
    huggingface_hub.HfApi().create_commit(
        NAME,
        [
            huggingface_hub.CommitOperationAdd(name, data)
            for name, data in changed.items()
        ],
        commit_message="Change",
    )


@both
def test_an_edited_card_changes_nothing(
    preset, server, client, tmp_path, recwarn
):
    presets.upload_preset(URI, preset)
    presets.load_encoder(URI)
    count = server.count("GET", LARGE)
    commit(server, **{"README.md": b"---\nlicense: mit\n---\nMine"})
    for _ in range(2):
        presets.load_encoder(URI)
    # The weights of the older commit are these.
    assert server.count("GET", LARGE) == count
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == {
        **files(preset),
        "README.md": b"---\nlicense: mit\n---\nMine",
    }
    assert not [w for w in recwarn.list if "cache" in str(w.message)]


def test_a_deleted_card_changes_nothing(preset, server, client, tmp_path):
    presets.upload_preset(URI, preset)
    del server.repositories[NAME].at("main").files["README.md"]
    presets.download_preset(URI, tmp_path / "a")
    assert "README.md" not in files(tmp_path / "a")


def test_a_wrong_preset_is_downloaded_once(preset, server, client, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(preset, folder)
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    presets.upload_preset(URI, preset)
    commit(server, **{WEIGHTS: bytes(data)})
    for _ in range(3):
        with pytest.raises(PresetError, match=f"{WEIGHTS} was changed"):
            presets.load_encoder(URI)
    assert server.count("GET", LARGE) == 1


@pytest.mark.parametrize("name", sorted({*MOST_BYTES} - {CONVERTER}))
def test_too_large_files_are_not_downloaded(
    preset, server, client, tmp_path, name
):
    presets.upload_preset(URI, preset)
    large = server.repositories[NAME].at("main").files
    large[name].size = MOST_BYTES[name] + 1
    assert f"{name} has" in refused(URI, tmp_path / "a")
    assert server.count("GET", "/resolve/|/stored/") == 0


def test_weights_of_another_size_are_not_downloaded(
    preset, server, client, tmp_path
):
    presets.upload_preset(URI, preset)
    server.repositories[NAME].at("main").files[WEIGHTS].size = 2**33
    assert f"{WEIGHTS} has" in refused(URI, tmp_path / "a")
    # Nor if kerassl.json agrees, since the architecture doesn't.
    info = json.loads((preset / "kerassl.json").read_text())
    info["files"][WEIGHTS]["size"] = 2**33
    commit(server, **{"kerassl.json": json.dumps(info).encode()})
    assert "The architecture in config.json" in refused(URI, tmp_path / "a")
    assert server.count("GET", LARGE) == 0


def test_nothing_is_downloaded_for_a_wrong_architecture(
    preset, server, client, tmp_path
):
    folder = tmp_path / "other"
    shutil.copytree(preset, folder)
    (folder / "config.json").write_text("{}")
    make.reseal(folder)
    presets.upload_preset(URI, preset)
    commit(
        server,
        **{
            k: (folder / k).read_bytes()
            for k in ("config.json", "kerassl.json")
        },
    )
    assert "must be from keras" in refused(URI, tmp_path / "a")
    assert server.count("GET", LARGE) == 0


FAULTS = {
    "cut": dict(cut=10),
    "dropped": dict(cut=0),
    "page": dict(page=PAGE),
    "trouble": dict(status=500),
    "limit": dict(status=429),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_the_cache_stands_in(preset, server, client, waits, tmp_path, kind):
    presets.upload_preset(URI, preset)
    download.download(URI)
    server.faults.append(Fault("/", 1000, **FAULTS[kind]))
    with pytest.warns(UserWarning, match="Using the cached"):
        folder = presets.download_preset(URI, tmp_path / "a")
    assert files(folder) == files(preset)
    # A commit never changes, so that nobody is asked.
    count = len(server.requests)
    sha = server.repositories[NAME].at("main").sha
    presets.download_preset(f"{URI}@{sha}", tmp_path / "b")
    assert len(server.requests) == count
    client("other")
    reason = refused(URI, tmp_path / "c")
    assert NAME in reason or "Hub" in reason
    server.faults.clear()
    presets.download_preset(URI, tmp_path / "c")


def test_a_missing_revision_is_none_of_the_cache(preset, server, client):
    presets.upload_preset(f"{URI}@next", preset)
    download.download(f"{URI}@next")
    del server.repositories[NAME].branches["next"]
    with pytest.raises(presets.HubError, match="no revision next"):
        download.download(f"{URI}@next")


@pytest.mark.parametrize("kind", ["cut", "dropped", "page"])
def test_a_broken_answer_is_asked_for_again(
    preset, server, client, waits, tmp_path, kind
):
    presets.upload_preset(URI, preset)
    # Also after the Hub was busy.
    server.faults += [Fault(API), Fault(API, **FAULTS[kind])]
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == files(preset)
    assert len(waits) == 1


@pytest.mark.parametrize("body", [b"", PAGE, bytes(10**6)])
@pytest.mark.parametrize("path", ["/stored/", "/resolve/.*/config.json"])
def test_a_body_of_a_wrong_size_is_fetched_once_more(
    preset, server, client, waits, tmp_path, path, body
):
    presets.upload_preset(URI, preset)
    server.faults.append(Fault(path, 1, page=body, method="GET"))
    presets.download_preset(URI, tmp_path / "a")
    assert files(tmp_path / "a") == files(preset)
    client("other")
    count = server.count("GET", path)
    server.faults.append(Fault(path, 1000, page=body, method="GET"))
    refused(URI, tmp_path / "b")
    assert server.count("GET", path) - count <= 4
