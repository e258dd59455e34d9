"""What a run left is checked before it is packed."""

import shutil
from types import SimpleNamespace

import pytest

from dlbench.errors import RecordError
from dlbench.records.checksum import sealed_line
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample
from dlbench.submission.packing import pack


def test_samples_that_were_changed_after_the_run_are_not_packed(packed, tmp_path):
    run = shutil.copytree(packed, tmp_path / "run")
    record = next(read_lines(run / "records.jsonl", Record))
    file = run / "samples" / f"{record.key}.jsonl"
    sealed = "".join(f"{sealed_line(record.key, one)}\n" for one in read_lines(file, Sample))
    file.write_text(sealed.replace('"output":"', '"output":"better ', 1))
    settings = [SimpleNamespace(key=one.key) for one in read_lines(run / "records.jsonl", Record)]
    with pytest.raises(RecordError, match=f"{record.key}.jsonl, line 1: check: the line was changed"):
        pack(run, tmp_path / "out", [SimpleNamespace(settings=settings)], official=False, author="me", options={})
    assert not (tmp_path / "out").exists()
