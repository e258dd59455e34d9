"""A small run, packed as a submission that follows all rules but those of the official protocol; and tampering."""

import hashlib
import json
import shutil
from pathlib import Path

import bumpy
import small_model

from dlbench.data.task_options import Sources
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.schema import Hardware, Record, Sample, Timing
from dlbench.records.track import content_key
from dlbench.running.config import RunSpec
from dlbench.running.planner import Planner
from dlbench.running.runner import execute
from dlbench.running.summary import pack_run
from dlbench.submission.manifest import FILE, canonical, seal_of
from dlbench.system.hardware import hardware
from dlbench.terminal.progress import Progress


def packed(folder: Path) -> Path:
    """Run methods on a few documents in two processes, and return the folder of the submission.

    The backbone is in `folder/model`. The times are made up, but consistent.
    """
    small_model.save(folder / "model")
    shutil.copyfile(bumpy.__file__, folder / "bumpy.py")
    spec = RunSpec(
        models=(str(folder / "model"),),
        tasks=("nano_translate",),
        methods=("full", "random_skip", str(folder / "bumpy.py"), "hidden_router"),
        settings={"hidden_router": {"steps": 1, "fixed_input": False}, "random_skip": {"per": "token"}},
        budgets=(0.5,),
        limit=6,
        fit_tokens=300,
        out=folder / "run",
        sources=Sources(max_new_tokens=8),
        batch_size=3,
        processes=2,
        timing=False,
    )
    spec.check()
    execute(spec)
    records = list(read_lines(spec.out / "records.jsonl", Record))
    write_lines(spec.out / "timing.jsonl", [_timing(r, spec.out, batch) for r in records for batch in (1, 16)])
    planner = Planner(spec, "cpu", Progress(shown=False), 1, str)
    jobs = planner.load()
    planner.fit(planner.fitters(jobs))
    return pack_run(spec, jobs, folder / "submission")


def _timing(record: Record, run: Path, batch: int) -> Timing:
    samples = list(read_lines(run / "samples" / f"{record.key}.jsonl", Sample))
    forwards = sum(len(s.layers) for s in samples) / len(samples)
    return Timing(
        key=record.key,
        method=record.method.name,
        task=record.task.name,
        budget=record.run.budget,
        batch_size=batch,
        device="cpu",
        threads=1,
        decode_ms_per_token=2.0,
        ms_per_document=2.0 * forwards + 3.0,
        prefill_ms_per_document=3.0,
        speedup=1.0,
        spread=0.0,
        repeats=2,
        hardware=Hardware(**hardware()),
    )


class Tampering:
    """Edits a copy of a submission; `seal` makes its manifest fit again, as a forger would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self, edit) -> None:
        """Edit the manifest; it is not sealed anew."""
        content = json.loads((self.folder / FILE).read_text())
        edit(content)
        (self.folder / FILE).write_text(canonical(content))

    def lines(self, name: str, edit) -> None:
        """Edit a JSON Lines file as a list of objects."""
        path = self.folder / name
        content = [json.loads(line) for line in path.read_text().splitlines()]
        content = edit(content) or content
        path.write_text("".join(json.dumps(one) + "\n" for one in content))

    def record(self, method: str, edit) -> None:
        """Edit the record of a method."""
        self.lines("records.jsonl", lambda all_: [edit(r) for r in all_ if r["method"]["name"] == method] and None)

    def key(self, method: str) -> str:
        """The content key of a method's row."""
        return next(r.key for r in read_lines(self.folder / "records.jsonl", Record) if r.method.name == method)

    def samples(self, method: str, edit) -> None:
        """Edit the samples of a method's row as a list."""
        self.lines(f"samples/{self.key(method)}.jsonl", edit)

    def sample(self, method: str, edit) -> None:
        """Edit the first sample of a method's row."""
        self.samples(method, lambda all_: edit(all_[0]) and None)

    def renamed(self, method: str, edit) -> None:
        """Edit record and content of a method's row together, and give it the key that they make."""
        old = self.key(method)

        def change(manifest) -> None:
            row = manifest["rows"].pop(old)
            self.record(method, lambda record: edit(record, row["content"]))
            new = content_key(row["content"])
            manifest["rows"][new] = row
            self.record(method, lambda record: record.update(key=new))
            (self.folder / "samples" / f"{old}.jsonl").rename(self.folder / "samples" / f"{new}.jsonl")
            self.lines("timing.jsonl", lambda all_: [t.update(key=new) for t in all_ if t["key"] == old] and None)

        self.manifest(change)

    def renamed_track(self, new: str) -> None:
        """Give the track another name, everywhere."""
        for name in ("records.jsonl", "documents.jsonl"):
            self.lines(name, lambda all_: [one.update(track=new) for one in all_] and None)
        self.manifest(lambda m: m.update(tracks=dict(zip([new], m["tracks"].values(), strict=True))))

    def seal(self) -> None:
        """Make hashes and seal fit what is there."""

        def again(content) -> None:
            for path in sorted(p for p in self.folder.rglob("*") if p.is_file() and p.name != FILE):
                name = path.relative_to(self.folder).as_posix()
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                content["files"][name] = {"bytes": path.stat().st_size, "sha256": digest}
            for name in [n for n in content["files"] if n == "" or not (self.folder / n).is_file()]:
                del content["files"][name]
            content["seal"] = seal_of(content)

        self.manifest(again)
