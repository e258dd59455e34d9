import ast
import tomllib

import pytest

from dlbench.errors import DlbenchError
from dlbench.registry import outline, scaffold


def test_a_package_names_its_method_and_has_few_lines_of_logic(tmp_path):
    written = scaffold.package("my_rule", tmp_path)
    assert [str(path.relative_to(tmp_path / "my_rule")) for path in written] == [
        "pyproject.toml",
        "my_rule/__init__.py",
        "my_rule/my_rule.py",
        "tests/test_my_rule.py",
        "README.md",
    ]
    project = tomllib.loads(written[0].read_text())["project"]
    assert project["entry-points"] == {"dlbench.methods": {"my_rule": "my_rule.my_rule"}}
    assert not [path for path in written if "$" in path.read_text()]
    info = outline.read(written[2])
    assert (info.knob, [p.name for p in info.parameters]) == ("threshold", ["threshold"])
    (made,) = [node for node in ast.parse(written[2].read_text()).body if isinstance(node, ast.ClassDef)]
    assert made.name == "MyRule"
    assert sum(isinstance(node, ast.stmt) for node in ast.walk(made)) <= 15


def test_a_built_in_is_one_file_in_a_checkout(tmp_path):
    with pytest.raises(DlbenchError, match=r"is not the methods/ of dlbench; run this in a checkout"):
        scaffold.built_in("my_rule", tmp_path)
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "full.py").touch()
    assert scaffold.built_in("my_rule", tmp_path) == [tmp_path / "methods" / "my_rule.py"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Rule", "lower-case letters, digits and _"),
        ("class", "lower-case letters"),
        ("calm", r"that name is taken \(built-in"),
        ("json", "Python has a module of that name"),
        ("core", "that name is taken"),
    ],
)
def test_a_name_that_cannot_be_a_method_is_refused(tmp_path, name, message):
    with pytest.raises(DlbenchError, match=message):
        scaffold.package(name, tmp_path)


def test_nothing_is_overwritten(tmp_path):
    scaffold.package("my_rule", tmp_path)
    with pytest.raises(DlbenchError, match="exists already"):
        scaffold.package("my_rule", tmp_path)
