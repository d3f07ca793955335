"""Addresses on the Hugging Face Hub, and calls of it that say what is wrong."""

import errno
import re
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kerassl.presets.info import PresetError

FORM = "hf://owner/name or hf://owner/name@revision"
WAITS = (1, 2, 4, 8)  # seconds before each new try at a Hub that is busy
LONGEST_WAIT = 60
BUSY = (429, 500, 502, 503, 504)
NETWORK = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
# An answer that broke off, or isn't the Hub's: by name, since the classes are
# those of whichever HTTP library huggingface_hub uses.
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
    """The Hub can't be reached, or doesn't have or allow what was asked for."""


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
    """Calls the Hub, again while it is busy, and rewords its errors.

    huggingface_hub repeats most requests itself, but not those that make a
    commit or a repository, and not all that fail while a file is transferred.

    Args:
        name: str, `"owner/name"`.
        revision: str.
        call: what may be called again.
        fallback: what to return instead if the Hub can't answer, with a
            warning unless offline mode was asked for; `None` for nothing.

    Returns:
        What `call` returns.

    Raises:
        HubError: says why, and what to do.
        PresetError: of `call`'s own.
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
    """Whether a download was refused for its size; text only says so."""
    return any("Consistency check failed" in str(e) for e in _chain(error))


def is_broken(error: BaseException) -> bool:
    """Whether an answer broke off, or was another server's than the Hub's."""
    names = {k.__name__ for e in _chain(error) for k in type(e).__mro__}
    return bool(names.intersection(BROKEN)) or is_wrong_size(error)


def is_full(error: BaseException) -> bool:
    """Whether there is no room on the disk; xet says so in text only."""
    codes = "|".join(str(code) for code in DISK_FULL)
    return getattr(error, "errno", None) in DISK_FULL or bool(
        re.search(rf"os error ({codes})\)", str(error))
    )


def no_room(error: BaseException) -> str:
    """Says that the disk is full, and what to do."""
    return (
        f"The disk is full: {line(error)}. Make room, or choose another place "
        "(HF_HOME moves the cache), and try again."
    )


def line(error: BaseException) -> str:
    """Returns an error's type and text in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _is_final(error: BaseException) -> bool:
    """Whether what the cache holds doesn't answer a call that failed so."""
    from huggingface_hub import errors

    return isinstance(error, errors.RevisionNotFoundError) or any(
        is_full(e) for e in _chain(error)
    )


def _warn(name: str, revision: str, error: Exception) -> None:
    from huggingface_hub import errors

    if any(isinstance(e, errors.OfflineModeIsEnabled) for e in _chain(error)):
        return
    warnings.warn(
        f"{_reason(name, revision, error)} What the cache holds of {name} at "
        f"{revision} is used; it may have changed since.",
        stacklevel=2,
    )


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
    if any(is_full(e) for e in chain):
        return no_room(error)
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
    if status in (None, 200) and is_broken(error):
        return (
            f"What came for {name} broke off, or isn't the Hub's answer but a "
            f"proxy's or a login page. {line(chain[-1])}"
        )
    unreachable = (errors.LocalEntryNotFoundError, *NETWORK)
    if status is None and any(isinstance(e, unreachable) for e in chain):
        return f"The Hub can't be reached for {name}. {line(chain[-1])}"
    return f"The Hub and {name}: {line(error)}"
