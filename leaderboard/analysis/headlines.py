"""What the numbers say in sentences: one above the chart of a view, and a dozen lines that sum up all comparisons.

Every figure here is one that tables show too: ranks, what is enough and the gap closed come from the standings of a
view (`dlbench.leaderboard.analysis.view_stats`), comparisons from its claims.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dlbench.leaderboard.analysis.axis_verdict import HALF
from dlbench.leaderboard.analysis.claims import Claim
from dlbench.leaderboard.analysis.method_classes import CLASSES, Speaker, listed
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.data.cost_axes import Axis
from dlbench.leaderboard.data.entries import kind_of, shown
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.formatting import decimals, percent, whole


def at_mark(axis: Axis, mark: float) -> str:
    """Return at which cost methods are shown, in words: "at half of the layers"."""
    return f"at {'half' if mark == HALF else percent(mark)} of {axis.of}"


def axis_headline(view: BoardView, standings: Standings, axis: Axis, *, dense: bool = True) -> str:
    """Say who keeps most at half of full depth's cost on an axis, and what the smaller dense model keeps.

    The best is the method that ranks first there (`AxisVerdict`), so rows that are not ranked are not named either. A
    control is never credited as the best method; where one keeps more than any method, that is said.

    Args:
        view: the view.
        standings: its statistics.
        axis: the cost.
        dense: whether to add the smaller dense model.
    """
    verdict = standings.verdicts[axis.key]
    best, said = verdict.best, f"Quality and cost on {view.backbone}"
    if best is not None and verdict.mark is not None:
        where = f"A{at_mark(axis, verdict.mark)[1:]}"
        controls = [one for one in verdict.chosen.values() if kind_of(one) == "control"]
        ahead = max([best, *controls], key=lambda one: one.retained or 0.0)
        if ahead is best:
            said = f"{where}, {best.label} keeps most: {whole(best.retained)} of full depth’s quality"
        else:
            said = f"{where}, {best.label} keeps most of all methods: {whole(best.retained)} of full depth’s quality"
            said += f"; the control {ahead.label} keeps {whole(ahead.retained)}"
    small = next((entry for entry in view.of("dense") if shown(entry) and entry.retained is not None), None)
    if dense and small:
        said += f"; {small.label}, trained small, keeps {whole(small.retained)}"
    return said


def headlines(views: Iterable[BoardView], standings: Mapping[str, Standings], claims: Iterable[Claim]) -> list[str]:
    """Sum up what a board says of some tasks, a line per question.

    Args:
        views: of one task each.
        standings: the statistics of views, by slug.
        claims: comparisons that were made on these tasks.
    """
    families: dict[tuple[str, str], list[Claim]] = defaultdict(list)
    for claim in claims:
        families[claim.family].append(claim)
    tasks = [(view.tracks[0].task.name, standings[view.slug]) for view in views]
    lines = [_line(family) for family in _merged(families.values())]
    return [line for line in (*lines, _enough(tasks), _gap(tasks)) if line]


def _merged(families: Iterable[list[Claim]]) -> Iterator[list[Claim]]:
    """Join families of claims that say the same of several subjects: all better than the same other, or all worse."""
    merged: dict[tuple[object, ...], list[Claim]] = defaultdict(list)
    for family in families:
        verdicts = {claim.verdict for claim in family}
        same = len(verdicts) == 1 and 0 not in verdicts
        merged[(family[0].family[1], *verdicts) if same else family[0].family].extend(family)
    yield from merged.values()


def _line(family: Sequence[Claim]) -> str:
    """Return one line for the claims of a family, or of several that agree."""
    if len(family) == 1:
        return family[0].sentence
    if all(claim.kept is not None for claim in family):
        return _crossed(family)
    subjects = listed(list(dict.fromkeys(claim.family[0] for claim in family)))
    several = len({claim.family[0] for claim in family}) > 1
    other = family[0].family[1]
    told = [claim for claim in family if claim.difference is not None]
    if not told:
        return f"{_upper(subjects)} and {other} were not scored on the same documents: no comparison."
    groups = {verdict: [claim for claim in told if claim.verdict == verdict] for verdict in (1, -1, 0)}
    main = max(groups, key=lambda verdict: len(groups[verdict]))
    verb = {1: "beat" if several else "beats", -1: "lose to" if several else "loses to", 0: "cannot be told from"}[main]
    count = f"all {len(told)}" if len(groups[main]) == len(told) else f"{len(groups[main])} of {len(told)}"
    said = [f"{_upper(subjects)} {verb} {other} in {count} comparisons{_by(groups[main]) if main else ''}"]
    words = {1: "beats it", -1: "loses to it", 0: "undecided"}
    said += [f"{words[verdict]} {_places(some)}" for verdict, some in groups.items() if some and verdict != main]
    if len(told) < len(family):
        said.append(f"on other documents, so not compared, {_places([one for one in family if one not in told])}")
    return "; ".join(said) + "." + _spoken(told)


def _spoken(family: Sequence[Claim]) -> str:
    """Say which methods speak for the classes that are compared; empty where methods are."""
    pairs = [claim.speakers for claim in family if claim.speakers is not None]
    if not pairs:
        return ""
    sides = zip(family[0].family, zip(*pairs, strict=True), strict=True)
    return f" {_upper('; '.join(_speakers(name, several) for name, several in sides))}."


def _speakers(name: str, several: Sequence[Speaker]) -> str:
    """Say which members speak for a class, how often, and by what they were chosen."""
    counts = Counter(one.entry.row.label for one in several)
    among = sorted({label for one in several for label in one.among})
    if len(among) == 1:
        return f"{name} is {among[0]} alone"
    documents = min(one.documents for one in several if one.documents)
    times = listed([f"{label} ({count})" for label, count in counts.most_common()])
    return f"{name} is {times}, each time the best of {listed(among)} on {documents} documents of the tune part"


def _upper(text: str) -> str:
    """Begin a sentence; names of methods stay as they are."""
    return text[:1].upper() + text[1:] if text.startswith(("the ", *CLASSES)) else text


def _by(family: Sequence[Claim]) -> str:
    """Return the range of the differences, where they are of one scale."""
    sizes = [abs(claim.difference.estimate) for claim in family if claim.difference]
    if len({decimals([size]) for size in sizes}) != 1:
        return ""
    digits = decimals(sizes)
    ends = [f"{min(sizes):.{digits}f}", f"{max(sizes):.{digits}f}"]
    return f", by {ends[0]}" if ends[0] == ends[1] else f", by {ends[0]} to {ends[1]}"


def _places(family: Sequence[Claim]) -> str:
    """Return the tasks and budgets of claims: "on nano_math (25, 50 %) and nano_summary (75 %)"."""
    by_task: dict[str, list[float | None]] = defaultdict(list)
    for claim in family:
        by_task[claim.task].append(claim.budget)
    names = []
    for task, budgets in by_task.items():
        given = sorted({budget for budget in budgets if budget is not None})
        # A comparison that stands once per task needs no budget to be told from others.
        shown = ", ".join(percent(budget).removesuffix(" %") for budget in given) if len(budgets) == len(given) else ""
        names.append(f"{task} ({shown} %)" if shown else task)
    return "on " + listed(names)


def _crossed(family: Sequence[Claim]) -> str:
    by_task: dict[str, list[Claim]] = defaultdict(list)
    for claim in family:
        by_task[claim.task].append(claim)
    parts = []
    for task, some in by_task.items():
        kept = [f"{100 * before:.0f} → {100 * after:.0f} %" for before, after in (one.kept for one in some if one.kept)]
        budgets = [percent(one.budget).removesuffix(" %") for one in some if one.budget is not None]
        at = f" ({', '.join(budgets)} % of the layers)" if len(budgets) == len(some) else ""
        parts.append(f"{', '.join(kept)} on {task}{at}")
    return f"What the oracle keeps of full, scored on references it did not choose by: {'; '.join(parts)}."


def _enough(tasks: Iterable[tuple[str, Standings]]) -> str:
    """Say at which cost any method surely keeps 95 % of full depth's quality, per task the one of fewest FLOPs."""
    reached: dict[str, list[str]] = defaultdict(list)
    missed = []
    for task, standings in tasks:
        best = standings.enough
        if best is None:
            continue
        if best.label is None or best.enough.total is None:
            missed.append(task)
            continue
        layers = "" if best.enough.layers is None else f" ({percent(best.enough.layers)} of the layers)"
        reached[best.label].append(f"{percent(best.enough.total)} of full's FLOPs{layers} on {task}")
    if not reached and not missed:
        return ""
    said = [f"by {label} at {listed(places)}" for label, places in reached.items()]
    said += [f"by no method on {listed(missed)}"] if missed else []
    return f"With all methods tested together, 95 % of full is surely kept {'; '.join(said)}."


def _gap(tasks: Iterable[tuple[str, Standings]]) -> str:
    """Say which share of the gap from random routing to the honest oracle the best method closes near half the layers.

    Tasks without an honest oracle are left out.
    """
    parts = []
    for task, standings in tasks:
        if (best := standings.gap) is not None:
            closed = best.closed
            ends = "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * x for x in (closed.estimate, closed.low, closed.high)))
            parts.append(f"{ends} by {best.label} on {task}")
    if not parts:
        return ""
    return (
        f"At half of the layers, the gap from random routing to the honest oracle is closed to {listed(parts)}; "
        "intervals hold for all methods together."
    )
