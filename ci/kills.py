#!/usr/bin/env python
"""Kill runs and resume them: `ci/kills.py [--kills N] [--seed S] [FOLDER]` prints a table, and ends with 1 on a fault.

A run is killed at chosen moments (during a fit, a wave, an append, the merge, the timing, the site) and at random ones:
its parent, one of its workers, or all of its processes, by SIGKILL, SIGTERM or SIGUSR1; each time it goes on with
another number of processes. After a signal that asks it to end, it must have ended within ten seconds. When it is done
its records must be, byte for byte, those of a run that nothing interrupted, but for the padding that depends on which
documents were decoded side by side. No process and no scratch file may be left, and samples that a killed run had
written must be in the files that the last one leaves.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

RUN = [sys.executable, "-m", "dlbench", "run", "--task", "nano_math", "--method", "static_skip", "--method", "calm"]
RUN += ["--budget", "0.5", "--limit", "6", "--batch-size", "2", "--fit-tokens", "2000", "--refit", "--out"]
MOMENTS: dict[str, Callable[[Path], float]] = {
    "fit": lambda out: _newest(out, "run.json"),
    "wave": lambda out: len(list(out.glob("samples/*.part"))),
    "append": lambda out: sum(path.stat().st_size for path in out.glob("samples/*.part")),
    "merge": lambda out: _newest(out, "samples/*.jsonl"),
    "timing": lambda out: _newest(out, ".timing-*/job.json"),
    "site": lambda out: _newest(out, "timing.jsonl"),
}
"""What grows at that moment."""
VICTIMS = ("parent", "worker", "group")
CODES = {"parent": (-signal.SIGKILL, 143), "worker": (3, 143), "group": (-signal.SIGKILL, 143)}
"""Exit codes of the parent after SIGKILL, and after a signal that asks it to end."""
SIGNALS = {signal.SIGKILL: 30.0, signal.SIGTERM: 10.0, signal.SIGUSR1: 10.0}
"""Most seconds until the parent has ended after each signal."""
LIMIT = 600.0


@dataclass(frozen=True)
class Kill:
    """One kill: when, whom, how, and with how many processes the run is carried out."""

    moment: str
    victim: str
    by: signal.Signals
    processes: int


def planned(number: int, rng: random.Random) -> list[Kill]:
    """Kills at the chosen moments in their order, and between them as many at random."""
    kills = []
    for i in range(number):
        victim = VICTIMS[(i // 2) % len(VICTIMS)]
        by = rng.choice(list(SIGNALS))
        moment = list(MOMENTS)[(i // 2) % len(MOMENTS)] if i % 2 else "random"
        kills.append(Kill(moment, victim, by, 2 if victim == "worker" else rng.choice((1, 2))))
    return kills


def start(out: Path, processes: int) -> subprocess.Popen[str]:
    """Start the run in a session of its own."""
    env = {**os.environ, "TMPDIR": str(out.parent), "OMP_NUM_THREADS": "1"}
    with (out.parent / "said.txt").open("w") as said:
        command = [*RUN, str(out), "--processes", str(processes)]
        return subprocess.Popen(command, env=env, stderr=said, stdout=said, start_new_session=True, text=True)


def killed(out: Path, kill: Kill, seconds: float) -> tuple[int | None, float, int, str]:
    """Start the run and kill it at its moment.

    Returns:
        Its exit code (None where it was done before), the seconds until it ended, the number of orphans, and whom the
        signal went to: the parent where there was no worker yet, or none any more.

    Args:
        out: the run's folder.
        kill: when and whom.
        seconds: that an uninterrupted run takes: random moments are within it.
    """
    random_end = time.monotonic() + random.uniform(0.05, 0.95) * seconds
    measure = MOMENTS.get(kill.moment, _nothing)
    before = measure(out)
    run = start(out, kill.processes)
    limit = time.monotonic() + LIMIT
    while run.poll() is None and time.monotonic() < limit:
        if time.monotonic() >= random_end if kill.moment == "random" else measure(out) > before:
            break
        time.sleep(0.005)
    if run.poll() is not None:
        return None, 0.0, 0, kill.victim
    victim = kill.victim
    if kill.victim == "group":
        os.killpg(run.pid, kill.by)
    elif kill.victim == "worker" and (workers := psutil.Process(run.pid).children()):
        random.choice(workers).send_signal(kill.by)
    else:
        victim = "parent"
        run.send_signal(kill.by)
    begun = time.monotonic()
    code = run.wait(LIMIT)
    took = time.monotonic() - begun
    return code, took, len(orphans(run.pid)), victim


def _nothing(out: Path) -> float:
    return 0.0


def _newest(out: Path, pattern: str) -> float:
    times = []
    for path in out.glob(pattern):
        with contextlib.suppress(OSError):  # removed meanwhile
            times.append(path.stat().st_mtime_ns)
    return max(times, default=0)


def orphans(session: int) -> list[int]:
    """Processes of a session that are still there after ten seconds."""
    limit = time.monotonic() + 10
    while left := [p for p in psutil.pids() if _session(p) == session]:
        if time.monotonic() > limit:
            return left
        time.sleep(0.1)
    return []


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def samples(out: Path) -> set[bytes]:
    """All whole lines of samples."""
    paths = [*out.glob("samples/*.part"), *(p for p in out.glob("samples/*.jsonl") if "cand" not in p.name)]
    return {line for path in paths for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")}


def records(out: Path) -> bytes:
    """The records, without the padding."""
    return re.sub(rb'"executed_flops":\d+', b"", (out / "records.jsonl").read_bytes())


def leftovers(out: Path) -> list[str]:
    """Files that a finished run should not leave."""
    wrong = [*out.rglob("*.scratch"), *out.rglob("*.part"), *out.rglob("*.damaged"), *out.parent.glob("dlbench-*")]
    return [path.name for path in wrong]


def finish(out: Path, processes: int) -> float:
    """Let the run come to its end; return the seconds that it took."""
    begun = time.monotonic()
    if (run := start(out, processes)).wait(LIMIT):
        raise SystemExit(f"a run that nothing interrupted failed: {(out.parent / 'said.txt').read_text()[-2000:]}")
    assert not orphans(run.pid)
    return time.monotonic() - begun


def completed(out: Path, reference: Path) -> list[str]:
    """Let a killed run come to its end; return what is wrong with what it leaves."""
    before = samples(out)
    finish(out, 2)
    lost = len(before - samples(out))
    faults = [f"{lost} samples were decoded again"] if lost else []
    if records(out) != records(reference):
        faults.append("the records differ from those of the run that nothing interrupted")
    print(f"| | end | | | 2 | 0 | | 0 | all; {'; '.join(faults) or 'records equal'} |", flush=True)
    return faults + [f"left: {name}" for name in leftovers(out)]


def main(number: int, seed: int, folder: Path) -> int:
    """Make the reference, kill and resume, and print the table."""
    random.seed(seed)
    reference, out = folder / "reference" / "run", folder / "killed" / "run"
    for one in (reference, out):
        shutil.rmtree(one.parent, ignore_errors=True)
        one.parent.mkdir(parents=True)
    seconds = finish(reference, 1)
    print("| # | moment | killed | by | processes | exit code | s | orphans | samples kept |\n|" + " --- |" * 9)
    faults: list[str] = []
    for i, kill in enumerate(planned(number, random.Random(seed))):
        if kill.moment in ("fit", "wave", "append") and out.exists():  # that needs work that is not done yet
            faults += completed(out, reference)
            shutil.rmtree(out)
        before = samples(out)
        code, took, left, victim = killed(out, kill, seconds)
        kept = samples(out)
        expected = CODES[victim][kill.by != signal.SIGKILL]
        if code == -kill.by and kill.moment == "random":
            expected = code  # it came before Python had begun
        line = f"| {i + 1} | {kill.moment} | {victim} | {kill.by.name} | {kill.processes} | {code} | {took:.1f} |"
        print(f"{line} {left} | {len(kept & before)} of {len(before)}, {len(kept - before)} more |", flush=True)
        if left or code not in (None, 0, expected) or took > SIGNALS[kill.by] or before - kept:
            wanted = f"exit code {expected} within {SIGNALS[kill.by]:.0f} s and no orphans expected"
            faults.append(f"kill {i + 1}: {wanted}; lines gone: {before - kept}")
            print((out.parent / "said.txt").read_text()[-1500:], file=sys.stderr)
    faults += completed(out, reference)
    print(json.dumps({"kills": number, "faults": faults}, indent=1))
    return 1 if faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("dlbench-kills"), help="[dlbench-kills]")
    parser.add_argument("--kills", type=int, default=12, help="number of kills [12]")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments [0]")
    given = parser.parse_args()
    sys.exit(main(given.kills, given.seed, given.folder.absolute()))
