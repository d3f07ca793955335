"""A Hub, and presets for it."""

import time

import keras
import pytest

from kerassl import encoders, presets
from tests.hub_server import HubServer
from tests.hub_server.client import connect


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A preset's folder, which no test may change."""
    folder = tmp_path_factory.mktemp("presets") / "encoder"
    encoder = encoders.build("resnet_nano", image_shape=(16, 16, 3))
    presets.save_preset(encoder, folder)
    before = contents(folder)
    yield folder
    assert contents(folder) == before


@pytest.fixture(scope="module")
def other_preset(tmp_path_factory):
    """A preset of the same kind with other weights."""
    folder = tmp_path_factory.mktemp("presets") / "other"
    keras.utils.set_random_seed(2)
    encoder = encoders.build("resnet_nano", image_shape=(16, 16, 3))
    presets.save_preset(encoder, folder)
    return folder


@pytest.fixture
def server():
    with HubServer() as hub_server:
        yield hub_server


@pytest.fixture
def client(request, server, monkeypatch, tmp_path):
    """Points huggingface_hub to the server, as often as it is called."""
    transfer = getattr(request, "param", "http")

    def use(cache="cache", **arguments):
        arguments["xet"] = transfer == "xet"
        connect(monkeypatch, server, tmp_path / cache, **arguments)

    use()
    return use


@pytest.fixture
def waits(monkeypatch):
    """Nobody waits; the list holds for how long they would."""
    seconds = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def contents(folder):
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.iterdir()
    }
