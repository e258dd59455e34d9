"""Whether this process belongs to a group that a launcher started, by the environment variables of launchers.

`torchrun`, `accelerate launch` and `dlbench.system.processes` set all of `LAUNCHED` in each process. Where only some of
these variables are set, left over from job scripts or earlier launches, torch would wait for processes that do not
exist; those of MPI make accelerate fail. They are removed from the environment before any library reads them.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping

from dlbench.errors import DlbenchError, WorkerLost

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that a launcher sets in each of its processes."""
_ADVICE = (
    f"unset {', '.join(LAUNCHED)}, or start several processes by `--processes N`, `accelerate launch` or `torchrun`"
)
_OTHERS = ("LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")
_MPI = {  # size -> rank, as its launchers name them
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
}
_MPI_PREFIXES = ("PMI_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "MPI_LOCAL")
_TRANSPORT = re.compile(r"\bgloo\b|\bnccl\b|\bby peer\b", re.IGNORECASE)
NOTICE, PATIENCE = 20.0, 300.0
"""Seconds of waiting for other processes: until a line says so, and until this process gives up."""


def launched() -> bool:
    """Whether this process was started as one of a group."""
    return all(name in os.environ for name in LAUNCHED)


def rank() -> int:
    """The rank of this process in its group; 0 where it is alone."""
    return int(os.environ["RANK"]) if launched() else 0


def size() -> int:
    """The number of processes of this process's group; 1 where it is alone."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def local_size() -> int:
    """The number of processes of this group on this machine, where the launcher says so; else of the whole group."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or size()) if launched() else 1


def settle(say: Callable[[str], None], environment: MutableMapping[str, str] = os.environ) -> None:
    """Remove variables from the environment that would be mistaken for a group of processes.

    Args:
        say: called with one line that names what was ignored.
        environment: changed in place.

    Raises:
        DlbenchError: MPI has started this process as one of several, or the variables of a launcher are invalid.
    """
    for size, place in _MPI.items():
        if _more_than_one(environment.get(size)) and place in environment and "LOCAL_RANK" not in environment:
            raise DlbenchError(
                f"{size}={environment[size]} and {place}={environment[place]} say that MPI has started several "
                "processes: start them by `--processes N`, `accelerate launch` or `torchrun`, or unset these variables"
            )
    ignored = [name for name in _MPI if _more_than_one(environment.get(name))]
    for name in [name for name in environment if name.startswith(_MPI_PREFIXES)]:
        del environment[name]
    if all(name in environment for name in LAUNCHED):
        _check(environment)
        ignored = []  # a group was started by other means: MPI's variables do not matter
    else:
        incomplete = [name for name in (*LAUNCHED, *_OTHERS) if name in environment]
        ignored += [f"{name}={environment.pop(name)}" for name in incomplete]
    if ignored:
        say(
            f"ignored in the environment: {', '.join(ignored)}; a launcher would set all of {', '.join(LAUNCHED)}; "
            "for several processes use --processes N, accelerate launch or torchrun"
        )


def _more_than_one(size: str | None) -> bool:
    return size is not None and size.strip() not in ("", "0", "1")


def _check(environment: MutableMapping[str, str]) -> None:
    """Check the variables of a launcher.

    Raises:
        DlbenchError: one that must be a number is not, or the rank is not below the size of the group.
    """
    numbers = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
        try:
            numbers[name] = int(environment[name])
        except ValueError:
            raise DlbenchError(f"{name}={environment[name]} in the environment is no number: {_ADVICE}") from None
    if not 0 < numbers["MASTER_PORT"] < 1 << 16 or not environment["MASTER_ADDR"].strip():
        raise DlbenchError(
            f"MASTER_ADDR={environment['MASTER_ADDR']} and MASTER_PORT={environment['MASTER_PORT']} in the environment "
            f"are no address: {_ADVICE}"
        )
    if not 0 <= numbers["RANK"] < numbers["WORLD_SIZE"]:
        raise DlbenchError(
            f"RANK={numbers['RANK']} is no place in a group of WORLD_SIZE={numbers['WORLD_SIZE']} processes: {_ADVICE}"
        )


@contextlib.contextmanager
def joining(
    notice: float = NOTICE, patience: float = PATIENCE, give_up: Callable[[int], object] = os._exit
) -> Iterator[None]:
    """Watch a process join its group: print that it waits for others, and end it where they do not come.

    Args:
        notice: seconds before a line is printed.
        patience: seconds before the process ends.
        give_up: called with the exit code, from another thread, since this one is blocked.
    """
    if not launched():
        yield
        return
    from dlbench.system.watching import beside  # psutil is not for the start of every command

    where = ", ".join(f"{name}={os.environ[name]}" for name in LAUNCHED)

    def wait(done: threading.Event) -> None:
        if not done.wait(notice):
            _print(f"waiting for the other processes of the group that the environment names ({where})")
            if not done.wait(max(0.0, patience - notice)):
                _print(
                    f"they have not come within {patience:.0f} s; if this is to be a run of one process, unset these"
                )
                give_up(DlbenchError.exit_code)

    with beside(wait):
        yield


def lost_peer(error: BaseException) -> WorkerLost | None:
    """The error for users where another process of the group is gone; None where it is another fault.

    torch tells it by an error of `torch.distributed`, or by a RuntimeError that quotes gloo or NCCL.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    of_the_group = kinds & {"DistBackendError", "DistNetworkError", "DistStoreError"}
    if not launched() or not (of_the_group or ("RuntimeError" in kinds and _TRANSPORT.search(str(error)))):
        return None
    return WorkerLost(
        f"rank {rank()} of {size()} has lost another process of its group, whose own output says why it ended; what "
        "was finished is kept: start the same command again on all nodes to go on"
    )


def _print(line: str) -> None:
    print("dlbench:", line, file=sys.stderr, flush=True)
