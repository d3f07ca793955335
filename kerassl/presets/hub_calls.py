"""Addresses on the Hugging Face Hub, and calls with readable errors."""

import errno
import re
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kerassl.presets.format.info import PresetError

FORM = "hf://owner/name or hf://owner/name@revision"
WAITS = (1, 2, 4, 8)  # seconds before each retry while the Hub is busy
LONGEST_WAIT = 60
BUSY = (429, 500, 502, 503, 504)
NETWORK = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
# Incomplete answers, or those of another server. By name, since the classes
# depend on the HTTP library that huggingface_hub uses.
BROKEN = (
    "RemoteProtocolError",
    "ReadError",
    "WriteError",
    "DecodingError",
    "JSONDecodeError",
    "FileMetadataError",
)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class HubError(PresetError):
    """The Hub can't be reached, or lacks or forbids what was asked for."""


def parse_uri(uri: str, revision: str | None = None) -> tuple[str, str]:
    """Splits the address of a preset.

    Args:
        uri: str, `"hf://owner/name"` or `"hf://owner/name@revision"`.
        revision: str, a branch, a tag or a commit's SHA, if the address
            doesn't contain one.

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
        raise PresetError(
            f"{uri!r} is not an address on the Hub. Its form: {FORM}"
        )
    name, own = match.groups()
    if own and revision:
        raise PresetError(
            f"{uri} names a revision, and `revision` another: {revision}"
        )
    return name, own or revision or "main"


def ask(
    name: str,
    revision: str,
    call: Callable[[], T],
    fallback: T | None = None,
) -> T:
    """Calls the Hub, retries while it is busy, and rewords its errors.

    huggingface_hub retries most requests itself, but not those that create a
    commit or a repository, nor all failures during a transfer.

    Args:
        name: str, `"owner/name"`.
        revision: str.
        call: function without arguments, which may be called repeatedly.
        fallback: value to return if the Hub can't answer, with a warning
            except in offline mode; `None` to raise an error.

    Returns:
        The result of `call`, or the fallback.

    Raises:
        HubError: says why, and what to do.
        PresetError: if `call` raises one.
    """
    waits, was_broken = iter(WAITS), False
    while True:
        try:
            return call()
        except PresetError:
            raise
        except Exception as error:
            if is_broken(error) and not was_broken:
                was_broken = True
                continue
            if fallback is not None and not _is_final(error):
                _warn(name, revision, error)
                return fallback
            wait = _wait(error, next(waits, None))
            if wait is None:
                raise HubError(_reason(name, revision, error)) from error
        time.sleep(wait)


def is_wrong_size(error: BaseException) -> bool:
    """Whether a download had the wrong size, which only the text says."""
    return any("Consistency check failed" in str(e) for e in _chain(error))


def is_broken(error: BaseException) -> bool:
    """Whether an answer is incomplete, or not from the Hub."""
    names = {k.__name__ for e in _chain(error) for k in type(e).__mro__}
    return bool(names.intersection(BROKEN)) or is_wrong_size(error)


def is_full(error: BaseException) -> bool:
    """Whether the disk is full; xet says so only in the text."""
    codes = "|".join(str(code) for code in DISK_FULL)
    return getattr(error, "errno", None) in DISK_FULL or bool(
        re.search(rf"os error ({codes})\)", str(error))
    )


def no_room(error: BaseException) -> str:
    """Returns a message that the disk is full."""
    return (
        f"The disk is full: {line(error)}. Free some space, or use another "
        "folder (HF_HOME moves the cache), and try again."
    )


def line(error: BaseException) -> str:
    """Returns an error's type and text in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _is_final(error: BaseException) -> bool:
    """Whether an error rules out using the cache instead."""
    from huggingface_hub import errors

    return isinstance(error, errors.RevisionNotFoundError) or any(
        is_full(e) for e in _chain(error)
    )


def _warn(name: str, revision: str, error: Exception) -> None:
    from huggingface_hub import errors

    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in _chain(error)):
        return
    warnings.warn(
        f"{_reason(name, revision, error)} Using the cached {name} at "
        f"{revision}, which may have changed since.",
        stacklevel=2,
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _response(error: Exception) -> Any:
    """Returns the HTTP response behind an error, or `None`."""
    responses = (getattr(e, "response", None) for e in _chain(error))
    return next((r for r in responses if r is not None), None)


def _wait(error: Exception, wait: float | None) -> float | None:
    """Returns the seconds to wait before a retry; `None` not to retry."""
    response = _response(error)
    if wait is None or response is None or response.status_code not in BUSY:
        return None
    asked = response.headers.get("Retry-After", "")
    wait = max(wait, int(asked)) if asked.isdigit() else wait
    return wait if wait <= LONGEST_WAIT else None


def _reason(name: str, revision: str, error: Exception) -> str:
    """Returns what an error of the Hub means, and what to do."""
    from huggingface_hub import errors, get_token

    chain = list(_chain(error))
    response = _response(error)
    status = None if response is None else response.status_code
    if any(is_full(e) for e in chain):
        return no_room(error)
    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in chain):
        return (
            f"{name} at {revision} isn't complete in the cache, and "
            "HF_HUB_OFFLINE forbids downloading it."
        )
    login = "Log in with `hf auth login`, or set HF_TOKEN."
    known = get_token() is not None
    if isinstance(error, errors.GatedRepoError):
        return f"{name} is only for users who accepted the terms on its page."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"There is no {name} on the Hub, or it is private and " + (
            "the token that huggingface_hub knows gives no access to it."
            if known
            else f"needs a token. {login}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision}."
    if status == 401:
        return (
            "The Hub doesn't accept the token that huggingface_hub knows. "
            if known
            else "The Hub requires a token for this. "
        ) + login
    if status == 403:
        return (
            f"The token that huggingface_hub knows isn't allowed to do this "
            f"with {name}. To publish, it needs write access there."
        )
    if status == 412:
        return f"Somebody else changed {name} at the same time. Try again."
    if status == 429:
        return "The Hub's rate limit is reached. Wait a few minutes" + (
            "." if known else f", or raise it: {login}"
        )
    if status in BUSY:
        return f"The Hub is in trouble (status {status}). Try again later."
    if status in (None, 200) and is_broken(error):
        return (
            f"The answer for {name} is incomplete, or comes from a proxy or a "
            f"login page instead of the Hub. {line(chain[-1])}"
        )
    unreachable = (errors.LocalEntryNotFoundError, *NETWORK)
    if status is None and any(isinstance(e, unreachable) for e in chain):
        return f"The Hub can't be reached for {name}. {line(chain[-1])}"
    return f"The Hub and {name}: {line(error)}"
