"""`dlbench compare` in a terminal: one table of what differs, one of how sure that is and what it cost, examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dlbench.leaderboard.analysis.compare import Comparison, Flip, Side
from dlbench.leaderboard.formatting import NOTHING, decimals

_STYLES = {1: "green", -1: "red", 0: "dim"}


def report(comparisons: Sequence[Comparison], title: str, width: int = 100) -> RenderableType:
    """Return all that is to be shown of a comparison, for a terminal of that width."""
    parts: list[RenderableType] = [
        Text(title, style="bold"),
        _verdict(comparisons),
        _differences(comparisons),
        _certainty(comparisons),
    ]
    parts += _remarks(comparisons)
    if any(one.flips for one in comparisons):
        parts += [Text(), Text("Documents that differ most", style="bold"), *_examples(comparisons, width)]
    return Group(*parts)


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(headers[0], min_width=14, overflow="fold")
    for header in headers[1:]:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _verdict(comparisons: Sequence[Comparison]) -> Text:
    names = {verdict: [one.task for one in comparisons if one.verdict == verdict] for verdict in (1, -1, 0)}
    words = {1: "A is better on", -1: "B is better on", 0: "not told apart on"}
    said = []
    for verdict, tasks in names.items():
        if tasks:
            which = f"all {len(tasks)} tasks" if len(tasks) == len(comparisons) > 1 else ", ".join(tasks)
            said.append(f"{words[verdict]} {which}")
    text = "; ".join(said) + "."
    return Text(text[:1].upper() + text[1:])


def _differences(comparisons: Sequence[Comparison]) -> Table:
    table = _table("task", "n", "A", "B", "A − B", "95 % interval", "won", "lost", "tied")
    for one in comparisons:
        places = decimals([one.a.mean, one.b.mean])
        style = _STYLES[one.verdict]
        difference = one.difference
        table.add_row(
            Text(one.task),
            str(one.n),
            f"{one.a.mean:.{places}f}",
            f"{one.b.mean:.{places}f}",
            Text(_signed(difference.estimate, places), style=style),
            Text(f"[{_signed(difference.low, places)}, {_signed(difference.high, places)}]", style=style),
            str(one.documents.won),
            str(one.documents.lost),
            str(one.documents.tied),
        )
    return table


def _certainty(comparisons: Sequence[Comparison]) -> Table:
    table = _table("task", "p", "corrected", "detectable", "layers\nA, %", "\nB, %", "FLOPs\nA, %", "\nB, %")
    for one in comparisons:
        places = decimals([one.a.mean, one.b.mean])
        table.add_row(
            Text(one.task),
            _p(one.p),
            _p(one.corrected),
            NOTHING if one.detectable is None else f"{one.detectable:.{places}f}",
            *(_mark(side) + _percent(side.layers) for side in (one.a, one.b)),
            *(_percent(side.total) for side in (one.a, one.b)),
        )
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _mark(side: Side) -> str:
    return "† " if side.unreachable else ""


def _signed(value: float, places: int) -> str:
    return f"{value:+.{places}f}".replace("-", "−")


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _remarks(comparisons: Sequence[Comparison]) -> list[Text]:
    methods = sorted({one.difference.method for one in comparisons})
    lines = [
        f"Intervals: {', '.join(methods)}. p: paired permutation test, corrected over the tasks (Benjamini-Hochberg).",
        "Detectable: the least true difference that this many documents show four times in five. "
        "Layers, total FLOPs: realised, of full depth.",
    ]
    shared = [f"{one.sources:,} sources on {one.task}" for one in comparisons if one.sources is not None]
    if shared:
        lines.append(f"Documents that share a source are resampled and swapped together: {', '.join(shared)}.")
    if any(side.unreachable for one in comparisons for side in (one.a, one.b)):
        lines.append("† unreachable: the budget is missed; the closest setting that was found is compared.")
    return [Text(line, style="dim") for line in lines]


def _examples(comparisons: Sequence[Comparison], width: int) -> Iterator[RenderableType]:
    for one in comparisons:
        if not one.flips:
            continue
        places = decimals([value for flip in one.flips for value in (flip.a, flip.b)])
        yield Text(f"{one.task} · {one.metric}", style="dim")
        for flip in one.flips:
            yield Text.assemble(
                "  ",
                flip.id,
                "  A ",
                (f"{flip.a:.{places}f}", "green" if flip.a > flip.b else "red"),
                "  B ",
                (f"{flip.b:.{places}f}", "green" if flip.b > flip.a else "red"),
            )
            yield from (Padding(line, (0, 0, 0, 4)) for line in _outputs(flip, width - 4))


def _outputs(flip: Flip, width: int) -> list[Text]:
    """Return a line of each output, from shortly before the first difference on."""
    if flip.a_output is None or flip.b_output is None:
        return []
    outputs = [_plain(flip.a_output), _plain(flip.b_output)]
    same = 0
    for left, right in zip(*outputs, strict=False):
        if left != right:
            break
        same += 1
    room = width - 3
    start = 0 if max(map(len, outputs)) <= room else max(0, same - room // 3)
    lines = []
    for letter, output in zip("AB", outputs, strict=True):
        shown = ("…" if start else "") + output[start:]
        if len(shown) > room:
            shown = shown[: room - 1] + "…"
        line = Text(f"{letter}  ", style="dim", no_wrap=True, overflow="ellipsis")
        cut = same - start + bool(start)
        line.append(shown[:cut], style="dim").append(shown[cut:] or ("" if output else "(nothing)"), style="default")
        lines.append(line)
    return lines


def _plain(text: str) -> str:
    """Return text on one line, without what could steer a terminal."""
    return "".join(one for one in " ".join(text.split()) if one.isprintable())
