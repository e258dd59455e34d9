"""Errors that dlbench shows to users.

Everything that a user can cause and correct is a `DlbenchError`: the command line prints its message on one line,
without a traceback, and ends with its exit code. Any other exception is a bug.
"""

from __future__ import annotations

import errno
from typing import ClassVar

OF_THE_SYSTEM = tuple(
    number
    for name in (
        *("EACCES", "EPERM", "EIO", "ENOSPC", "EDQUOT", "EFBIG", "EROFS", "ESTALE", "EMFILE", "ENFILE"),
        *("ENAMETOOLONG", "ELOOP", "ENOTDIR", "EISDIR", "EAGAIN", "ENOMEM"),
    )
    if (number := getattr(errno, name, None)) is not None
)
"""Error numbers whose system message says enough: no permission, no space, a quota, too many open files, no path."""


class DlbenchError(Exception):
    """An error with one line for users: what was wrong, where, and what to do."""

    exit_code: ClassVar[int] = 2


def of_the_system(error: BaseException) -> DlbenchError | None:
    """The error for users of a fault of the system, such as a full disk; None where it is another fault."""
    if not isinstance(error, OSError) or error.errno not in OF_THE_SYSTEM:
        return None
    return DlbenchError(f"{error.filename or 'the output'}: {error.strerror}")


class MethodError(DlbenchError):
    """The code of a method failed, or broke what the method declares: a run goes on with its other methods."""


class WeightsChangedError(DlbenchError):
    """The code of a method changed the backbone's weights: nothing that is decoded from then on is full depth's."""


class RowsLeftOutError(DlbenchError):
    """A run was carried out, but some methods failed and have no row."""

    exit_code: ClassVar[int] = 3


class WorkerLost(DlbenchError):
    """A process of a run was killed, stopped or stuck: what the processes had finished is kept."""

    exit_code: ClassVar[int] = 3


class RecordError(DlbenchError):
    """A file of a run cannot be read or written: the message names the file, the line and the fault."""
