"""One process at a time writes into a run's folder."""

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
        # Others couldn't read a locked byte: this one lies behind the text.
        os.lseek(file, 1 << 30, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK = ".lock"
# What the system says if another process holds the lock, and what it says if
# the file system has none.
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class InUseError(OSError):
    """Another process writes into the run's folder."""


@contextlib.contextmanager
def locked(folder: Path, wait: float = 0.5) -> Iterator[None]:
    """Keeps other processes from writing into a run's folder.

    The lock is the operating system's, on an open file: it ends with the
    process, however that ends. The file, `.lock`, says who holds it, and is
    removed at the end.

    Args:
        folder: path of a folder that exists.
        wait: float >= 0, seconds to wait for another process.

    Raises:
        InUseError: if another process holds it, or this one does already.
        OSError: if the file can't be made.
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
        # While it is held, so that it isn't another's; but Windows can't
        # remove an open file.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(file)
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                path.unlink()


def check_free(folder: str | Path) -> None:
    """Refuses a run's folder that another process writes into.

    Args:
        folder: path, of a folder or of nothing.

    Raises:
        InUseError: naming the process.
    """
    path = Path(folder) / LOCK
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:  # There is none, or it can't be looked at.
        return
    try:
        if not _try_lock(file, path):
            raise InUseError(f"{folder} is in use by {_holder(path)}.")
    finally:
        os.close(file)


def _open_locked(path: Path) -> int | None:
    """Returns the locked file, or `None` if another process has it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # Its last holder may have removed it in between.
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
            f"The file system of {path.parent} has no locks. Start no second "
            "run in this folder."
        )
    return True


def _holder(path: Path) -> str:
    """Returns in words who holds a lock."""
    try:
        found = load_json(path)
        return "process {pid} on {host}, since {since}".format(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
