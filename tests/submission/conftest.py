"""One small packed run for all tests of submissions; they work on copies of it."""

import shutil

import packed_run
import pytest


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """The folder of a submission; its backbone is in `../model`."""
    return packed_run.packed(tmp_path_factory.mktemp("packed"))


@pytest.fixture
def tampering(packed, tmp_path):
    """A copy of it, to be edited."""
    return packed_run.Tampering(shutil.copytree(packed, tmp_path / "submission"))
