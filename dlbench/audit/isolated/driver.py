"""The process that audits: it starts a subject for each method, and replays what the subject reports.

Run as `python -m dlbench.audit.isolated.driver`, in a clean environment and home folder; the job comes as JSON on
standard input, and a line of JSON for each method goes to standard output. It imports no method.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from dlbench.audit.isolated.case import Case
from dlbench.audit.isolated.comparison import compare
from dlbench.audit.isolated.documents import AuditBench
from dlbench.audit.isolated.findings import KINDS, Finding
from dlbench.audit.isolated.subject import AuditSubject
from dlbench.errors import DlbenchError
from dlbench.method import LayerSet

_LINE = 1 << 26
"""Most bytes that a subject may report."""
_LOOK = 0.2
_VARIANTS = 32
"""Most variants of a method that are audited."""


def main() -> None:
    """Carry out the job on standard input."""
    job = json.loads(sys.stdin.read())
    torch.set_num_threads(1)  # a process that has used several must not be forked
    try:
        bench = AuditBench.of(job["model"], job["task"], job["data_dir"], job["seed"])
        _warm_up(bench)
    except DlbenchError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    for facts in job["cases"]:
        packed = facts["packed"]
        first = Case(facts["given"], facts["params"], None if packed is None else tuple(packed))
        cases = [first]
        for case in cases:
            start, before = time.perf_counter(), _spent()
            findings, reported = audit(case, bench, job["patience"])
            if job["variants"] and case is first:
                cases += [replace(first, params=params) for params in _variants(reported)]
            done = {"given": case.given, "params": case.params, "findings": findings, "oracle": "oracle" in reported}
            spent = {"seconds": time.perf_counter() - start, "processor": _spent() - before}
            print(json.dumps({**done, **spent}), flush=True)
    print(json.dumps({"end": True}), flush=True)


def _warm_up(bench: AuditBench) -> None:
    """Decode, learn and score once, so that what libraries load on first use is there before the first subject."""
    requests = bench.requests(bench.posed("decoy"))[:2]
    for layers in (range(bench.backbone.depth), range(1, bench.backbone.depth)):
        bench.bench.engine.prefill(requests).decode(LayerSet(tuple(layers)))
    document = bench.posed("decoy")[0]
    bench.bench.task.score(document, "decoy")


def _variants(reported: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parameter sets beyond the defaults that a method says a run takes."""
    given: object = reported.get("variants")
    found: list[Mapping[str, Any]] = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    return [one for one in found if one][:_VARIANTS]


def _spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def audit(case: Case, bench: AuditBench, patience: float) -> tuple[list[Finding], Mapping[str, Any]]:
    """Audit one method; returns what is found, and what it reported.

    Args:
        case: the method.
        bench: what it decodes.
        patience: seconds of processor time after which a piece of work is given up.
    """
    with tempfile.TemporaryDirectory() as home:
        folder = _run_folder(Path(home))
        before = _contents(folder)
        reported, ended = _subject(case, bench, Path(home), patience)
        findings = [Finding("ends", ended)] if ended else []
        if _contents(folder) != before:
            findings.append(Finding("writes", "files of a run are not what they were"))
    try:
        findings += [Finding(kind, str(what)) for kind, what in reported["findings"] if kind in KINDS]
        findings += compare(reported, bench)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):  # it was cut off, or made up
        if not findings:
            findings.append(Finding("ends", "what it reported cannot be read"))
    return list(dict.fromkeys(findings)), reported


def _run_folder(home: Path) -> Path:
    """A folder like that of a run, in which other rows' samples are."""
    folder = home / "dlbench-out"
    (folder / "samples").mkdir(parents=True)
    for name in ("run.json", "records.jsonl", f"samples/{'0' * 32}.jsonl", f"samples/{'1' * 32}.0.part"):
        (folder / name).write_text('{"id": "fit-0", "score": 0.5}\n')
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _subject(case: Case, bench: AuditBench, home: Path, patience: float) -> tuple[dict[str, Any], str]:
    """Run the subject; returns what it reported, and how it ended where it did not end well."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            os.close(reading)
            _settle(home)
            AuditSubject(case, bench, _sender(writing)).run()
        os._exit(0)
    os.close(writing)
    reported: dict[str, Any] = {"written": {}, "findings": []}
    doing, fault = "began", ""
    try:
        for message in _messages(reading, pid, patience):
            doing = message.get("doing", doing)
            if "condition" in message:
                reported["written"][message["condition"]] = message
            else:
                reported.update(message)
    except TimeoutError as error:
        fault = f"while it {doing}: {error}"
    except (ValueError, TypeError) as error:
        fault = f"while it {doing}: what it reported cannot be read: {error}"
    finally:
        os.close(reading)
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(OSError):
                kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if not fault and not reported.get("done"):
        fault = f"while it {doing}: the process was gone (exit code {os.waitstatus_to_exitcode(status)})"
    return reported, fault


def _settle(home: Path) -> None:
    """Make the child a process group of its own, in a clean home folder, without the driver's output."""
    os.setpgid(0, 0)
    os.chdir(home)
    os.environ["HOME"] = str(home)
    with open(os.devnull, "r+b") as nothing:
        for descriptor in (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)


def _sender(descriptor: int) -> Any:
    def send(message: Mapping[str, Any]) -> None:
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[os.write(descriptor, data) :]

    return send


def _messages(descriptor: int, pid: int, patience: float) -> Iterator[dict[str, Any]]:
    """Messages of a subject, until it closes its end.

    Raises:
        TimeoutError: a piece of its work takes too much processor time, or ten times as long by the clock.
    """
    process, buffer, read = psutil.Process(pid), b"", 0
    since, spent = time.monotonic(), 0.0
    while True:
        if not select.select([descriptor], [], [], _LOOK)[0]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                if times.user + times.system - spent > patience:
                    raise TimeoutError(f"no end after {patience:g} s of processor time")
            if time.monotonic() - since > 10 * patience:
                raise TimeoutError(f"no end after {10 * patience:g} s")
            continue
        piece = os.read(descriptor, 1 << 16)
        read += len(piece)
        if not piece or read > _LINE:
            return
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            since = time.monotonic()
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                spent = times.user + times.system
            message = json.loads(line)
            if isinstance(message, dict):
                yield message


if __name__ == "__main__":
    main()
