"""The errors dlbench shows to people.

Everything that a user can cause and mend is a `DlbenchError`: the command line prints its message on one line, without
a traceback, and ends with its exit code. Any other exception is a bug.
"""

from __future__ import annotations

import errno
from typing import ClassVar

OF_THE_SYSTEM = (errno.EACCES, errno.EPERM, errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE)
"""Numbers of errors that the operating system's word explains: no leave, no room, no more open files."""


class DlbenchError(Exception):
    """Say what was wrong, where, and what to do."""

    exit_code: ClassVar[int] = 2


class RecordError(DlbenchError):
    """A file of a run cannot be read or written: the message names the file, the line and the fault."""
