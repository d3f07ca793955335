"""Files at paths and at URLs such as s3://, gs://, https:// and hf://.

URLs are read through fsspec, which comes with huggingface_hub. It needs a
package for most protocols, such as s3fs, and finds credentials as that does.
"""

import glob
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")
V = TypeVar("V")

#: Requests at the same time: each waits longer than it transfers.
AT_ONCE = 16
# Seconds to wait before trying again.
_PAUSES = (0.5, 2.0, 8.0)
_FINAL = (FileNotFoundError, PermissionError, ImportError, ValueError)
_AHEAD_BYTES = 2**20
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_url(path: str | Path) -> bool:
    """Returns whether a path is a URL, such as `"s3://bucket/a.tar"`."""
    return re.match(r"[a-z][a-z0-9+.-]+://", str(path)) is not None


def find_files(pattern: str) -> list[str]:
    """Returns the files that a pattern names, sorted.

    Args:
        pattern: path or URL, with `*`, `?`, `[...]`, and `{000..146}` for a
            range of numbers, of as many digits as they have.

    Raises:
        FileNotFoundError: if there is none, or one of a range is missing at a
            path.
        ValueError: if the URL's protocol is unknown or needs a package.
    """
    parts = _NUMBERS.split(pattern)
    choices = []
    for low, high in zip(parts[1::3], parts[2::3]):
        numbers = range(int(low), int(high) + 1)
        choices.append([f"{n:0{len(low)}}" for n in numbers])
    found: list[str] = []
    for chosen in itertools.product(*choices):
        one = "".join(a + b for a, b in zip(parts[::3], (*chosen, "")))
        matches = _matches(one)
        if not matches:
            raise FileNotFoundError(f"There is no file {one!r}.")
        found += matches
    if not found:  # As of {9..3}.
        raise FileNotFoundError(f"There is no file {pattern!r}.")
    return found


def _matches(pattern: str) -> list[str]:
    if not is_url(pattern):
        path = os.path.expanduser(pattern)
        # Its name may have brackets.
        return [path] if os.path.exists(path) else sorted(glob.glob(path))
    system, inner = _filesystem(pattern)
    if not glob.has_magic(inner):
        return [pattern]
    try:
        names = patiently(lambda: system.glob(inner))
    except FileNotFoundError:
        return []
    except Exception as error:
        raise unreachable(pattern, error) from error
    return sorted(system.unstrip_protocol(name) for name in names)


def unreachable(url: str, error: Exception) -> Exception:
    """Returns the error to raise for a URL that can't be read."""
    # Of HTTP, fsspec calls everything a missing file.
    cause = error.__cause__ or error
    words = f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    if isinstance(error, FileNotFoundError):
        reason = "" if cause is error else f" ({words})"
        return FileNotFoundError(f"There is no file {url!r}{reason}.")
    return ValueError(f"{url!r} can't be read ({words}).")


def _filesystem(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system for a URL, and the path in it.

    It is looked up each time, since those of other processes can't be used;
    fsspec keeps them.
    """
    import fsspec

    try:
        return fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        # fsspec's message names the package.
        raise ValueError(f"{url!r} can't be opened: {error}") from error


def patiently(attempt: Callable[[], T]) -> T:
    """Tries what may fail for a moment, as networks do."""
    for pause in _PAUSES:
        try:
            return attempt()
        except Exception as error:
            if _is_final(error):
                raise
            time.sleep(pause)
    return attempt()


def _is_final(error: Exception) -> bool:
    """Returns whether trying again won't help."""
    status = getattr(error, "status", None)  # aiohttp's
    response = getattr(error, "response", None)  # huggingface_hub's
    status = getattr(response, "status_code", status)
    if isinstance(status, int) and 400 <= status < 500:
        return status not in (408, 429)  # A timeout, and too many requests.
    return isinstance(error, _FINAL)


def open_file(path: str | Path, ahead: int = _AHEAD_BYTES) -> IO[bytes]:
    """Opens a file at a path or a URL for reading.

    Args:
        path: path or URL.
        ahead: int, how many bytes of a URL to read ahead. With 0, only what is
            asked for.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it can't be read.
        ValueError: as `find_files`.
    """
    if not is_url(path):
        return open(path, "rb")
    system, inner = _filesystem(str(path))
    options: dict[str, Any] = {"cache_type": "none"}
    if ahead:
        options = {"cache_type": "readahead", "block_size": ahead}
    return patiently(lambda: system.open(inner, "rb", **options))


def read_range(path: str | Path, start: int, size: int) -> bytes:
    """Reads a part of a file at a path or a URL.

    Args:
        path: path or URL.
        start: int, the first byte.
        size: int, the number of bytes.

    Raises:
        OSError: if it can't be read.
        ValueError: as `find_files`.
    """
    if not is_url(path):
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(size)
    system, inner = _filesystem(str(path))
    options = {} if system.async_impl else {"cache_type": "none"}

    def read() -> bytes:
        # By name: other arguments come first for S3.
        content = system.cat_file(
            inner, start=start, end=start + size, **options
        )
        if len(content) != size:
            raise OSError(
                f"{len(content):,} bytes instead of {size:,}: the file was "
                "changed, or its server answers no ranges"
            )
        return content

    return patiently(read)


def identity(path: str | Path) -> str:
    """Returns what changes when a file does, as text.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if it can't be reached.
        ValueError: as `find_files`.
    """
    if not is_url(path):
        found = os.stat(path)
        times = found.st_mtime_ns, found.st_ctime_ns
        return repr((found.st_dev, found.st_ino, found.st_size, *times))
    system, inner = _filesystem(str(path))
    info = patiently(lambda: system.info(inner))
    return json.dumps(info, default=str, sort_keys=True)


def for_each(task: Callable[[V], T], paths: Sequence[V]) -> list[T]:
    """Returns the results of a task for each path: of URLs, many at once."""
    if len(paths) < 2 or not any(is_url(str(path)) for path in paths):
        return list(map(task, paths))
    with ThreadPoolExecutor(min(AT_ONCE, len(paths))) as threads:
        return list(threads.map(task, paths))
