"""Turn a Vega-Lite specification into a picture: an SVG that is part of a page, one that stands alone, or a PNG."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert

from dlbench.errors import DlbenchError, RecordError
from dlbench.leaderboard.charts.style import PAPER
from dlbench.system.files import write_text
from dlbench.system.paths import cache_folder

VEGA_LITE = "6.4"
"""Version of Vega-Lite, of those that vl-convert brings, for pictures and for the page's script."""

_LABELS = re.compile(r' (?:role|class|pointer-events|aria-[a-z]+)="[^"]*"')


@cache
def bundle() -> str:
    """Return the script that draws charts on a page: Vega, Vega-Lite and vega-embed, out of the installed package.

    To bundle it takes a second and a half, so it is kept in the user's cache, where there can be one.
    """
    kept: Path | None = None
    with suppress(DlbenchError, OSError, UnicodeDecodeError):
        kept = cache_folder() / f"vega-{VEGA_LITE}-{version('vl-convert-python')}.js"
        return kept.read_bytes().decode("utf-8")
    # Its stub asks for a snippet that the function itself does not.
    script: str = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    if kept is not None:
        with suppress(RecordError):
            write_text(kept, script)
    return script


def draw(spec: Mapping[str, Any]) -> str:
    """Draw a chart as an SVG without a background."""
    # As text: the binding would write a dictionary out in an order of its own.
    drawn: str = vl_convert.vegalite_to_svg(json.dumps({**spec, "background": "transparent"}), vl_version=VEGA_LITE)
    return drawn


def inline_svg(drawn: str, name: str, title: str, described: str) -> str:
    """Make a drawing part of a page: titled, scalable, with hints on hover and ids that never change.

    Args:
        drawn: by `draw`.
        name: an id that nothing else on the page has.
        title: what it is, for screen readers.
        described: what it shows, for screen readers.
    """
    text = drawn
    ids: dict[str, str] = {}
    for id_ in re.findall(r'\bid="([^"]+)"', text):
        ids.setdefault(id_, f"{name}-{len(ids)}")
    for old, new in ids.items():
        text = text.replace(f'id="{old}"', f'id="{new}"').replace(f"url(#{old})", f"url(#{new})")
    text = re.sub(r'(<path aria-label="([^"]*)"[^>]*?)/>', r"\1><title>\2</title></path>", text)
    # Vega labels every shape for screen readers; the description of the whole picture replaces that, at half the size.
    body = _LABELS.sub("", text[text.index(">") + 1 :])
    box = re.search(r'viewBox="[^"]*"', text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'aria-labelledby="{name}-title {name}-desc" {box.group() if box else ""}>'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(described)}</desc>{body}'
    )


def alone_svg(drawn: str) -> str:
    """Make a drawing a file of its own, on white."""
    end = drawn.index(">") + 1
    return f'{drawn[:end]}<rect width="100%" height="100%" fill="{PAPER[0]}"/>{drawn[end:]}\n'


def png(spec: Mapping[str, Any], scale: float = 2.0) -> bytes:
    """Draw a chart as a PNG on white."""
    drawn: bytes = vl_convert.vegalite_to_png(
        json.dumps({**spec, "background": PAPER[0]}), vl_version=VEGA_LITE, scale=scale
    )
    return drawn
