"""The notebook in docs/ runs from its first cell to its last, in IPython, and shows what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "docs" / "python.ipynb"
RUN = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shown = []
shell.displayhook.write_format_data = lambda data, *more: shown.append(sorted(data))
for source in json.loads(sys.stdin.read()):
    result = shell.run_cell(source, store_history=True)
    result.raise_error()
shares = [float(one.layer_share) for one in (shell.user_ns["text"], shell.user_ns["halves"][0])]
print("\\nSHOWN", json.dumps([shown, shares]))
"""


def test_the_notebook_runs(tmp_path):
    notebook = json.loads(NOTEBOOK.read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "outputs are made anew, not kept"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN],
        input=json.dumps(cells),
        cwd=tmp_path,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    shown, (tuned, half) = json.loads(done.stdout.rpartition("SHOWN")[2])
    assert sum("text/html" in one for one in shown) == 4, "two tables of results, a frame of rows and one of samples"
    assert sum("image/svg+xml" in one for one in shown) == 1
    assert 0 < tuned < 1
    assert half == 0.5
    assert (tmp_path / "dlbench-out" / "methods" / "every_second.py").is_file()
