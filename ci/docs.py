#!/usr/bin/env python
"""Build the documentation site: `ci/docs.py --out DIR`. Needs the extra `dlbench[docs]`, and no network.

Pages are the Markdown files of the repository, one page per method made from its file, and the interface from its
docstrings. A link that leads nowhere, or a docstring that cannot be read, ends the build.
"""

import argparse
import ast
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dlbench import method
from dlbench.registry import methods

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "start",
    "docs/concepts.md": "concepts",
    "docs/first-method.md": "first-method",
    "docs/methods.md": "methods",
    "docs/tasks.md": "tasks",
    "tasks/nano/README.md": "nano",
    "docs/training.md": "training",
    "docs/statistics.md": "statistics",
    "docs/board.md": "board",
    "docs/long-runs.md": "long-runs",
    "docs/slurm.md": "slurm",
    "docs/python.md": "python",
    "leaderboard/SUBMITTING.md": "protocol",
    "docs/audits.md": "audits",
    "docs/faq.md": "faq",
    "CONTRIBUTING.md": "contributing",
    "docs/architecture.md": "architecture",
    "CHANGELOG.md": "changelog",
}
"""File → page, in the order of the contents."""
GROUPS = {
    "First steps": ("start", "concepts", "first-method", "faq"),
    "Using it": ("methods", "each-method/index", "tasks", "nano", "training", "board", "long-runs", "slurm", "python"),
    "What the numbers mean": ("statistics", "protocol", "audits"),
    "Reference": ("api", "architecture", "contributing", "changelog"),
}
API = {
    "From Python": ("dlbench", ("run", "evaluate", "load", "Results")),
    "Rows and texts": ("dlbench.api", ("result_row.ResultRow", "chart.Chart", "texts.Continuation")),
    "The interface of a method": (
        "dlbench.method",
        tuple(name for name in method.__all__ if isinstance(getattr(method, name), type)),
    ),
    "Records": ("dlbench.records.schema", ("Record", "Timing", "Sample")),
    "Checks in pytest": ("dlbench.testing", ()),
    "Errors": ("dlbench.errors", ("DlbenchError", "MethodError", "RowsLeftOutError")),
}
"""Heading → module, and the names that it documents; none for the module itself."""
CONF = """
project = "dlbench"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "dlbench"
myst_heading_anchors = 4
default_role = "code"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False
suppress_warnings = ["myst.header", "misc.highlighting_failure"]


def setup(app):
    # In a docstring |x| is an absolute value, not a substitution.
    app.connect("autodoc-process-docstring", lambda *given: given[-1].__setitem__(
        slice(None), [line.replace("|", chr(92) + "|") if line.count("|") > 1 else line for line in given[-1]]
    ))
"""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def assemble(folder: Path) -> None:
    """Write all sources of the site into a folder."""
    if missing := {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")} - PAGES.keys():
        raise SystemExit(f"ci/docs.py: not on the site: {', '.join(sorted(missing))}")
    (folder / "conf.py").write_text(CONF)
    for file, page in PAGES.items():
        (folder / f"{page}.md").write_text(relinked(ROOT / file, folder))
    (folder / "index.md").write_text(index())
    (folder / "api.md").write_text(api())
    each = folder / "each-method"
    each.mkdir()
    names = [name for name in methods.names() if methods.locate(name).origin == "built-in"]
    for name in names:
        (each / f"{name}.md").write_text(method_page(name))
    listed = "\n".join(f"| [{name}]({name}.md) | {methods.describe(name).summary} |" for name in names)
    tree = "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])
    (each / "index.md").write_text(f"# Each method\n\n| method | |\n| --- | --- |\n{listed}\n\n{tree}\n")


def relinked(path: Path, folder: Path) -> str:
    """The text of a file with its links to other files turned into links of the site, and its pictures copied."""

    def link(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        place, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not place:
            return match.group()
        file = (path.parent / place).resolve()
        if not file.exists():
            raise SystemExit(f"{path.relative_to(ROOT)}: no file {place}")
        name = file.relative_to(ROOT).as_posix()
        if anchor and f'<a id="{anchor}"></a>' in (file.read_text() if name in PAGES else ""):
            return f"[{text}](#{anchor})"
        if picture:
            shutil.copyfile(file, folder / file.name)
            return f"![{text}]({file.name})"
        if name in PAGES:
            return f"[{text}]({PAGES[name]}.md{'#' * bool(anchor)}{anchor})"
        return text

    text = re.sub(r'<a id="([^"]+)"></a>', r"(\1)=\n", path.read_text())
    # A picture may be the text of a link, so it is turned first.
    return _LINK.sub(link, re.sub(r"!\[[^\]]*\]\([^)\s]+\)", lambda found: _LINK.sub(link, found.group()), text))


def index() -> str:
    """The first page: what the site has."""
    trees = [
        "\n".join(["```{toctree}", f":caption: {caption}", ":maxdepth: 1", "", *pages, "```"])
        for caption, pages in GROUPS.items()
    ]
    about = "A benchmark suite and leaderboard for dynamic-depth inference in decoder-only language models."
    return "\n\n".join(["# dlbench", about, *trees]) + "\n"


def api() -> str:
    """The interface, from its docstrings."""
    parts = ["# Interface"]
    for heading, (module, names) in API.items():
        kinds = [
            f".. autoclass:: {module}.{name}\n   :members:" for name in names if name.rpartition(".")[2][0].isupper()
        ]
        kinds += [f".. autofunction:: {module}.{name}" for name in names if not name.rpartition(".")[2][0].isupper()]
        kinds = kinds or [f".. automodule:: {module}"]
        parts.append(f"## {heading}\n\n```{{eval-rst}}\n" + "\n\n".join(kinds) + "\n```")
    return "\n\n".join(parts) + "\n"


def directive(module: str, name: str) -> str:
    """What documents a class with its members, or a function."""
    is_class = name.rpartition(".")[2][0].isupper()
    return f".. autoclass:: {module}.{name}\n   :members:" if is_class else f".. autofunction:: {module}.{name}"


def method_page(name: str) -> str:
    """The page of a method: what its file says."""
    path = methods.locate(name).path
    assert path is not None
    info = methods.describe(name)
    tree = ast.parse(path.read_text())
    told, fields = ast.get_docstring(tree) or "", field_docs(tree)
    facts = [f"`dlbench run --method {name}`", "", f"- Deployable: {'yes' if info.deployable else 'no'}"]
    facts.append(f"- Fitted on documents: {'yes' if info.fitted else 'no'}")
    if info.knob:
        facts.append(f"- Knob, tuned to a budget: `{info.knob}`")
    if info.paper:
        facts.append(f"- Paper: [arXiv {info.paper}](https://arxiv.org/abs/{info.paper})")
    rows = [
        f"| `{p.name}` | `{p.default}` | {fields.get(p.name, p.help).replace('|', chr(92) + '|')} |"
        for p in info.parameters
    ]
    table = ["| parameter | default | |", "| --- | --- | --- |", *rows] if rows else ["It has no parameters."]
    return "\n".join([f"# {name}", "", told, "", *facts, "", "## Parameters", "", *table, ""])


def field_docs(tree: ast.Module) -> dict[str, str]:
    """The docstrings of the fields of the classes in a file, each on one line."""
    told = {}
    for node in tree.body:
        for field, text in itertools.pairwise(node.body if isinstance(node, ast.ClassDef) else []):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                told[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return told


def main(out: Path) -> int:
    """Build the site into a folder; returns the exit code of the builder."""
    with tempfile.TemporaryDirectory() as scratch:
        assemble(Path(scratch))
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", scratch, str(out)]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code == 0:
        print(f"{out / 'index.html'}: {len(list(out.rglob('*.html')))} pages")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    sys.exit(main(parser.parse_args().out))
