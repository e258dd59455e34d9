"""Errors that dlbench shows to users.

Everything that a user can cause and correct is a `DlbenchError`: the command line prints its message on one line,
without a traceback, and ends with its exit code. Any other exception is a bug.
"""

from __future__ import annotations

import errno
from typing import ClassVar

OF_THE_SYSTEM = (errno.EACCES, errno.EPERM, errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE)
"""Error numbers whose system message says enough: no permission, no space, too many open files."""


class DlbenchError(Exception):
    """An error with one line for users: what was wrong, where, and what to do."""

    exit_code: ClassVar[int] = 2


class MethodError(DlbenchError):
    """The code of a method failed, or broke what the method declares: a run goes on with its other methods."""


class RowsLeftOutError(DlbenchError):
    """A run was carried out, but some methods failed and have no row."""

    exit_code: ClassVar[int] = 3


class RecordError(DlbenchError):
    """A file of a run cannot be read or written: the message names the file, the line and the fault."""
