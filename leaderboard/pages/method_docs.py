"""What a page says about a method: docstring and parameters of its file, read without importing it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from markupsafe import Markup, escape

from dlbench.registry import outline, provenance
from dlbench.registry.outline import Parameter

_PAPER = re.compile(r"arXiv[:\s]*(\d{4}\.\d{4,5})")


@dataclass(frozen=True, slots=True)
class About:
    """What a method's file says about it.

    Attributes:
        summary: one line.
        text: the file's docstring as HTML; empty where the file is not here.
        papers: arXiv numbers, in the order in which they are cited.
        parameters: fields of its dataclass.
        knob: the parameter that is tuned to a budget.
        same: whether the file here is the one that the records ran; None where there is no file here.
    """

    summary: str
    text: Markup
    papers: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    knob: str | None
    same: bool | None


NOTHING = About("", Markup(""), (), (), None, None)


def about(name: str, sources: Iterable[str]) -> About:
    """Return what the file of a built-in or installed method says.

    Args:
        name: as records have it. Records are untrusted, so it is looked up in a list and never used as a path.
        sources: SHA-256 of the method files that the records ran.
    """
    try:
        path, sha256 = _source("oracle" if name in ("oracle@full", "oracle_cross") else name)
        file = None if path is None else (path.read_bytes(), outline.read(path))
    except (OSError, SyntaxError):
        file = None
    if file is None:
        return NOTHING
    raw, read = file
    docstring = ast.get_docstring(ast.parse(raw)) or ""
    return About(
        summary=read.summary,
        text=prose(docstring),
        papers=tuple(dict.fromkeys(_PAPER.findall(docstring))),
        parameters=read.parameters,
        knob=read.knob,
        # Older records hold the hash of the file, newer ones that of its code.
        same=bool({sha256, hashlib.sha256(raw).hexdigest()} & set(sources)),
    )


def _source(name: str) -> tuple[Path | None, str]:
    """Return the file of a built-in or installed method, and the hash of its code as a run records it.

    The registry is not asked, since it may import methods, and torch with them.
    """
    spec = importlib.util.find_spec("dlbench.methods")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        built_in = {path.stem: path for path in Path(folder).glob("[!_]*.py")}
        if name in built_in:
            return built_in[name], provenance.built_in(built_in[name])
    for point in entry_points(group="dlbench.methods"):
        if point.name == name and point.dist is not None:
            path = Path(str(point.dist.locate_file(point.module.replace(".", "/") + ".py")))
            return path if path.is_file() else None, provenance.installed(point.module, point.dist.name)
    return None, ""


def prose(text: str) -> Markup:
    """Return plain text as HTML: paragraphs, indented blocks preformatted, papers linked."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        tag = "pre" if all(line.startswith("    ") or not line for line in lines) else "p"
        body = "\n".join(line[4:] for line in lines) if tag == "pre" else block
        blocks.append(Markup("<{0}>{1}</{0}>").format(Markup(tag), _linked(body)))
    return Markup("\n").join(blocks)


def _linked(text: str) -> Markup:
    pieces = []
    at = 0
    for match in _PAPER.finditer(text):
        address = f"https://arxiv.org/abs/{match.group(1)}"
        pieces += [escape(text[at : match.start()]), Markup('<a href="{}">{}</a>').format(address, match.group())]
        at = match.end()
    return Markup("").join([*pieces, escape(text[at:])])
