"""A lock that lets only one process write into a run's folder."""

import contextlib
import datetime
import errno
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from kerassl.reading import load_json

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        # Others can't read a locked byte, so lock one far behind the text.
        os.lseek(file, 1 << 30, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK = ".lock"
# Error numbers if another process holds the lock, and if the file system
# doesn't support locks.
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
# Opens no link, whose target would be overwritten. Windows has no such flag.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class InUseError(OSError):
    """Another process is using the run's folder."""


@contextlib.contextmanager
def locked(folder: Path, wait: float = 0.5) -> Iterator[None]:
    """Keeps other processes from writing into a run's folder.

    The operating system locks an open file, and releases it however the
    process ends. The file, `.lock`, names the process, and is removed at the
    end of the block.

    Args:
        folder: path of an existing folder.
        wait: float >= 0, the seconds to wait for another process.

    Raises:
        InUseError: if the lock is held, by another process or by this one.
        OSError: if the file can't be created, or is a link.
    """
    path = folder / LOCK
    end = time.monotonic() + wait
    while (file := _open_locked(path)) is None:
        if time.monotonic() >= end:
            raise InUseError(f"{folder} is in use by {_holder(path)}.")
        time.sleep(0.05)
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.datetime.now().isoformat(" ", "seconds"),
        }
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(holder).encode())
        yield
    finally:
        # Remove it while it is locked, so that it can't be the file of another
        # process. Windows can't remove an open file.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                path.unlink()


def check_free(folder: str | Path) -> None:
    """Checks that no other process uses a run's folder.

    Args:
        folder: path of a folder, which may be missing.

    Raises:
        InUseError: if one does, naming the process.
        OSError: if the lock file is a link.
    """
    path = Path(folder) / LOCK
    try:
        file = _open(path)
    except OSError:  # No lock file, or no access to it.
        if path.is_symlink():
            raise
        return
    try:
        if not _try_lock(file, path):
            raise InUseError(f"{folder} is in use by {_holder(path)}.")
    finally:
        os.close(file)


def _open(path: Path, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDWR | _NO_LINK | flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise OSError(
                f"{path} is a link, and a run's lock must be a file of its "
                "own. Remove the link."
            ) from error
        raise


def _open_locked(path: Path) -> int | None:
    """Returns the locked file, or `None` if another process holds the lock."""
    file = _open(path, os.O_CREAT)
    try:
        # The last holder may have removed the file after it was opened.
        if _try_lock(file, path) and os.path.samestat(
            os.fstat(file), os.stat(path)
        ):
            return file
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _try_lock(file: int, path: Path) -> bool:
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"The file system of {path.parent} doesn't support locks. Don't "
            "start a second run in this folder."
        )
    return True


def _holder(path: Path) -> str:
    """Returns a description of the process that holds a lock."""
    try:
        found = load_json(path)
        return "process {pid} on {host}, since {since}".format(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
