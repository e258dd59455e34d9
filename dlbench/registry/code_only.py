"""The code of a Python file without comments and docstrings: what its behaviour depends on.

Comments, docstrings, blank lines and white space at line ends do not change behaviour, so editing them must not change
content keys. The rest is kept exactly as written. `ast` and `tokenize` only give the positions of comments and strings,
not their text, which differs between releases of Python: the same file gives the same result under all of them.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

Place = tuple[int, int]
"""Line, from 0, and column."""


def without_prose(raw: bytes) -> str:
    """The code of a file.

    Raises:
        SyntaxError: it is not Python, or uses the syntax of a later release.
    """
    text = _decoded(raw)
    tree = ast.parse(text)
    lines = text.split("\n")
    cuts = [*_texts(tree, lines)]
    inside: set[int] = set()  # lines that end inside a string
    opened: list[Place] = []
    for kind, start, end in _tokens(text):
        if kind == "COMMENT":
            cuts.append((start, end))
        elif kind.endswith("STRING_START"):  # since Python 3.12 and 3.14, of f- and t-strings
            opened.append(start)
        elif kind == "STRING" or (kind.endswith("STRING_END") and opened):
            start = start if kind == "STRING" else opened.pop()
            if not any(first <= start and end <= last for first, last in cuts):
                inside.update(range(start[0], end[0]))
    for (top, left), (bottom, right) in sorted(cuts, reverse=True):
        lines[top : bottom + 1] = [lines[top][:left] + lines[bottom][right:], *[""] * (bottom - top)]
    kept = []
    for number, line in enumerate(lines):
        shown = line if number in inside else line.rstrip()
        if shown or number - 1 in inside:
            kept.append(shown)
    return "\n".join(kept)


def _decoded(raw: bytes) -> str:
    """Decode a file by the encoding that it declares, with line feeds as line ends."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    return raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def _texts(tree: ast.AST, lines: list[str]) -> Iterator[tuple[Place, Place]]:
    """Positions of strings that are statements: docstrings, of fields too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            value = node.value
            assert value.end_lineno is not None and value.end_col_offset is not None
            ends = (value.lineno - 1, value.col_offset), (value.end_lineno - 1, value.end_col_offset)
            first, last = ((line, len(lines[line].encode()[:column].decode())) for line, column in ends)
            yield first, last


def _tokens(text: str) -> Iterator[tuple[str, Place, Place]]:
    """Name, start and end of every token; columns in characters."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (top, left), (bottom, right) = token.start, token.end
        yield tokenize.tok_name[token.type], (top - 1, left), (bottom - 1, right)
