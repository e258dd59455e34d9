"""The documentation site: built by one command, complete, and without anything from another host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.registry import methods

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run([sys.executable, ROOT / "ci" / "docs.py", "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_built_in_method_has_a_page(site):
    built_in = {name for name in methods.names() if methods.locate(name).origin == "built-in"}
    assert {path.stem for path in (site / "each-method").glob("*.html")} == built_in | {"index"}
    page = (site / "each-method" / "calm.html").read_text()
    for parameter in methods.describe("calm").parameters:
        assert parameter.name in page


def test_the_interface_is_documented(site):
    page = (site / "api.html").read_text()
    for name in ("dlbench.run", "dlbench.evaluate", "dlbench.Results", "dlbench.method.Method", "dlbench.method.View"):
        assert f'id="{name}"' in page


def test_nothing_is_fetched_from_elsewhere(site):
    loads = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//""")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert not [path.name for path in pages if loads.search(path.read_text())]
    imported = re.compile(r"""@import|url\(["']?(?:https?:)?//""")
    assert not [path.name for path in site.rglob("*.css") if imported.search(path.read_text())]


def test_links_lead_somewhere(site):
    for page in site.rglob("*.html"):
        for target in re.findall(r'href="([^"#:]+\.html)', page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
