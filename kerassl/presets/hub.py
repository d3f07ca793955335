"""Presets on the Hugging Face Hub: downloaded, pulled, pushed."""

import contextlib
import errno
import re
import shutil
import socket
import ssl
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kerassl.presets.info import (
    FILES,
    INFO,
    PresetError,
    PresetInfo,
    read_json,
)
from kerassl.presets.save import save_preset
from kerassl.presets.verify import MOST_BYTES, file_entry, verify_preset
from kerassl.run_folder import ENCODER

FORM = "hf://owner/name or hf://owner/name@revision"
WAITS = (1, 2, 4, 8)  # seconds before each new try at a Hub that is busy
LONGEST_WAIT = 60
BUSY = (429, 500, 502, 503, 504)
NETWORK = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class HubError(PresetError):
    """The Hub can't be reached, or doesn't have or allow what was asked for."""


class Upload(NamedTuple):
    """Where `upload_preset` put a preset.

    Attributes:
        uri: str, `"hf://owner/name@SHA"`, which stands for these files
            forever.
        url: str, of the commit's page.
    """

    uri: str
    url: str


def parse_uri(uri: str, revision: str | None = None) -> tuple[str, str]:
    """Takes a preset's address apart.

    Args:
        uri: str, `"hf://owner/name"` or `"hf://owner/name@revision"`.
        revision: str, a branch, a tag or a commit's SHA, if the address itself
            names none.

    Returns:
        The repository, `"owner/name"`, and the revision, by default `"main"`.

    Raises:
        PresetError: if the address has another form, or there are two
            revisions.

    Example:
    ```python
    parse_uri("hf://ada/resnet@v1")  # ("ada/resnet", "v1")
    ```
    """
    word = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
    match = re.fullmatch(
        rf"hf://({word}/{word})(?:@({word}(?:/{word})*))?", uri
    )
    if match is None or ".." in uri:
        raise PresetError(f"{uri!r} is no address on the Hub. Its form: {FORM}")
    name, own = match.groups()
    if own and revision:
        raise PresetError(
            f"{uri} names a revision, and `revision` another: {revision}"
        )
    return name, own or revision or "main"


def download(uri: str, revision: str | None = None) -> Path:
    """Downloads a preset into the cache of huggingface_hub.

    Only files that a preset is made of are downloaded, all of one commit.
    Progress bars, the cache, its resume and the offline mode
    (`HF_HUB_OFFLINE=1`) are huggingface_hub's; if the Hub can't be reached,
    what the cache holds of the revision is used. huggingface_hub compares
    sizes, not hashes, so that a file that was damaged on its way would stay
    in the cache forever: if one isn't what `kerassl.json` says, all are
    downloaded once more. Whoever uses the preset verifies it.

    Args:
        uri: str, `"hf://owner/name"` or `"hf://owner/name@revision"`.
        revision: str, a branch, a tag or a commit's SHA, if `uri` names none;
            by default the branch `main`.

    Returns:
        The path of a folder whose name is the commit's SHA, and whose files
        are links into the cache.

    Raises:
        PresetError: if the address has another form.
        HubError: if the preset can't be had; says why, and what to do.
    """
    name, revision = parse_uri(uri, revision)

    def snapshot(force: bool) -> Path:
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(FILES),
            force_download=force,
        )
        return Path(folder)

    folder = _ask(name, revision, lambda: snapshot(force=False))
    if not (folder / INFO).is_file():
        raise HubError(f"{uri} is no preset of kerassl: it has no {INFO}.")
    if _is_damaged(folder):
        folder = _ask(name, revision, lambda: snapshot(force=True))
    return folder


def _is_damaged(folder: Path) -> bool:
    """Whether files aren't those that `kerassl.json` describes."""
    with (folder / INFO).open("rb") as file:
        data = file.read(MOST_BYTES[INFO])
    try:
        files = PresetInfo.from_dict(read_json(data, INFO)).files
        return any(file_entry(folder / k) != v for k, v in files.items())
    except (PresetError, FileNotFoundError):
        return True


def pull(uri: str, folder: str | Path, revision: str | None = None) -> Path:
    """Copies a preset from the Hub to a folder, verified.

    The folder appears when all files are in it and verified. Whatever goes
    wrong before leaves nothing behind but what the cache of huggingface_hub
    keeps to resume from.

    Args:
        uri: str, `"hf://owner/name"` or `"hf://owner/name@revision"`.
        folder: path of a new folder.
        revision: as in `download`.

    Returns:
        The folder's path.

    Raises:
        PresetError: if there is something at that path already, or the
            preset is refused by `verify_preset`.
        HubError: as in `download`.

    Example:
    ```python
    kerassl.presets.pull("hf://ada/resnet@v1", "presets/resnet")
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
        reason = _no_room(error) if _is_full(error) else _line(error)
        raise HubError(f"Can't write {folder}. {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def upload_preset(
    source: str | Path,
    uri: str,
    *,
    private: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
) -> Upload:
    """Publishes a preset on the Hugging Face Hub.

    The preset is verified first. The repository is made if there is none, and
    all files go into it in one commit, which also deletes files of an older
    preset that this one lacks; other files there are left alone. A preset
    that is there already makes no new commit, so that an upload can be
    repeated. It needs a token with the right to write, and takes the one that
    huggingface_hub knows: from `hf auth login`, or the variable `HF_TOKEN`.

    Args:
        source: path of a preset's folder, or of a run's, of which a preset is
            saved first, elsewhere. Nothing in the folder is changed. (The
            preset of a run says when it was saved, and so makes a commit
            each time.)
        uri: str, `"hf://owner/name"`, or `"hf://owner/name@branch"`.
        private: bool, whether a new repository is to be private. One that
            exists stays what it is, and a public one is refused if this is
            `True`.
        revision: str, the branch, if `uri` names none; by default `main`. It
            is made if there is none.
        commit_message: str.

    Returns:
        An `Upload`: the preset's pinned address and the commit's page.

    Raises:
        PresetError: if the preset is refused by `verify_preset`; nothing is
            sent then.
        HubError: if the Hub refuses; says why, and what to do.

    Example:
    ```python
    upload = kerassl.upload_preset("runs/a", "hf://ada/resnet", private=True)
    encoder = kerassl.load_encoder(upload.uri)
    ```
    """
    name, revision = parse_uri(uri, revision)
    with _preset(Path(source), name.split("/")[1]) as folder:
        verify_preset(folder)
        files = [file for file in FILES if (folder / file).is_file()]
        return _ask(
            name,
            revision,
            lambda: _push(
                folder,
                files,
                name,
                private,
                revision,
                commit_message or "Upload a preset with kerassl",
            ),
        )


@contextlib.contextmanager
def _preset(source: Path, name: str) -> Iterator[Path]:
    """Yields a preset's folder: the source, or a new one made of a run."""
    if (source / INFO).is_file() or not (source / ENCODER).is_file():
        yield source
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "preset")
        save_preset(source, folder, name=name)
        yield folder


def _push(
    folder: Path,
    files: list[str],
    name: str,
    private: bool,
    revision: str,
    message: str,
) -> Upload:
    """Makes the one commit. All of it may be repeated."""
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationDelete,
        HfApi,
    )

    api = HfApi(library_name="kerassl")
    api.create_repo(name, private=private, exist_ok=True)
    if private and not api.repo_info(name).private:
        raise HubError(
            f"{name} is public on the Hub, and `private` was asked for. Make "
            "it private there, or choose another name."
        )
    if revision != "main":
        api.create_branch(name, branch=revision, exist_ok=True)
    head = api.repo_info(name, revision=revision).sha
    there = set(api.list_repo_files(name, revision=head))
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(file, folder / file) for file in files),
        *(
            CommitOperationDelete(file)
            for file in sorted(there.intersection(FILES) - set(files))
        ),
    ]
    commit = api.create_commit(
        name,
        operations,
        commit_message=message,
        revision=revision,
        # Refused if somebody else's commit came between: a file that seemed
        # to be there already may then be another.
        parent_commit=head,
    )
    return Upload(f"hf://{name}@{commit.oid}", commit.commit_url)


def _ask(name: str, revision: str, call: Callable[[], T]) -> T:
    """Calls the Hub, again while it is busy, and rewords its errors.

    huggingface_hub repeats most requests itself, but not those that make a
    commit or a repository, and not all that fail while a file is transferred.
    """
    waits = iter(WAITS)
    while True:
        try:
            return call()
        except PresetError:
            raise
        except Exception as error:
            wait = _wait(error, next(waits, None))
            if wait is None:
                raise HubError(_reason(name, revision, error)) from error
        time.sleep(wait)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and those that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _response(error: Exception) -> Any:
    """Returns the HTTP response behind an error, or `None`."""
    responses = (getattr(e, "response", None) for e in _chain(error))
    return next((r for r in responses if r is not None), None)


def _wait(error: Exception, wait: float | None) -> float | None:
    """Returns the seconds to wait before a new try, or `None` for none."""
    response = _response(error)
    if wait is None or response is None or response.status_code not in BUSY:
        return None
    asked = response.headers.get("Retry-After", "")
    wait = max(wait, int(asked)) if asked.isdigit() else wait
    return wait if wait <= LONGEST_WAIT else None


def _reason(name: str, revision: str, error: Exception) -> str:
    """Says what an error of the Hub means, and what to do."""
    from huggingface_hub import errors, get_token

    chain = list(_chain(error))
    response = _response(error)
    status = None if response is None else response.status_code
    if any(_is_full(e) for e in chain):
        return _no_room(error)
    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in chain):
        return (
            f"{name} at {revision} isn't whole in the cache, and "
            "HF_HUB_OFFLINE forbids to download it."
        )
    login = "Log in with `hf auth login`, or set HF_TOKEN."
    known = get_token() is not None
    if isinstance(error, errors.GatedRepoError):
        return f"{name} is for users who accepted its terms, on its page."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"There is no {name} on the Hub, or it is private and " + (
            "the token that huggingface_hub knows doesn't open it."
            if known
            else f"needs a token. {login}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision}."
    if status == 401:
        return (
            "The Hub doesn't accept the token that huggingface_hub knows. "
            if known
            else "The Hub wants a token for this. "
        ) + login
    if status == 403:
        return (
            f"The token that huggingface_hub knows isn't allowed to do this "
            f"with {name}. To publish, it needs the right to write there."
        )
    if status == 412:
        return f"Somebody else changed {name} in this moment. Try again."
    if status == 429:
        return "The Hub's rate limit is reached. Wait some minutes" + (
            "." if known else f", or raise it: {login}"
        )
    if status in BUSY:
        return f"The Hub has trouble (status {status}). Try again later."
    unreachable = (errors.LocalEntryNotFoundError, *NETWORK)
    if status is None and any(isinstance(e, unreachable) for e in chain):
        return f"The Hub can't be reached for {name}. {_line(chain[-1])}"
    return f"The Hub and {name}: {_line(error)}"


def _is_full(error: BaseException) -> bool:
    """Whether there is no room on the disk; xet says so in text alone."""
    codes = "|".join(str(code) for code in DISK_FULL)
    return getattr(error, "errno", None) in DISK_FULL or bool(
        re.search(rf"os error ({codes})\)", str(error))
    )


def _no_room(error: BaseException) -> str:
    return (
        f"The disk is full: {_line(error)}. Make room, or choose another place "
        "(HF_HOME moves the cache), and try again."
    )


def _line(error: BaseException) -> str:
    """Returns an error's type and text in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
