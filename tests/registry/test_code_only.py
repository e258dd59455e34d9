"""Prose of a Python file does not count, everything else does, under every release of Python alike."""

import ast
import hashlib
import textwrap
from pathlib import Path

import pytest

from dlbench.registry.code_only import without_prose

ROOT = Path(__file__).parents[2]
SOURCE = '''#!/usr/bin/env python
# -*- coding: utf-8 -*-
"""What it is – in words.

More of them.
"""
import math  # for the sine


class Thing:
    """A thing."""

    size: int = 3
    """How large; é is two bytes."""; other = "é"  # after it

    def text(self, x=f"{math.pi:.2f} # no comment"):
        """Say."""
        # nothing

        return """a # kept

   blank lines and trailing spaces stay:   
""" + f"""
{x}

"""
'''
CODE = '''import math
class Thing:
    size: int = 3
    ; other = "é"
    def text(self, x=f"{math.pi:.2f} # no comment"):
        return """a # kept

   blank lines and trailing spaces stay:   
""" + f"""
{x}

"""'''


def code(text):
    return without_prose(textwrap.dedent(text).encode())


def test_what_is_left_is_the_code():
    assert without_prose(SOURCE.encode()) == CODE
    digest = hashlib.sha256(CODE.encode()).hexdigest()  # the same number under Python 3.11, 3.12 and 3.13
    assert digest == "fe76883b0f7b311f363f78f099c25d557f252d445864b80fa93d4aef246a758d"


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("\n", "\r\n"),
        SOURCE.replace("A thing.", "Another\n    thing.\n    "),
        SOURCE.replace("# nothing", "# something\n\n\n        # more"),
        SOURCE.replace('    """A thing."""\n', ""),
        SOURCE.replace("import math  #", "import math#"),
        "\ufeff" + SOURCE,
    ],
)
def test_prose_does_not_count(other):
    assert without_prose(other.encode()) == CODE


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ('x = "a"', 'x = "b"'),
        ("x = '''a\n\nb'''", "x = '''a\nb'''"),  # a blank line within a string is code
        ("x = '''a \nb'''", "x = '''a\nb'''"),
        ("x = f'''a\n\n{1}'''", "x = f'''a\n{1}'''"),
        ("x = '# a'", "x = '# b'"),
        ("if x:\n    y()\nz()", "if x:\n    y()\n    z()"),
        ("x = '''a'''", "'''a'''"),
        ("def f():\n    return 'doc'", "def f():\n    'doc'"),
        ("f'{x()}'", "f'{y()}'"),  # it runs, so it is no docstring
    ],
)
def test_code_counts(one, other):
    assert without_prose(one.encode()) != without_prose(other.encode())


def test_other_encodings_are_read_as_they_say():
    text = "# -*- coding: latin-1 -*-\nx = 'é'  # é\n"
    assert without_prose(text.encode("latin-1")) == "x = 'é'"


def test_what_is_no_python_is_refused():
    with pytest.raises(SyntaxError):
        without_prose(b"x = (")


@pytest.mark.parametrize("path", sorted((ROOT / "methods").glob("*.py")), ids=lambda p: p.stem)
def test_the_code_of_a_method_still_does_the_same(path):
    """Against the parser: the tree without its texts is that of the file without them."""

    class Mute(ast.NodeTransformer):
        def visit_Expr(self, node):
            return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    raw = path.read_bytes()
    assert ast.dump(ast.parse(without_prose(raw))) == ast.dump(Mute().visit(ast.parse(raw)))
