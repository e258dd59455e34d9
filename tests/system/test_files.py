"""Files and folders are written whole or not at all."""

import pytest

from dlbench.system.files import remove_scratch, whole_folder


def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path):
    for content in ("one", "two"):
        with whole_folder(tmp_path / "fits" / "key") as made:
            (made / content).touch()
            assert not (tmp_path / "fits" / "key" / content).exists()
        assert [path.name for path in (tmp_path / "fits" / "key").iterdir()] == [content]
    with pytest.raises(OSError, match="full"), whole_folder(tmp_path / "fits" / "key") as made:
        (made / "three").touch()
        raise OSError("full")
    assert [path.name for path in tmp_path.rglob("*")] == ["fits", "key", "two"]
    (tmp_path / "fits" / ".key.x.scratch" / "made").mkdir(parents=True)  # of a process that was killed
    remove_scratch(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["fits", "key", "two"]
