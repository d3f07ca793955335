"""Publishes presets on the Hugging Face Hub."""

import contextlib
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kerassl.presets.hub_calls import HubError, ask, line, parse_uri
from kerassl.presets.info import (
    CARD,
    FILES,
    INFO,
    WEIGHTS,
    PresetError,
    PresetInfo,
    read_json,
)
from kerassl.presets.public import private_text
from kerassl.presets.save import save_preset
from kerassl.presets.verify import MOST_BYTES, verify_preset
from kerassl.run_folder import ENCODER


class Publication(NamedTuple):
    """What `upload_preset` is about to send.

    Attributes:
        name: str, the repository, `"owner/name"`.
        revision: str, the branch.
        is_new: bool, whether the repository is made for it.
        is_private: bool, whether only its owner will see it.
        files: dict of the names of the files to their sizes in bytes.
        info: `PresetInfo`.
        keeps_card: bool, whether a card that is there stays, since it isn't
            the one that kerassl wrote.
        replaces_card: bool, whether such a card is overwritten.
    """

    name: str
    revision: str
    is_new: bool
    is_private: bool
    files: dict[str, int]
    info: PresetInfo
    keeps_card: bool
    replaces_card: bool


class Upload(NamedTuple):
    """Where `upload_preset` put a preset.

    Attributes:
        uri: str, `"hf://owner/name@SHA"`, which stands for these files
            forever.
        url: str, of the commit's page.
        kept_card: bool, whether the card is the one that was there.
    """

    uri: str
    url: str
    kept_card: bool = False


def upload_preset(
    source: str | Path,
    uri: str,
    *,
    private: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
    overwrite_card: bool = False,
    confirm: Callable[[Publication], bool] | None = None,
) -> Upload:
    """Publishes a preset on the Hugging Face Hub.

    The preset is verified first, and refused if a file names a path of this
    machine. The repository is made if there is none, and
    all files go into it in one commit, which also deletes files of an older
    preset that this one lacks; other files there are left alone, and so is a
    card (`README.md`) that was edited on the Hub. A preset
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
        license: str, as in `save_preset`, for a run. A preset has its own.
        datasets: likewise.
        overwrite_card: bool, whether a card that was edited on the Hub, or
            written there, is overwritten. By default it is kept, with a
            warning.
        confirm: gets a `Publication`, and returns whether to go on. It is
            called before anything is sent.

    Returns:
        An `Upload`: the preset's pinned address and the commit's page.

    Raises:
        PresetError: if the preset is refused by `verify_preset`, names a
            path of this machine or wasn't confirmed, or the Hub doesn't
            accept its card; nothing is sent then.
        HubError: if the Hub refuses; says why, and what to do.

    Example:
    ```python
    upload = kerassl.upload_preset(
        "runs/a", "hf://ada/resnet", license="mit", private=True
    )
    encoder = kerassl.load_encoder(upload.uri)
    ```
    """
    name, revision = parse_uri(uri, revision)
    with _preset(Path(source), name, license, datasets) as folder:
        info = verify_preset(folder)
        files = {
            file: (folder / file).stat().st_size
            for file in FILES
            if (folder / file).is_file()
        }
        _check_private(folder, files)
        plan = ask(
            name,
            revision,
            lambda: _plan(
                folder, name, revision, private, files, info, overwrite_card
            ),
        )
        if confirm is not None and not confirm(plan):
            raise PresetError("Nothing was sent, as it wasn't confirmed.")
        message = commit_message or "Upload a preset with kerassl"
        upload = ask(
            name, revision, lambda: _push(folder, plan, message, overwrite_card)
        )
    if upload.kept_card and confirm is None:
        warnings.warn(
            f"The {CARD} of {name} isn't the one that kerassl wrote, and was "
            "kept. `overwrite_card=True` replaces it.",
            stacklevel=2,
        )
    return upload


@contextlib.contextmanager
def _preset(
    source: Path, name: str, license: str | None, datasets: Sequence[str]
) -> Iterator[Path]:
    """Yields a preset's folder: the source, or a new one made of a run."""
    if (source / INFO).is_file() or not (source / ENCODER).is_file():
        if license is not None or datasets:
            raise PresetError(
                f"The license and data of a preset are in its {INFO}. Name "
                "them in `save_preset`, or push the run."
            )
        yield source
        return
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "preset")
        save_preset(
            source,
            folder,
            name=name.split("/")[1],
            license=license,
            datasets=datasets,
        )
        yield folder


def _check_private(folder: Path, files: dict[str, int]) -> None:
    for name in files:
        if name == WEIGHTS:
            continue
        if found := private_text(name, (folder / name).read_bytes()):
            raise PresetError(
                f"{found}, which would become public. Save the preset of its "
                "run again, or without it."
            )


def _plan(
    folder: Path,
    name: str,
    revision: str,
    private: bool,
    files: dict[str, int],
    info: PresetInfo,
    overwrite_card: bool,
) -> Publication:
    """Looks what is there, and lets the Hub check the card."""
    from huggingface_hub import HfApi, errors

    api = HfApi(library_name="kerassl")
    is_new, foreign = False, False
    try:
        there = api.model_info(name)
        if private and not there.private:
            raise HubError(
                f"{name} is public on the Hub, and `private` was asked for. "
                "Make it private there, or choose another name."
            )
        private = bool(there.private)
        with contextlib.suppress(errors.RevisionNotFoundError):
            there = api.model_info(name, revision=revision)
        foreign = _has_foreign_card(api, name, str(there.sha), folder)
    except errors.RepositoryNotFoundError:
        is_new = True
    keeps = foreign and not overwrite_card
    if CARD in files and not keeps:
        _check_card(folder / CARD)
    return Publication(
        name,
        revision,
        is_new,
        private,
        files,
        info,
        keeps,
        foreign and overwrite_card,
    )


def _check_card(path: Path) -> None:
    """Has the Hub look at a card before anything is made there."""
    import yaml
    from huggingface_hub import RepoCard

    try:
        RepoCard(path.read_text(encoding="utf-8")).validate("model")
    except (ValueError, yaml.YAMLError) as error:
        raise PresetError(
            f"The Hub doesn't accept {CARD}: {_messages(error)}"
        ) from error


def _messages(error: Exception) -> str:
    """Returns the errors in the Hub's answer, in one line."""
    try:
        errors = json.loads(str(error))["errors"]
        return " ".join(str(e["message"]) for e in errors)[:1000]
    except (ValueError, KeyError, TypeError):
        return line(error)[:1000]


def _has_foreign_card(api: Any, name: str, head: str, folder: Path) -> bool:
    """Whether the card on the Hub is neither kerassl's nor this one.

    `kerassl.json` has the hash of the card that was pushed with it.
    """
    there = {
        file.path: file
        for file in api.get_paths_info(name, [CARD, INFO], revision=head)
    }
    if CARD not in there:
        return False
    if any(file.size > MOST_BYTES[k] for k, file in there.items()):
        return True

    def read(file: str) -> bytes:
        path = api.hf_hub_download(name, file, revision=head)
        return Path(path).read_bytes()

    found = read(CARD)
    if (folder / CARD).is_file() and (folder / CARD).read_bytes() == found:
        return False
    try:
        files = PresetInfo.from_dict(read_json(read(INFO), INFO)).files
        return files[CARD]["sha256"] != hashlib.sha256(found).hexdigest()
    except (PresetError, OSError, KeyError):
        return True


def _push(
    folder: Path, plan: Publication, message: str, overwrite_card: bool
) -> Upload:
    """Makes the one commit. All of it may be repeated."""
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationDelete,
        HfApi,
    )

    api = HfApi(library_name="kerassl")
    name, revision = plan.name, plan.revision
    api.create_repo(name, private=plan.is_private, exist_ok=True)
    if plan.is_private and not api.repo_info(name).private:
        raise HubError(f"{name} has become public on the Hub. Look there.")
    if revision != "main":
        api.create_branch(name, branch=revision, exist_ok=True)
    head = str(api.repo_info(name, revision=revision).sha)
    keeps = not overwrite_card and _has_foreign_card(api, name, head, folder)
    files = [file for file in plan.files if not (keeps and file == CARD)]
    there = set(api.list_repo_files(name, revision=head))
    # The user's text on the Hub is nobody's to delete.
    old = there.intersection(FILES) - {*files, CARD}
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(
            CommitOperationAdd(
                file, _info(folder) if file == INFO else folder / file
            )
            for file in files
        ),
        *(CommitOperationDelete(file) for file in sorted(old)),
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
    return Upload(f"hf://{name}@{commit.oid}", commit.commit_url, keeps)


def _info(folder: Path) -> bytes:
    """Returns `kerassl.json` with the hash of the card as it is.

    A card may be edited in the folder too, and the next push shall know it.
    """
    data = (folder / INFO).read_bytes()
    fields = json.loads(data)
    if not (folder / CARD).is_file():
        return data
    card = (folder / CARD).read_bytes()
    entry = {"sha256": hashlib.sha256(card).hexdigest(), "size": len(card)}
    if fields["files"].get(CARD) == entry:
        return data
    fields["files"][CARD] = entry
    return (json.dumps(fields, indent=2, allow_nan=False) + "\n").encode()
