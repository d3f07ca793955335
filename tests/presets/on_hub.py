"""What tests of presets on the Hub have in common."""

import keras
import pytest

from kerassl import presets
from kerassl.presets import PresetError

NAME = "alice/encoder"
URI = f"hf://{NAME}"
LARGE = "/stored/|/v1/xorbs/"  # where large files are read
# For tests of what is transferred; the others do without xet.
both = pytest.mark.parametrize("client", ["http", "xet"], indirect=True)
on_one_backend = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="No backend computes here"
)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def titles(server, name=NAME, revision="main"):
    return [c.title for c in server.repositories[name].history(revision)]


def refused(*arguments, **keywords):
    """Returns why a pull was refused, which leaves nothing behind."""
    folder = arguments[1]
    with pytest.raises(PresetError) as error:
        presets.download_preset(*arguments, **keywords)
    left = [*folder.parent.glob(folder.name), *folder.parent.glob(".*-*")]
    assert not left
    return str(error.value)
