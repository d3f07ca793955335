"""What a folder of images holds, found once and remembered in a file."""

import dataclasses
import json
import os
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerassl.data.decode import image_suffixes
from kerassl.data.files import Skipped, Stamp, find_images, stamp
from kerassl.files import replacing

# Times of files are as coarse as 2 seconds, on FAT.
_SETTLED_NS = 2 * 10**9
# What a damaged file may raise.
_BROKEN = (
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclasses.dataclass
class Listing:
    """The images of a folder, and how to see that they are still the same.

    Args:
        root: str, the absolute path of the folder.
        names: the paths of the images relative to it, in order.
        skipped: what else is there.
        folders: the paths of all folders in it, and of itself, likewise.
        stamps: int64 array `(len(folders), 4)`: device, inode and the times in
            nanoseconds at which the folder and its entry changed.
        path: str, the file that it was read from, or `None`.
    """

    root: str
    names: list[str]
    skipped: Skipped
    folders: list[str]
    stamps: np.ndarray
    path: str | None = None

    def save(self, path: str | Path) -> None:
        """Writes the listing to a file.

        Not if a folder was changed in the two seconds before it was listed,
        which a later change might not show.
        """
        known = self.path == os.path.abspath(path) and os.path.exists(path)
        if known or (self.stamps < 0).any():
            return
        about = {
            "root": self.root,
            "suffixes": sorted(image_suffixes()),
            "skipped": [
                list(self.skipped.suffixes.items()),
                list(self.skipped.folders.items()),
            ],
        }
        save_about(
            path,
            about,
            names=_packed(self.names),
            folders=_packed(self.folders),
            stamps=self.stamps,
        )


def save_about(path: str | Path, about: dict[str, Any], **arrays: Any) -> None:
    """Writes what JSON can hold, and arrays, to a file, whole or not at all."""
    packed = _packed([json.dumps(about)])
    # NumPy would add a suffix to a path.
    with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, about=packed, **arrays)


def load_about(path: str | os.PathLike) -> dict[str, Any] | None:
    """Returns the JSON of `save_about`; `None` if it is missing or broken."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return json.loads(_unpacked(arrays["about"])[0])
    except (*_BROKEN, OSError):
        return None


def list_images(
    root: str | Path, remembered: str | os.PathLike | None = None
) -> Listing:
    """Returns the images of a folder: listed now, or as remembered.

    A remembered listing is used if every folder in it has the same device,
    inode and times as when it was listed: adding, removing and renaming
    anything changes a folder's times. Otherwise all is listed again.

    Args:
        root: path of the folder.
        remembered: path of a file that `Listing.save` wrote, or of none.

    Returns:
        A `Listing`.

    Raises:
        OSError: if the folder can't be listed.
    """
    root = os.path.abspath(root)
    if remembered is not None:
        found = _load(remembered)
        if found is not None and found.root == root and _is_current(found):
            return found
    now = time.time_ns()
    skipped = Skipped()
    folders: dict[str, Stamp] = {}
    names = list(find_images(root, skipped, folders))
    stamps = np.array(list(folders.values()), "int64").reshape(-1, 4)
    stamps[stamps[:, 2:].max(axis=1) > now - _SETTLED_NS] = -1
    return Listing(root, names, skipped, list(folders), stamps)


def _is_current(listing: Listing) -> bool:
    try:
        for folder, known in zip(listing.folders, listing.stamps.tolist()):
            if stamp(os.path.join(listing.root, folder)) != tuple(known):
                return False
    except OSError:
        return False
    return True


def _load(path: str | os.PathLike) -> Listing | None:
    """Returns what a file holds; `None` if it is missing or broken."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(_unpacked(arrays["about"])[0])
            if about["suffixes"] != sorted(image_suffixes()):
                return None
            skipped = Skipped()
            skipped.suffixes.update(dict(about["skipped"][0]))
            skipped.folders.update(dict(about["skipped"][1]))
            return Listing(
                about["root"],
                _unpacked(arrays["names"]),
                skipped,
                _unpacked(arrays["folders"]),
                arrays["stamps"],
                os.path.abspath(path),
            )
    except (*_BROKEN, OSError):
        return None


def _packed(texts: Sequence[str]) -> np.ndarray:
    """Returns texts as bytes; no path contains a zero byte."""
    return np.frombuffer(os.fsencode("\0".join([*texts, ""])), "uint8")


def _unpacked(array: np.ndarray) -> list[str]:
    return os.fsdecode(array.tobytes()).split("\0")[:-1]
