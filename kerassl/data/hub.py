"""Data sets of the Hugging Face Hub that are, or were turned into, Parquet."""

import logging
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from kerassl.data.errors import SplitError
from kerassl.data.files import listed, split_name
from kerassl.data.parquet import read_parquet
from kerassl.data.photos import Photos

FORM = "hf:OWNER/NAME[/FOLDER][@REVISION]"
URL = "hf://datasets/"
URL_FORM = f"{URL}OWNER/NAME[@REVISION][/FOLDER]"
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = f"(?P<name>{_WORD}/{_WORD})"
_FOLDER = "(?:/(?P<folder>[^@]+?))?/?"
_PATTERN = f"hf:{_NAME}{_FOLDER}(?:@(?P<revision>{_WORD}(?:/{_WORD})*))?"
# Revisions with slashes, as huggingface_hub tells them from folders.
_REFS = r"refs/(?:convert/\w+|pr/\d+)"
_URL_PATTERN = f"{URL}{_NAME}(?:@(?P<revision>{_REFS}|{_WORD}))?{_FOLDER}"
# The branch with the Parquet files that the Hub makes of other formats.
_CONVERTED = "refs/convert/parquet"

_logger = logging.getLogger("kerassl")


def load_hub(
    name: str,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
    files: int | None = None,
) -> tuple[Photos, tuple[str, ...] | None]:
    """Finds the images of a split of a data set.

    The files of a split have its name in theirs or in their folder's, such as
    `data/train-00000-of-00002.parquet`. If none has, all are the split
    `"train"`; otherwise those such as `data/extra-00000-of-00001.parquet` are
    left out, unless `split` is `"extra"`. By `FORM` they are downloaded into
    the cache of huggingface_hub; by `URL_FORM` they are read where they are.
    Its settings and token apply.

    Args:
        name: str, `"hf:OWNER/NAME"`, with `"/FOLDER"` if the repository has
            several data sets, and with `"@REVISION"`, a branch, a tag or a
            commit; by default `"main"`. Or `"hf://datasets/OWNER/NAME"`, with
            `"@REVISION"` and `"/FOLDER"`.
        split: str.
        image_size: int, `(height, width)`, or `None` for 224.
        limit: int, how many images to keep, evenly spaced; or `None` for all.
        files: int, how many files to look at, or `None` for all.

    Returns:
        A pair: the photos, whose `pinned` names the commit; and the class names
        or `None`.

    Raises:
        SplitError: if there is no such split.
        ValueError: if `name` has another form, there are no Parquet files, or
            `FOLDER` is needed; or as for `load_parquet`.
        FileNotFoundError: if the Hub can't be reached, or doesn't have it.
    """
    stays = name.startswith(URL)
    form = URL_FORM if stays else FORM
    match = re.fullmatch(_URL_PATTERN if stays else _PATTERN, name)
    if match is None or ".." in name:
        raise ValueError(f"{name!r} has another form than {form}.")
    owner_name, folder = match["name"], match["folder"]
    try:
        commit, found = _find(owner_name, match["revision"])
        chosen = _of_split(found, name, form, folder, split)[:files]
        if stays:
            place = f"{URL}{owner_name}@{commit}"
            paths = [f"{place}/{file}" for file in chosen]
        else:
            paths = _download(owner_name, commit, chosen)
    except ValueError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise FileNotFoundError(
            f"The data set {name!r} can't be downloaded "
            f"({type(error).__name__}: {text}). Without a network, name its "
            "files in the cache, such as '.../train-*.parquet'."
        ) from error
    photos, classes = read_parquet(paths, name, image_size, limit)
    inner = f"/{folder}" if folder else ""
    photos.pinned = f"hf:{owner_name}{inner}@{commit}"
    if stays:
        photos.pinned = f"{URL}{owner_name}@{commit}{inner}"
    return photos, classes


def _find(name: str, revision: str | None) -> tuple[str, list[str]]:
    """Returns a commit and its Parquet files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    api = HfApi(library_name="kerassl")

    def look(revision: str | None) -> tuple[str, list[str]]:
        info: Any = api.dataset_info(name, revision=revision)
        names = [file.rfilename for file in info.siblings or ()]
        return info.sha, [n for n in names if n.endswith(".parquet")]

    commit, files = look(revision)
    if not files and revision is None:
        try:
            commit, files = look(_CONVERTED)
        except RevisionNotFoundError:
            pass
    if not files:
        raise ValueError(
            f"'hf:{name}' has no Parquet files, which kerassl needs."
        )
    return commit, sorted(files)


def _split_of(path: str) -> str | None:
    """Returns the split that a file belongs to, if its path names one."""
    for part in reversed(PurePosixPath(path).parts):
        for word in re.split(r"[-._\s\d]+", part):
            if split := split_name(word):
                return split
    return None


def _word_of(path: str) -> str:
    """Returns a file's name without numbers, such as those of its shard."""
    return re.sub(r"[-._\d]*(-of-\d+.*)?$", "", PurePosixPath(path).stem)


def _folder_of(path: str) -> str:
    """Returns a file's folder, without a folder that is only its split."""
    parts = PurePosixPath(path).parts[:-1]
    if parts and split_name(parts[-1]):
        parts = parts[:-1]
    return "/".join(parts)


def _of_split(
    files: Sequence[str],
    name: str,
    form: str,
    folder: str | None,
    split: str,
) -> list[str]:
    """Returns the files of a split."""
    folders = sorted({_folder_of(file) for file in files})
    if folder is not None:
        files = [file for file in files if _folder_of(file) == folder]
    elif len(folders) > 1:
        raise ValueError(
            f"{name!r} has several data sets. Name one of their folders, as "
            f"in {form}: {listed(folders)}"
        )
    if not files:
        raise ValueError(
            f"{name!r} has no such folder. It has {listed(folders)}"
        )
    splits = {file: _split_of(file) for file in files}
    if not any(splits.values()):
        splits = dict.fromkeys(files, "train")
    others = [file for file in files if splits[file] is None]
    splits |= {file: _word_of(file) for file in others}
    wanted = split_name(split) or split
    chosen = [file for file in files if splits[file] == wanted]
    if not chosen:
        raise SplitError(
            f"{name!r} has no split {split!r}. It has "
            f"{sorted(set(filter(None, splits.values())))}."
        )
    if left := [file for file in others if file not in chosen]:
        _logger.warning(
            "Left out of %r: files of other splits than train, test and "
            "validation: %s",
            name,
            listed(left),
        )
    return chosen


def _download(name: str, commit: str, files: Sequence[str]) -> list[str]:
    """Downloads files of a commit that aren't in the cache."""
    from huggingface_hub import hf_hub_download

    return [
        hf_hub_download(name, file, repo_type="dataset", revision=commit)
        for file in files
    ]
