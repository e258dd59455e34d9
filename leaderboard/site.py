"""Write the site of a board, or check that the site in a folder is up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlbench.errors import DlbenchError
from dlbench.leaderboard.board import Board
from dlbench.leaderboard.exports import board_json
from dlbench.leaderboard.pages.site_files import site_files
from dlbench.leaderboard.workers import ALONE, Workers

MANIFEST = "manifest.json"


class BoardError(DlbenchError):
    """The site can't be built there."""


def build(board: Board, out: Path, workers: Workers = ALONE) -> Path:
    """Build the site of a board and return its front page.

    The same records give the same bytes. Files of an earlier site that this one lacks are removed.

    Args:
        board: by `read_board`.
        out: the site's folder.
        workers: take over the pages.

    Raises:
        BoardError: `out` is a file or a run folder, or cannot be written.
    """
    check_place(board.run_dirs, out)
    before = _listed(out)
    sums = {}
    for path, raw in site_files(board, workers):
        sums[path] = hashlib.sha256(raw).hexdigest()
        put(out / path, raw)
    for path in before - sums.keys():
        (out / path).unlink(missing_ok=True)
    put(out / MANIFEST, _manifest(sums))
    return out / "index.html"


def check(board: Board, out: Path, workers: Workers = ALONE) -> int:
    """Build the site in memory and compare it with the one in the folder; return how many files are equal.

    Args:
        board: by `read_board`.
        out: the site's folder.
        workers: take over the pages.

    Raises:
        BoardError: a file is missing, differs, or should not be there.
    """
    again = f"build it again: {_command(board)} --out {out}"
    known = {MANIFEST}
    for path, raw in site_files(board, workers):
        file = out / path
        if not file.is_file():
            raise BoardError(f"{file} is missing; {again}")
        if file.read_bytes() != raw:
            raise BoardError(f"{file} is stale: these records give another; {again}")
        known.add(path)
    there = (str(one.relative_to(out)) for one in out.rglob("*") if one.is_file())
    strange = sorted(path for path in there if path not in known)
    if strange:
        raise BoardError(f"{out / strange[0]} belongs to no site of these records; remove it, or {again}")
    return len(known) - 1


def write_index(board: Board, path: Path) -> None:
    """Write the board's figures and ranks as one JSON file, which a repository keeps so that changes are seen.

    Raises:
        BoardError: the file can't be written.
    """
    put(path, _index(board))


def check_index(board: Board, path: Path) -> None:
    """Raise unless such a file is what the records give.

    Raises:
        BoardError: it is missing or stale.
    """
    again = f"write it again: {_command(board)} --index {path}"
    if not path.is_file():
        raise BoardError(f"{path} is missing; {again}")
    if path.read_bytes() != _index(board):
        raise BoardError(f"{path} is stale: these records give other figures; {again}")


def _index(board: Board) -> bytes:
    return board_json(board.runs, board.views, board.standings).encode()


def _command(board: Board) -> str:
    return f"dlbench board {' '.join(map(str, board.run_dirs))}"


def _manifest(sums: Mapping[str, str]) -> bytes:
    return (json.dumps(sums, indent=0, sort_keys=True) + "\n").encode()


def _listed(out: Path) -> set[str]:
    try:
        listed = json.loads((out / MANIFEST).read_text())
    except (OSError, ValueError):
        return set()
    return {
        str(path)
        for path in (listed if isinstance(listed, dict) else ())
        if not Path(path).is_absolute() and ".." not in Path(path).parts
    }


def check_place(run_dirs: Sequence[Path], out: Path) -> None:
    """Raise where a site cannot be written.

    Raises:
        BoardError: it is a file, or a run folder itself.
    """
    if out.exists() and not out.is_dir():
        raise BoardError(f"{out}: a file is in the way, name a folder")
    if any(out.resolve() == run_dir.resolve() for run_dir in run_dirs):
        raise BoardError(f"{out}: a run folder can't hold its own site, name another folder such as {out / 'site'}")


def put(path: Path, raw: bytes) -> None:
    """Write a file, unless it is there with the same content.

    Raises:
        BoardError: it can't be written.
    """
    try:
        if path.is_file() and path.read_bytes() == raw:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    except OSError as error:
        raise BoardError(f"{path}: {error.strerror or error}") from None
