"""The names that options take are checked before torch is imported."""

import subprocess
import sys

import pytest

from dlbench.errors import DlbenchError
from dlbench.models import catalog


def test_names_are_checked_without_torch():
    code = (
        "import sys; from dlbench.models import catalog; catalog.check_model('nano'); catalog.check_device('cuda:1'); "
        "catalog.list_models(); print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
def test_a_device_that_is_none_is_an_error(device):
    with pytest.raises(DlbenchError, match=f"unknown device '{device}'"):
        catalog.check_device(device)
