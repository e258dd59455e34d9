"""What a method's code asks of Python and the system: audit events while a frame of it is on the stack."""

from __future__ import annotations

import _thread
import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

_KINDS = {
    **dict.fromkeys(
        (
            *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"),
            *("os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
        ),
        "processes",
    ),
    **dict.fromkeys(("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"), "network"),
    **dict.fromkeys(
        (
            *("os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "os.mkdir"),
            *("shutil.rmtree", "shutil.move", "shutil.copyfile"),
        ),
        "writes",
    ),
    **dict.fromkeys(("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._current_frames"), "memory"),
    "sys._getframe": "memory",
    **dict.fromkeys(("_thread.start_new_thread", "_thread.start_joinable_thread"), "threads"),
    "sys.settrace": "code",
    "sys.setprofile": "code",
    "sys.addaudithook": "code",
}
"""Audit events of Python (see `sys.addaudithook`), and what they are called here; `open` is looked at by itself."""
_CODE = (".py", ".pyc", ".so", ".pth")
_MACHINE = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class EventWatch:
    """Passes on what a method's code does; installed for the rest of the process."""

    def __init__(self, own: Callable[[str], bool], note: Callable[[str, str], None]) -> None:
        """Install the hook.

        Args:
            own: whether a file is the method's own code.
            note: called with the kind of a finding, and what was seen.
        """
        self._own, self._note, self._busy = own, note, False
        self.loading = False
        """Whether the method is being imported and made, when it may read files of its own."""
        self._installed = [str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")]
        sys.addaudithook(self._event)
        start = _thread.start_new_thread

        def started(*arguments: Any, **more: Any) -> int:
            if self._by_method(sys._getframe(1)):
                self._note("threads", "_thread.start_new_thread")
            return start(*arguments, **more)

        for module, name in ((_thread, "start_new_thread"), (threading, "_start_new_thread")):
            if hasattr(module, name):  # before Python 3.12 threads start without an event
                setattr(module, name, started)

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or (event != "open" and event not in _KINDS):
            return
        self._busy = True
        try:
            frame = sys._getframe(1)
            if event == "sys._getframe":
                if self._asks_for_frames(frame):
                    self._note("memory", "sys._getframe")
            elif self._by_method(frame):
                if event == "open":
                    self._opened(*arguments[:3])
                else:
                    self._note(_KINDS[event], f"{event} {_first(arguments)}".strip())
        finally:
            self._busy = False

    def _by_method(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if self._own(frame.f_code.co_filename):
                return True
            frame = frame.f_back
        return False

    def _asks_for_frames(self, frame: FrameType | None) -> bool:
        """Whether the method's code itself asked for frames, by `sys` or `inspect`; libraries do so for warnings."""
        while frame is not None and frame.f_code.co_filename.endswith("/inspect.py"):
            frame = frame.f_back
        return frame is not None and self._own(frame.f_code.co_filename)

    def _opened(self, path: Any, mode: Any, flags: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor that is open already
        name = os.path.realpath(os.fsdecode(path))
        if name == os.devnull:
            return
        if (isinstance(flags, int) and flags & _WRITING) or any(c in str(mode or "") for c in "wax+"):
            if not name.endswith(".pyc") and "/__pycache__/" not in name:
                self._note("writes", f"open {name} to write")
            return
        if name.startswith(_MACHINE) or (name.endswith(_CODE) and not name.startswith("/proc/")):
            return
        if any(name.startswith(f"{folder}/") for folder in self._installed) and "/dlbench/" not in name:
            return
        if self.loading and self._own(name):
            return
        self._note("files", f"open {name}")


def _first(arguments: tuple[Any, ...]) -> str:
    """The first argument of an event in a few letters, where it has one that says something."""
    given = next((a for a in arguments if isinstance(a, str | bytes | list | tuple) and a), "")
    text = os.fsdecode(given) if isinstance(given, str | bytes) else " ".join(map(str, given))
    return " ".join(text.split())[:100]


def own_files(file: Path | None) -> Callable[[str], bool]:
    """Return what tells a method's own files: its file, or all below the package that it is part of."""
    if file is None:
        return lambda name: False
    home = file.resolve()
    package = home.parent
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    alone = not (package / "__init__.py").is_file() or package.name in ("dlbench", "methods")
    inside = f"{package}{os.sep}"

    def own(name: str) -> bool:
        return name == str(home) or (not alone and name.startswith(inside))

    return own
