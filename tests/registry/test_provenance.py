"""What code a method runs: its hash changes with any module that it leads to, and with nothing else."""

import sys
import textwrap
import types

import pytest

from dlbench.evaluation.settings import source_sha256
from dlbench.registry import method_sources, provenance, source_file
from dlbench.registry import methods as registry
from dlbench.registry.provenance import Walk
from dlbench.registry.source_file import Import, read

METHOD = '''
    """A plugin."""

    from dataclasses import dataclass

    import helper_of_mine
    from package_of_mine.inner import rule

    from dlbench.method import Action, Method, View


    @dataclass
    class {name}(Method):
        """Run what the helpers say."""

        def route(self, view: View) -> Action:
            return Action.RUN if rule(view) > helper_of_mine.LEVEL else Action.SKIP
'''
FILES = {
    "helper_of_mine.py": "from deep_of_mine import LEVEL\n",
    "deep_of_mine.py": "LEVEL = 3  # so much\n",
    "package_of_mine/__init__.py": '"""A package."""\n',
    "package_of_mine/inner.py": "from . import beside\nfrom ..lone_of_mine import x\n\ndef rule(view):\n    return x\n",
    "package_of_mine/beside.py": "y = 1\n",
    "package_of_mine/unused.py": "z = 1\n",
    "lone_of_mine.py": "x = 1\n",
}


def lay(folder, files, name="every_other"):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(textwrap.dedent(text))
    plugin = folder / f"{name}.py"
    plugin.write_text(textwrap.dedent(METHOD).format(name=name.title().replace("_", "")))
    return plugin


@pytest.fixture(params=["beside", "on the path"])
def plugin(request, tmp_path, monkeypatch):
    """A plugin file whose helpers stand beside it, or elsewhere on the path; nothing of it is ever run."""
    before = set(sys.modules)
    if request.param == "beside":
        yield lay(tmp_path, FILES), tmp_path
    else:
        monkeypatch.syspath_prepend(tmp_path / "lib")
        for path, text in FILES.items():
            (tmp_path / "lib" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "lib" / path).write_text(text)
        yield lay(tmp_path, {}), tmp_path / "lib"
    assert not [m for m in set(sys.modules) - before if "of_mine" in m]


@pytest.mark.parametrize(
    "edited",
    ["helper_of_mine.py", "deep_of_mine.py", "package_of_mine/__init__.py", "package_of_mine/inner.py",
     "package_of_mine/beside.py", "lone_of_mine.py"],
)  # fmt: skip
def test_every_module_that_a_plugin_file_leads_to_counts(plugin, edited):
    path, home = plugin
    before = provenance.file(path)
    (home / edited).write_text((home / edited).read_text() + "\n# prose\n\n")
    assert provenance.file(path) == before
    (home / edited).write_text((home / edited).read_text() + "more = 1\n")
    assert provenance.file(path) != before


def test_what_it_does_not_lead_to_does_not_count(plugin):
    path, home = plugin
    before = provenance.file(path)
    (home / "package_of_mine" / "unused.py").write_text("z = 2\n")
    (home / "another.py").write_text("z = 2\n")
    assert provenance.file(path) == before
    path.write_text(path.read_text().replace("Run what the helpers say.", "Run what they say."))
    assert provenance.file(path) == before
    path.write_text(path.read_text().replace("> helper", ">= helper"))
    assert provenance.file(path) != before


def test_the_hash_does_not_depend_on_the_place(tmp_path):
    """Beside the file a module has the label that it has on the path, and folders above have none."""
    one = provenance.file(lay(tmp_path / "a", FILES))
    assert provenance.file(lay(tmp_path / "b" / "c", FILES)) == one


@pytest.mark.parametrize(
    "line",
    [
        "import helper_of_mine",
        "import helper_of_mine as h",
        "from helper_of_mine import *",
        "def f():\n    import helper_of_mine",
        "if True:\n    from helper_of_mine import x",
        "import importlib\nimportlib.import_module('helper_of_mine')",
        "__import__('helper_of_mine')",
        "from . import helper_of_mine",
        "from .helper_of_mine import x",
        "import importlib\nimportlib.import_module('.helper_of_mine', __package__)",
        "from types_of_mine import *",
        "import types_of_mine.helper",
        "from types_of_mine import helper",
        "if not TYPE_CHECKING:\n    import helper_of_mine",
    ],
)
def test_imports_are_found_however_they_are_written(tmp_path, line):
    (tmp_path / "types_of_mine").mkdir()  # a folder without __init__.py
    for helper in (tmp_path / "helper_of_mine.py", tmp_path / "types_of_mine" / "helper.py"):
        helper.write_text("x = 1\n")
    path = tmp_path / "plugin.py"
    path.write_text(line + "\n")
    before = provenance.file(path)
    for helper in (tmp_path / "helper_of_mine.py", tmp_path / "types_of_mine" / "helper.py"):
        helper.write_text("x = 22\n")
    assert provenance.file(path) != before


def test_a_helper_counts_though_another_of_its_name_is_in_memory(tmp_path, monkeypatch):
    """What bears the name in memory may be another plugin's; what an import of the file leads to is on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "helper_of_mine", types.ModuleType("helper_of_mine"))
    path = tmp_path / "sub" / "plugin.py"
    path.parent.mkdir()
    path.write_text("import helper_of_mine\n")
    (tmp_path / "helper_of_mine.py").write_text("x = 1\n")
    before = provenance.file(path)
    (tmp_path / "helper_of_mine.py").write_text("x = 2\n")
    assert provenance.file(path) != before


def test_imports_that_never_run_do_not_count(tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import helper_of_mine\nelse:\n    import o\n"
    )
    assert read(path).imports == (Import(0, "typing", ("TYPE_CHECKING",)), Import(0, "o"))


def test_circles_and_broken_helpers_are_no_obstacle(tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text("import other_of_mine\n")
    (tmp_path / "other_of_mine.py").write_text("import plugin\nimport gone_of_mine\nx = (\n")
    before = provenance.file(path)
    (tmp_path / "other_of_mine.py").write_text("import plugin\nimport gone_of_mine\nxs = [\n")
    assert provenance.file(path) != before


def test_other_distributions_count_by_their_release(tmp_path, monkeypatch):
    path = tmp_path / "plugin.py"
    path.write_text("import math\nimport numpy as np\nimport yaml\nfrom dlbench.engine import Engine\n")
    walk = Walk()
    walk.add(path, "plugin.py")
    assert len(walk.files) == 1  # neither torch's world nor dlbench's engine
    assert {name.split()[0] for name in walk.others} == {"numpy", "yaml"}
    before = provenance.file(path)
    monkeypatch.setattr(provenance, "_release", lambda top: "0.0")
    assert provenance.file(path) != before


def test_what_a_method_takes_from_a_built_in_one_counts(tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text("from dlbench.methods.calm import Calm\n")
    walk = Walk(own=("dlbench.methods",))
    walk.add(path, "plugin.py")
    assert sorted(label for label, _ in walk.files.values()) == ["dlbench/methods/calm.py", "plugin.py"]


def test_built_in_methods_have_their_code_whatever_is_installed(monkeypatch):
    path = registry.locate("calm").path
    before = provenance.built_in(path)
    monkeypatch.setattr(provenance, "_release", lambda top: "0.0")
    assert provenance.built_in(path) == before != provenance.built_in(registry.locate("mue").path)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An environment's site-packages with two distributions, one of them with an entry point."""
    folder = tmp_path / "site-packages"

    def install(files, module, distribution="plug-of-mine", listed=True):
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(text if isinstance(text, bytes) else text.encode())
        info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dlbench.methods]\nmethod_of_mine = {module}:Method\n")
        if listed:
            (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
        method_sources.found.cache_clear()
        source_sha256.cache_clear()
        return folder

    monkeypatch.syspath_prepend(folder)
    yield install
    method_sources.found.cache_clear()
    source_sha256.cache_clear()
    assert "plug_of_mine" not in sys.modules


def edits(folder, paths, sha256):
    """The hash after each of some edits; every one is undone."""
    found = []
    for path in paths:
        raw = (folder / path).read_bytes()
        (folder / path).write_bytes(raw + b"\nmore = 1\n")
        found.append(sha256())
        (folder / path).write_bytes(raw)
    return found


def test_the_whole_package_of_an_installed_plugin_counts(site):
    files = {
        "plug_of_mine/__init__.py": "",
        "plug_of_mine/sub/__init__.py": "",
        "plug_of_mine/sub/method.py": "from plug_of_mine import tools\nimport second_of_mine\nimport other_of_mine\n",
        "plug_of_mine/tools.py": "x = 1\n",
        "plug_of_mine/never_imported.py": "x = 1\n",
        "plug_of_mine/table.json": "{}",
        "plug_of_mine/weights.bin": b"\0\1",
        "second_of_mine.py": "x = 1\n",
    }
    folder = site(files, "plug_of_mine.sub.method")
    site({"other_of_mine/__init__.py": "x = 1\n"}, "other_of_mine", "other-of-mine")
    (folder / "other_of_mine-1.0.dist-info" / "entry_points.txt").unlink(missing_ok=True)

    def sha256():
        method_sources.found.cache_clear()
        source_sha256.cache_clear()
        return source_sha256("method_of_mine")

    (folder / "other_of_mine-1.0.dist-info").rename(folder / "other_of_mine-1.0.dist-info.off")
    before = sha256()
    after = edits(folder, files, sha256)
    assert before not in after and len(set(after)) == len(files)
    assert edits(folder, ["other_of_mine/__init__.py"], sha256) == [before]  # another distribution's
    (folder / "plug_of_mine" / "__pycache__").mkdir()
    (folder / "plug_of_mine" / "__pycache__" / "tools.cpython-311.pyc").write_bytes(b"x")
    (folder / "plug_of_mine" / ".tools.py.swp").write_bytes(b"x")
    (folder / "plug_of_mine" / "tools.py").write_text('"""Prose."""\nx = 1\n')
    assert sha256() == before


def test_a_distribution_of_single_modules_counts_by_what_it_imports(site):
    files = {
        "plug_of_mine.py": "import second_of_mine\n",
        "second_of_mine.py": "x = 1\n",
        "third_of_mine.py": "x = 1\n",
    }
    folder = site(files, "plug_of_mine")
    sha256 = lambda: provenance.installed("plug_of_mine", "plug-of-mine")  # noqa: E731
    before = sha256()
    first, second, third = edits(folder, files, sha256)
    assert before == third and len({before, first, second}) == 3


def test_a_shared_folder_of_many_distributions_is_no_package(site):
    files = {"space_of_mine/plug/__init__.py": "", "space_of_mine/other/__init__.py": ""}
    folder = site(files, "space_of_mine.plug")
    sha256 = lambda: provenance.installed("space_of_mine.plug", "plug-of-mine")  # noqa: E731
    before = sha256()
    mine, other = edits(folder, files, sha256)
    assert mine != before == other


def test_an_editable_plugin_counts_where_it_lies(site, tmp_path, monkeypatch):
    """Its distribution lists no module, and its package stands in a checkout; so does what it imports from others."""
    site({}, "plug_of_mine.method", listed=False)
    source = tmp_path / "src"
    files = {"plug_of_mine/__init__.py": "", "plug_of_mine/method.py": "import library_of_mine\n"}
    for path, text in {**files, "library_of_mine.py": "x = 1\n"}.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    monkeypatch.syspath_prepend(source)
    sha256 = lambda: provenance.installed("plug_of_mine.method", "plug-of-mine")  # noqa: E731
    before = sha256()
    after = edits(source, [*files, "library_of_mine.py"], sha256)
    assert before not in after and len(set(after)) == 3


def test_content_keys_hold_what_a_plugin_imports(plugin):
    from record_samples import conditions

    from dlbench.evaluation.settings import Setting
    from dlbench.methods.full import Full

    path, home = plugin
    keys = []
    for level in (3, 3, 40):
        (home / "deep_of_mine.py").write_text(f"LEVEL = {level}\n")
        source_sha256.cache_clear()
        keys.append(conditions().key(Setting("every_other", str(path), Full(), None)))
    assert keys[0] == keys[1] != keys[2]


def test_a_file_is_read_once(tmp_path, monkeypatch):
    path = lay(tmp_path, FILES)
    provenance.file(path)
    monkeypatch.setattr(source_file, "without_prose", lambda raw: pytest.fail("read again"))
    provenance.file(path)


def test_the_whole_package_of_a_plugin_file_counts(tmp_path):
    """Data that the method reads is no import."""
    package = tmp_path / "plug" / "inner"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py", package / "mine.py"):
        path.write_text("")
    (package.parent / "table.json").write_text("[1]")
    before = provenance.file(package / "mine.py")
    (package.parent / "table.json").write_text("[2]")
    assert provenance.file(package / "mine.py") != before
    (package / "mine.py").rename(tmp_path / "mine.py")  # outside of a package, only what it imports
    alone = provenance.file(tmp_path / "mine.py")
    (tmp_path / "other.py").write_text("")
    assert provenance.file(tmp_path / "mine.py") == alone
