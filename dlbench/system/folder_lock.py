"""A lock on a folder: one command at a time writes there. The system frees it when its process ends."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
WAIT = 5.0
"""Seconds to wait for a command that is ending."""
_TAKEN = (errno.EAGAIN, errno.EACCES)


class FolderLock:
    """The right to write to a folder; two commands of one machine never have it together.

    Over network file systems it holds between machines where these pass locks on; where they know no locks, it does
    nothing.
    """

    def __init__(self, folder: Path, option: str = "--out") -> None:
        """Prepare.

        Args:
            folder: that is written to.
            option: the option that gave it, for messages.
        """
        self.folder, self.option = folder, option
        self._file: int | None = None

    def take(self, wait: float = WAIT) -> bool:
        """Take the lock and leave word of this process in it; it is held until `free`, or the end of the process.

        Returns:
            False where this object had it already.

        Raises:
            DlbenchError: another process holds it still after `wait` seconds; the message names it.
            OSError: the lock file cannot be made.
        """
        if self._file is not None:
            return False
        if fcntl is None:
            return True
        file = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        limit = time.monotonic() + wait
        while not _locked(file):
            if time.monotonic() >= limit:
                first = _named(_read(file))
                os.close(file)
                raise DlbenchError(
                    f"{self.option} {self.folder}: another command writes there ({first}): wait for its end, or give "
                    "another folder"
                )
            time.sleep(0.1)
        word = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(OSError):  # a full disk is told by what is written next
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(word).encode(), 0)
        self._file = file
        return True

    def free(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def check_free(folder: Path, wait: float = WAIT) -> None:
    """Refuse a folder that another command writes to, without leaving anything in it.

    Raises:
        DlbenchError: another process holds its lock still after `wait` seconds.
    """
    if (folder / LOCK_FILE).is_file():
        lock = FolderLock(folder)
        lock.take(wait)
        lock.free()


def holder(folder: Path) -> str:
    """Name the process that writes to a folder; empty where there is none."""
    if fcntl is None:
        return ""
    try:
        file = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except OSError as error:
        return _named(_read(file)) if error.errno in _TAKEN else ""
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    """Try to lock a file; True where it is locked now, or the file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def _read(file: int) -> Mapping[str, Any]:
    try:
        word = json.loads(os.pread(file, 1000, 0))
        return word if isinstance(word, dict) else {}
    except (OSError, ValueError):
        return {}


def _named(word: Mapping[str, Any]) -> str:
    pid, host, since = (str(word.get(name, "?"))[:100] for name in ("pid", "host", "since"))
    return f"process {pid} on {host}, since {since}"
