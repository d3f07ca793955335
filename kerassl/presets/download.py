"""Downloads presets from the Hugging Face Hub."""

import hashlib
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kerassl.presets.format.info import (
    CARD,
    CONFIG,
    FILES,
    INFO,
    METADATA,
    WEIGHTS,
    PresetError,
    PresetInfo,
    read_json,
)
from kerassl.presets.format.verify import (
    MOST_BYTES,
    check_sizes,
    describe,
    file_entry,
    verify_preset,
)
from kerassl.presets.hub_calls import (
    HubError,
    ask,
    is_full,
    is_wrong_size,
    line,
    no_room,
    parse_uri,
)

MOST_TRIES = 3  # if a branch moves during the download


def download(uri: str, revision: str | None = None) -> Path:
    """Downloads a preset into the cache of huggingface_hub.

    Only the files of a preset are downloaded, all from one commit. The weights
    come last, if everything else was verified and their size fits the
    architecture. Progress bars, the cache, resuming and the offline mode
    (`HF_HUB_OFFLINE=1`) are huggingface_hub's. If the Hub can't be reached, is
    in trouble or sends something else, the cached revision is used, with a
    warning. huggingface_hub compares sizes, not hashes, so a damaged file would
    stay in the cache forever: a file that differs from the Hub's is downloaded
    once more. The caller must verify the preset.

    Args:
        uri: str, `"hf://owner/name"` or `"hf://owner/name@revision"`.
        revision: str, a branch, a tag or a commit's SHA, if `uri` names none;
            by default the branch `main`.

    Returns:
        The path of a folder whose name is the commit's SHA, and whose files
        are links into the cache.

    Raises:
        PresetError: if the address has another form, or a check that needs no
            weights fails.
        HubError: if the preset can't be downloaded; says why, and what to do.
    """
    name, revision = parse_uri(uri, revision)
    cached = _cached(name, revision)
    # A commit never changes, so the Hub needn't be asked.
    if cached and cached.name == revision and _is_sound(cached):
        return cached
    return ask(name, revision, lambda: _download(name, revision), cached)


def _download(name: str, revision: str) -> Path:
    from huggingface_hub import HfApi

    api = HfApi(library_name="kerassl")
    for _ in range(MOST_TRIES):
        info = api.model_info(name, revision=revision, files_metadata=True)
        there = {
            file.rfilename: file
            for file in info.siblings or ()
            if file.rfilename in FILES
        }
        sizes = {file: int(there[file].size or 0) for file in there}
        if INFO not in sizes:
            raise HubError(
                f"hf://{name} at {revision} is not a kerassl preset: it has no "
                f"{INFO}."
            )
        check_sizes(sizes)
        folder = _fetch(name, revision, there.keys() - {WEIGHTS}, there)
        if folder.name == info.sha:
            describe(folder, sizes, links=True)
            return _fetch(name, folder.name, [WEIGHTS], there)
    raise HubError(f"{name} at {revision} keeps changing. Try again.")


def _fetch(
    name: str, revision: str, files: Iterable[str], there: dict[str, Any]
) -> Path:
    """Downloads files, and again those that differ from the Hub's."""
    from huggingface_hub import snapshot_download

    def snapshot(files: list[str], force: bool = False) -> Path:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=files,
            force_download=force,
        )
        return Path(folder)

    names = sorted(files)
    try:
        folder = snapshot(names)
    except Exception as error:
        if not is_wrong_size(error):
            raise
        folder = snapshot(names, force=True)
    if damaged := [f for f in names if _is_damaged(folder / f, there[f])]:
        folder = snapshot(damaged, force=True)
    return folder


def _is_damaged(path: Path, there: Any) -> bool:
    """Whether a file differs from the Hub's."""
    if not path.is_file():
        return True
    if there.lfs is not None:
        return file_entry(path)["sha256"] != there.lfs.sha256
    # The hash of a blob in Git.
    size = path.stat().st_size
    if size > MOST_BYTES.get(path.name, 0):
        return True
    head = f"blob {size}\0".encode()
    return hashlib.sha1(head + path.read_bytes()).hexdigest() != there.blob_id


def _cached(name: str, revision: str) -> Path | None:
    """Returns the folder of a preset that is complete in the cache."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, INFO, revision=revision)
    if not isinstance(path, str):
        return None
    folder = Path(path).parent
    needed = (INFO, CONFIG, METADATA, WEIGHTS)
    return folder if all((folder / k).is_file() for k in needed) else None


def _is_sound(folder: Path) -> bool:
    """Whether the files have the hashes in `kerassl.json`."""
    with (folder / INFO).open("rb") as file:
        data = file.read(MOST_BYTES[INFO])
    try:
        files = PresetInfo.from_dict(read_json(data, INFO)).files
        return all(
            file_entry(folder / name) == entry
            for name, entry in files.items()
            if name != CARD
        )
    except (PresetError, OSError):
        return False


def download_preset(
    uri: str, folder: str | Path, revision: str | None = None
) -> Path:
    """Downloads a preset from the Hub to a folder, and verifies it.

    The folder appears when all files are in it and verified. A failure leaves
    nothing behind except in the cache of huggingface_hub, which resumes from
    there. `kerassl.load_encoder` needs no folder: it takes the address.

    Args:
        uri: str, `"hf://owner/name"` or `"hf://owner/name@revision"`.
        folder: path of a new folder.
        revision: as in `kerassl.load_encoder`.

    Returns:
        The folder's path.

    Raises:
        PresetError: if the path exists already, or the preset is refused by
            `verify_preset`.
        HubError: if it can't be downloaded; says why, and what to do.

    Example:
    ```python
    kerassl.download_preset("hf://ada/resnet@v1", "presets/resnet")
    ```
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise PresetError(f"{folder} exists already. Give a new folder.")
    cached = download(uri, revision)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        for file in FILES:
            if (cached / file).is_file():
                shutil.copyfile(cached / file, temporary / file)
        verify_preset(temporary)
        temporary.rename(folder)
    except OSError as error:
        reason = no_room(error) if is_full(error) else line(error)
        raise HubError(f"Can't write {folder}. {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
