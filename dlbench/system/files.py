"""Write files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dlbench.errors import RecordError

SCRATCH = ".scratch"
"""End of the names of files and folders that are of no use once the process that made them has ended."""
_FREE = "; make room, and the same command goes on where it stopped"
_ADVICE = {
    errno.ENOSPC: _FREE,
    getattr(errno, "EDQUOT", errno.ENOSPC): _FREE,
    errno.EFBIG: ", a limit on the size of files (`ulimit -f`); raise it, and the same command goes on",
    errno.EROFS: "; give a folder that can be written",
    errno.EACCES: "; give a folder that can be written",
    errno.ENOENT: ", the folder was removed or renamed meanwhile; the same command makes it anew",
}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raise what the system refuses as one line that names a path, and says what to do.

    Raises:
        RecordError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}{_ADVICE.get(error.errno or 0, '')}") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing, as UTF-8 with the line ends as given.

    Raises:
        RecordError: the file cannot be written.
    """
    write_pieces(path, [text])


def write_pieces(path: Path, pieces: Iterable[str]) -> None:
    """Write text piece by piece to a temporary file beside `path`, then rename it; readers never see half a file.

    Raises:
        RecordError: the file cannot be written.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=SCRATCH, dir=path.parent)
        scratch = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as handle:
                handle.writelines(pieces)
                handle.flush()
                os.fsync(handle.fileno())
            # mkstemp makes files that only their owner can read; these follow the user's umask like any other.
            scratch.chmod(0o666 & ~_umask())
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Write a folder whole or not at all.

    Yields:
        An empty folder, which takes the place of `folder` where nothing is raised.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(SCRATCH, f".{folder.name}.", folder.parent, ignore_cleanup_errors=True) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()  # the scratch folder can be read by its owner only
        yield made
        if folder.exists():
            folder.replace(Path(scratch) / "before")
        made.replace(folder)


def remove_scratch(folder: Path) -> None:
    """Remove what processes that were killed left in a folder; no other process may be writing there."""
    for left in folder.rglob(f".*{SCRATCH}"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                left.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
