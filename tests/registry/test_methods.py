import sys
import textwrap
from pathlib import Path

import pytest

from dlbench.errors import DlbenchError
from dlbench.registry import method_sources, plugin_code
from dlbench.registry import methods as registry

PLUGIN = '''
    """Every second layer (Nobody et al., arXiv 2401.00001)."""

    from dataclasses import dataclass, field
    from typing import ClassVar

    from dlbench.method import Action, Knob, Method, View


    class Table(dict):
        """Not a method."""


    @dataclass
    class EverySecond(Method):
        """Run every second layer.

        More about it.
        """

        knob: ClassVar[Knob | None] = Knob("stride", 1, 8)
        deployable: ClassVar[bool] = False

        stride: int = 2
        """Distance of the layers that run."""
        offsets: tuple[int, ...] = field(default=(0,))
        made: int = field(init=False, default=0)
        _cache: int = 0

        def route(self, view: View) -> Action:
            return Action.SKIP if view.layer % self.stride else Action.RUN
'''


@pytest.fixture
def plugin(tmp_path):
    def write(source=PLUGIN, name="every_second"):
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        return path

    yield write
    for module in [m for m in sys.modules if m.startswith("dlbench_plugin_")]:
        del sys.modules[module]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Put distributions with entry points on the path: (distribution, entry point, target) and their modules."""

    def install(*points, modules=()):
        for distribution, name, target in points:
            info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[dlbench.methods]\n{name} = {target}\n")
        for name, source in modules:
            (tmp_path / name).write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(tmp_path)
        method_sources.found.cache_clear()

    yield install
    method_sources.found.cache_clear()
    for module in [m for m in sys.modules if m.startswith("plug_")]:
        del sys.modules[module]


def test_built_ins_are_the_files_of_the_folder():
    assert "full" in registry.names()
    assert not [name for name in registry.names() if name.startswith("_")]
    assert registry.locate("full").origin == "built-in"


@pytest.mark.parametrize("name", registry.names())
def test_the_outline_of_a_built_in_is_what_its_class_says(name):
    import dataclasses

    info, chosen = registry.describe(name), registry.load(name)
    assert info.summary == chosen.__doc__.strip().splitlines()[0]
    assert [p.name for p in info.parameters] == [f.name for f in dataclasses.fields(chosen) if f.init]
    assert info.deployable == chosen.deployable
    assert info.knob == (chosen.knob.name if getattr(chosen, "knob", None) else None)
    assert info.fitted == getattr(chosen, "fitted", False)
    chosen.from_params({})


def test_a_plugin_file_is_described_without_running_it(plugin):
    path = plugin(PLUGIN + "\n    raise SystemExit('ran')\n")
    info = registry.describe(str(path))
    assert (info.name, info.summary, info.knob, info.deployable) == (
        "every_second",
        "Run every second layer.",
        "stride",
        False,
    )
    assert info.paper == "2401.00001"
    assert [(p.name, p.type, p.default, p.help) for p in info.parameters] == [
        ("stride", "int", "2", "Distance of the layers that run."),
        ("offsets", "tuple[int, ...]", "(0,)", ""),
    ]


def test_a_plugin_file_loads_once(plugin):
    path = str(plugin())
    chosen = registry.load(path)
    assert chosen.__name__ == "EverySecond"
    assert registry.load(path) is chosen
    assert chosen.from_params({"stride": 3}).params()["stride"] == 3


def test_inherited_parameters_and_knob_are_described(plugin):
    source = '''
        from dataclasses import dataclass
        from dlbench import method

        @dataclass
        class Learned(method.Router):
            """Learn."""
            size: int = 4
    '''
    info = registry.describe(str(plugin(source)))
    assert [p.name for p in info.parameters] == ["threshold", "size"]
    assert (info.knob, info.fitted) == ("threshold", True)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(DlbenchError, match="unknown method 'ful': did you mean full"):
        registry.locate("ful")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DlbenchError, match=r"no method file .*nothing\.py"):
        registry.locate(str(tmp_path / "nothing.py"))


def test_a_plugin_file_must_not_take_the_name_of_a_built_in(plugin):
    path = plugin(name="full")
    with pytest.raises(DlbenchError, match=r"two methods are named 'full'.*rename the file") as error:
        registry.locate(str(path))
    assert str(path) in str(error.value)


DECLARED = "from dlbench.method import Method\nclass A(Method):\n  {}\n  def route(self, view): ...\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ny = missing\n", r"every_second\.py, line 2: NameError"),
        ("x = (\n", r"every_second\.py, line 1: '\(' was never closed"),
        ("import sys\nsys.exit(3)\n", r"every_second\.py, line 2: SystemExit: 3"),
        ("x = 1\n", "exactly one public class .* it defines none"),
        (
            "from dlbench.method import Method\nclass A(Method):\n  def route(self, view): ...\nclass B(A): ...\n",
            "it defines A, B",
        ),
        ("from dlbench.method import Method\nclass A(Method): ...\n", "class A does not define route"),
        (DECLARED.format("kv = ('keep',)"), r"kv = \('keep',\) is no tuple of evict, project, recompute"),
        (DECLARED.format("kv = 'evict'"), "kv = 'evict' is no tuple"),
        (DECLARED.format("kv = ()"), r"kv = \(\) is no tuple"),
        (DECLARED.format("knob = 'share'"), "knob = 'share' is no Knob"),
        (DECLARED.format("variants = {'share': 1}"), "variants = .* is no tuple of mappings"),
    ],
)
def test_a_broken_plugin_is_told_with_file_and_line(plugin, source, message):
    path = plugin(source)
    with pytest.raises(DlbenchError, match=message) as error:
        registry.load(str(path))
    assert "every_second" in str(error.value)


def test_a_broken_plugin_can_be_mended_without_a_new_process(plugin):
    with pytest.raises(DlbenchError):
        registry.load(str(plugin("x = missing\n")))
    assert registry.load(str(plugin())).__name__ == "EverySecond"


def test_entry_points_are_found_described_and_loaded(installed):
    installed(("plug-one", "third", "plug_third:EverySecond"), modules=[("plug_third.py", PLUGIN)])
    assert "third" in registry.names()
    info = registry.describe("third")
    assert (info.origin, info.summary) == ("plug-one", "Run every second layer.")
    assert "plug_third" not in sys.modules
    assert registry.load("third").__name__ == "EverySecond"


def test_two_distributions_that_share_a_name_block_that_name_only(installed):
    installed(("plug-one", "third", "plug_a"), ("plug-two", "third", "plug_b"))
    assert "third" not in registry.names() and "full" in registry.names()
    assert registry.expand(["all"]) == registry.names()
    said = r"two methods are named 'third': plug_[ab] of plug-.* and plug_[ab] of plug-"
    for asked in (registry.locate, registry.load, registry.check_name):
        with pytest.raises(DlbenchError, match=said):
            asked("third")
    assert list(registry.unusable(["all"])) == ["third"] and not registry.unusable(["core"])


def test_an_entry_point_with_the_name_of_a_built_in_blocks_that_name_only(installed):
    installed(("plug-one", "calm", "plug_a"))
    with pytest.raises(DlbenchError, match=r"built-in .* and plug_a of plug-one; uninstall plug-one"):
        registry.check_name("calm")
    assert registry.expand(["core"]) == tuple(name for name in registry.CORE if name != "calm")
    assert registry.locate("calm").origin == "built-in"  # what dlbench itself uses goes on


def test_an_installed_method_that_is_broken_is_left_out_of_all(installed):
    installed(("plug-one", "third", "plug_third"), modules=[("plug_third.py", "x = missing\n")])
    assert "third" not in registry.expand(["all"])
    assert "NameError" in str(registry.unusable(["all"])["third"])
    assert registry.expand(["third"]) == ("third",)


def test_an_entry_point_without_its_module_is_a_broken_method(installed):
    installed(("plug-one", "third", "plug_gone"))
    assert "not readable" in registry.describe("third").summary
    with pytest.raises(DlbenchError, match="'third' is broken: plug_gone of plug-one: ModuleNotFoundError"):
        registry.load("third")


HELPED = """
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

{first}

from dlbench.methods.full import Full

class {name}(Full):
    level = helper_of_mine.LEVEL
"""


@pytest.fixture
def helped(tmp_path, monkeypatch):
    """Makes a plugin file in a folder of its own that finds its helpers beside it."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def make(name, files, first="import helper_of_mine"):
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        path = tmp_path / name / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(HELPED.format(name=name.title(), first=first))
        return str(path)

    yield make
    for name in [n for n in sys.modules if "of_mine" in n or n.startswith("dlbench_plugin_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("files", "first"),
    [
        ({"helper_of_mine.py": "LEVEL = {}"}, "import helper_of_mine"),
        ({"helper_of_mine/__init__.py": "LEVEL = {}"}, "import helper_of_mine"),
        ({"helper_of_mine.py": "LEVEL = {}", "{}_of_mine.py": "import helper_of_mine"}, "from {}_of_mine import *"),
    ],
)
def test_a_plugin_does_not_run_on_another_ones_helper(helped, files, first):
    """Python keeps one module of a name, so the second would silently run what the first brings."""
    paths = [
        helped(name, {p.format(name): t.format(i) for p, t in files.items()}, first.format(name))
        for i, name in enumerate(("one", "two"))
    ]
    assert registry.load(paths[0]).level == 0
    with pytest.raises(DlbenchError, match=r"methods 'one' and 'two' each bring a module 'helper_of_mine'.*rename"):
        registry.load(paths[1])
    assert registry.load(paths[0]).level == 0
    same = helped("four", {p.format("four"): t.format(0) for p, t in files.items()}, first.format("four"))
    assert registry.load(same).level == 0  # it says the same


@pytest.mark.parametrize("line", ["import helper_of_mine", "importlib.import_module(name='helper_of_mine')"])
def test_nor_where_a_function_imports_it(helped, line):
    body = "import importlib\nhelper_of_mine = None\ndef f():\n    " + line
    one, two = (helped(name, {"helper_of_mine.py": f"LEVEL = '{name}'"}, body) for name in ("one", "two"))
    for path in (one, two):
        text = Path(path).read_text()
        Path(path).write_text(text.replace("level = helper_of_mine.LEVEL", "level = 1"))
    registry.load(one)
    with pytest.raises(DlbenchError, match="each bring a module 'helper_of_mine'"):
        registry.load(two)


def test_plugins_may_share_a_helper(helped, tmp_path):
    """One that lies in one place, or beside one of them only."""
    first = helped("one", {"helper_of_mine.py": "LEVEL = 7"})
    assert registry.load(first).level == 7
    assert registry.load(helped("two", {})).level == 7
    third = tmp_path / "one" / "three.py"
    third.write_text(HELPED.format(name="Three", first="import helper_of_mine"))
    assert registry.load(str(third)).level == 7


def test_an_exception_that_passed_through_a_plugin_is_its_own(plugin):
    path = plugin(PLUGIN + "\n        def live(self, depth):\n            return depth / 0\n")
    with pytest.raises(ZeroDivisionError) as raised:
        registry.load(str(path))().live(4)
    said = str(plugin_code.guilty(raised.value))
    assert said.startswith("method 'every_second' failed: ZeroDivisionError: division by zero")
    assert f"{path}, line {len(path.read_text().splitlines())}" in said
    with pytest.raises(ZeroDivisionError) as raised:
        1 / 0  # noqa: B018
    assert plugin_code.guilty(raised.value) is None
