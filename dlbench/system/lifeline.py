"""What ties a worker process to the one that started it: it ends with it, and leaves word of what it does.

The parent holds the other end of the worker's standard input for as long as it lives, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import runpy
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from dlbench.system import process_group

EVERY = 2.0
"""Seconds between two words of a worker."""
_state: dict[str, str] = {"device": "device not chosen yet"}
_news = threading.Event()


def python_command(*arguments: str) -> list[str]:
    """The command of a Python process that looks for modules where this one does.

    By itself Python looks in the current folder first, with `-m` and `-c`: a checkout there would stand for the package
    that is installed from it. A process that looks there itself has children that do.
    """
    looks_here = sys.path[:1] in ([""], [os.getcwd()])
    return [sys.executable, *([] if looks_here else ["-P"]), *arguments]


def tied(module: str, folder: Path | None = None, rank: int = 0) -> list[str]:
    """The command of a worker process that runs a module, tied to its parent before it imports anything.

    The parent starts it with a pipe for its standard input.
    """
    return python_command("-m", "dlbench.system.lifeline", "" if folder is None else str(folder), str(rank), module)


def _attach(folder: Path | None, rank: int) -> None:
    """Tie this worker process to its parent, and leave Ctrl-C to it: the parent ends its workers itself.

    Args:
        folder: made by the parent for its workers; this process writes there what it does, and removes it where the
            parent has ended without doing so.
        rank: of this process among the workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe = os.dup(0)  # children of this process inherit another standard input
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    if sys.platform == "linux":  # a stopped process would not notice that its parent has ended
        ctypes.CDLL(None, use_errno=True).prctl(1, int(signal.SIGCONT), 0, 0, 0)  # 1: PR_SET_PDEATHSIG
    threading.Thread(target=_end_with_parent, args=(pipe, folder), daemon=True).start()
    if folder is not None:
        threading.Thread(target=_leave_word, args=(folder / f"word-{rank}",), daemon=True).start()


def end_with_launcher(every: float = EVERY) -> None:
    """Let this process end when `torchrun` or `accelerate launch`, which started it, has ended without ending it.

    Where they are killed, their workers go on otherwise, and hold the run's folder and their devices. This process is
    told by SIGTERM, as by a scheduler, so that it stops cleanly.

    Args:
        every: seconds between two looks.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or not process_group.launched() or os.name != "posix":
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(every)
        print("dlbench: the launcher of this process has ended", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def works_on(device: str) -> None:
    """Say which device this process works on, for the message if it is lost."""
    _state["device"] = device
    _news.set()


def last_word(folder: Path, rank: int) -> tuple[str, str]:
    """The device and the stack that a worker last left word of; empty where it has not."""
    try:
        word: dict[str, Any] = json.loads((folder / f"word-{rank}").read_text())
        return word["device"], word["stack"]
    except (OSError, ValueError, KeyError):
        return "", ""


def waits_for_others(stack: str) -> bool:
    """Whether a stack ends in a call by which processes of a group wait for each other."""
    files = re.findall(r'^ *File "(.*)", line \d+', stack, re.MULTILINE)
    return bool(files) and "/torch/distributed/" in files[-1].replace("\\", "/")


def _end_with_parent(pipe: int, folder: Path | None) -> None:
    while os.read(pipe, 1024):
        pass
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _leave_word(path: Path) -> None:
    main = threading.main_thread().ident
    scratch = path.with_name(f".{path.name}")
    while True:
        frame = sys._current_frames().get(main or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        with contextlib.suppress(OSError):  # the disk may be full, or the folder removed
            scratch.write_text(json.dumps({"device": _state["device"], "stack": stack}))
            os.replace(scratch, path)
        _news.wait(EVERY)
        _news.clear()


if __name__ == "__main__":
    from dlbench.system import lifeline  # not this module, which is `__main__` here: others import that one

    given, number, module, *rest = sys.argv[1:]
    lifeline._attach(Path(given) if given else None, int(number))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
