"""Points the `huggingface_hub` of this process to a test's Hub."""

import os
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from tests.hub_server.server import HubServer


def connect(
    monkeypatch,
    hub: HubServer,
    cache: Path,
    *,
    token: str | None = "hf_alice",
    xet: bool = False,
    offline: bool = False,
) -> None:
    """Does in this process what the variables do in a new one.

    The client reads its variables once, when it is imported. May be called
    again within a test, for another token say.

    Args:
        monkeypatch: pytest's; takes all back after the test.
        hub: `HubServer`.
        cache: path of the client's cache.
        token: str, what `HF_TOKEN` is to be, or `None` for no token.
        xet: bool, whether to transfer large files over xet.
        offline: bool, what `HF_HUB_OFFLINE` is to be.
    """
    for name, value in variables(
        hub, cache, token=token, xet=xet, offline=offline
    ).items():
        monkeypatch.setenv(name, value)
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    pattern = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, constant in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": pattern,
        "HF_HUB_CACHE": os.fspath(cache / "hub"),
        "HF_TOKEN_PATH": os.fspath(cache / "token"),
        "HF_XET_CACHE": os.fspath(cache / "xet"),
        "HF_HUB_DISABLE_XET": not xet,
        "HF_HUB_OFFLINE": offline,
    }.items():
        monkeypatch.setattr(constants, name, constant)
    disable_progress_bars()


def variables(
    hub: HubServer,
    cache: Path,
    *,
    token: str | None = "hf_alice",
    xet: bool = False,
    offline: bool = False,
) -> dict[str, str]:
    """Returns the environment of a process that talks to a test's Hub.

    Args:
        hub, cache, token, xet, offline: as in `connect`.
    """
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": os.fspath(cache),
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **({"HF_TOKEN": token} if token else {}),
    }
