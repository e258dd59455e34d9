"""Code that counts as it did before it was moved: every row of the table is of a file as it stands."""

from pathlib import Path

import pytest

from dlbench.registry import source_file
from dlbench.registry.moved_code import MOVED
from dlbench.registry.provenance import Walk

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("label", "sha256"), MOVED)
def test_every_row_is_of_a_file_as_it_stands(label, sha256):
    path = (
        ROOT / label.removeprefix("dlbench/")
        if label.startswith(("dlbench/methods", "dlbench/tasks"))
        else ROOT / label
    )
    if not path.is_file():
        path = path.parent.with_suffix(".py")  # `dlbench/a/a.py` is the label of a module that counts by itself
    assert source_file.read(path).sha256 == sha256, f"{label} has changed: see dlbench/registry/moved_code.py"


def test_a_moved_file_counts_as_before(tmp_path, monkeypatch):
    (tmp_path / "new.py").write_text("x = 1\n")
    before, after = Walk(), Walk()
    before.add(tmp_path / "new.py", "old.py")
    after.add(tmp_path / "new.py", "new.py")
    assert before.digest() != after.digest()
    (new,), (old,) = after.files.values(), before.files.values()
    monkeypatch.setitem(MOVED, new, [old])
    assert before.digest() == after.digest()
    (tmp_path / "new.py").write_text("x = 2\n")
    changed = Walk()
    changed.add(tmp_path / "new.py", "new.py")
    assert changed.digest() != before.digest()
