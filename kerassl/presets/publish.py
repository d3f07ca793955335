"""Publishes presets on the Hugging Face Hub."""

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kerassl.presets.format.info import (
    CARD,
    FILES,
    INFO,
    WEIGHTS,
    PresetError,
    PresetInfo,
    read_json,
)
from kerassl.presets.format.verify import MOST_BYTES, verify_preset
from kerassl.presets.hub_calls import HubError, ask, line, parse_uri
from kerassl.presets.privacy import private_text


class Publication(NamedTuple):
    """What `upload_preset` is about to send.

    Attributes:
        name: str, the repository, `"owner/name"`.
        revision: str, the branch.
        is_new: bool, whether the repository will be created.
        is_private: bool, whether only its owner will see it.
        files: dict of file names to sizes in bytes.
        info: `PresetInfo`.
        keeps_card: bool, whether the card on the Hub is kept, because it was
            edited.
        replaces_card: bool, whether an edited card is overwritten.
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
    """The result of `upload_preset`.

    Attributes:
        uri: str, `"hf://owner/name@SHA"`, the pinned address of these files.
        url: str, of the commit's page.
        kept_card: bool, whether an edited card on the Hub was kept.
    """

    uri: str
    url: str
    kept_card: bool = False


def upload_preset(
    uri: str,
    preset: str | Path,
    *,
    private: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
    overwrite_card: bool = False,
    confirm: Callable[[Publication], bool] | None = None,
) -> Upload:
    """Publishes a preset on the Hugging Face Hub.

    The preset is verified first, and refused if a file mentions a path of this
    machine. The repository is created if needed. All files go into one commit,
    which also deletes files of an older preset that this one lacks. Other files
    are left alone, and so is a card (`README.md`) that was edited on the Hub.
    Uploading an unchanged preset again makes no commit. The upload needs a
    token with write access, which huggingface_hub takes from `hf auth login` or
    from the variable `HF_TOKEN`.

    Args:
        uri: str, `"hf://owner/name"` or `"hf://owner/name@branch"`.
        preset: path of the preset's folder. Nothing in it is changed.
        private: bool, whether a new repository becomes private. An existing
            one keeps its visibility, and a public one is refused if this is
            `True`.
        revision: str, the branch, if `uri` names none; by default `main`. It
            is created if needed.
        commit_message: str.
        overwrite_card: bool, whether a card that was written or edited on the
            Hub is overwritten. By default it is kept, with a warning.
        confirm: function of a `Publication` that returns whether to go on. It
            is called before anything is sent.

    Returns:
        An `Upload`: the preset's pinned address and the commit's page.

    Raises:
        PresetError: if the preset is refused by `verify_preset`, mentions a
            path of this machine or wasn't confirmed, or if the Hub doesn't
            accept its card. Nothing is sent then.
        HubError: if the Hub refuses; says why, and what to do.
        ValueError: if the arguments are swapped.

    Example:
    ```python
    upload = kerassl.upload_preset(
        "hf://ada/resnet", "presets/resnet", private=True
    )
    encoder = kerassl.load_encoder(upload.uri)
    ```
    """
    if str(preset).startswith("hf://"):
        raise ValueError(
            "The address on the Hub comes first: upload_preset(uri, preset). "
            f"Received: upload_preset({str(uri)!r}, {str(preset)!r})"
        )
    name, revision = parse_uri(uri, revision)
    folder = Path(preset)
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
        raise PresetError("Nothing was sent: the upload wasn't confirmed.")
    message = commit_message or "Upload a preset with kerassl"
    upload = ask(
        name, revision, lambda: _push(folder, plan, message, overwrite_card)
    )
    if upload.kept_card and confirm is None:
        warnings.warn(
            f"The {CARD} of {name} was edited on the Hub, and was kept. "
            "`overwrite_card=True` replaces it.",
            stacklevel=2,
        )
    return upload


def _check_private(folder: Path, files: dict[str, int]) -> None:
    for name in files:
        if name == WEIGHTS:
            continue
        if found := private_text(name, (folder / name).read_bytes()):
            raise PresetError(
                f"{found}, which would become public. Save the preset again "
                "without it."
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
    """Reads the state of the repository, and has the Hub check the card."""
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
    """Has the Hub check a card before anything is created."""
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
    """Whether the card on the Hub was written or edited there.

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
    """Makes the commit. It is safe to repeat."""
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationDelete,
        HfApi,
    )

    api = HfApi(library_name="kerassl")
    name, revision = plan.name, plan.revision
    api.create_repo(name, private=plan.is_private, exist_ok=True)
    if plan.is_private and not api.repo_info(name).private:
        raise HubError(f"{name} has become public on the Hub. Check it there.")
    if revision != "main":
        api.create_branch(name, branch=revision, exist_ok=True)
    head = str(api.repo_info(name, revision=revision).sha)
    keeps = not overwrite_card and _has_foreign_card(api, name, head, folder)
    files = [file for file in plan.files if not (keeps and file == CARD)]
    there = set(api.list_repo_files(name, revision=head))
    # A card on the Hub is never deleted.
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
        # Refused if another commit came in between, which may have changed a
        # file that seemed to be there already.
        parent_commit=head,
    )
    return Upload(f"hf://{name}@{commit.oid}", commit.commit_url, keeps)


def _info(folder: Path) -> bytes:
    """Returns `kerassl.json` with the hash of the current card.

    The card may have been edited in the folder. The next push compares the
    hash with the card on the Hub.
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
