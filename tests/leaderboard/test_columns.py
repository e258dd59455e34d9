"""The tables of columns: a column that is added there shows in every output, and the head of a table fits its lines."""

import csv
import io
import json

import pytest
from browser import Watched, browsing, chromium
from page_tables import Tables, texts
from record_factory import synthetic_run
from rich.console import Console

from dlbench.leaderboard import site as sites
from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.columns import method_columns, row_columns
from dlbench.leaderboard.columns.column import OUTPUTS, Cell, Column, TableInfo, columns_of
from dlbench.leaderboard.columns.html_table import html_table
from dlbench.leaderboard.columns.row_line import entry_lines
from dlbench.leaderboard.pages.environment import environment
from dlbench.leaderboard.terminal.table import closing_table

INFO = TableInfo(
    metric="chrf",
    batches=(1, 16),
    samples=True,
    extras=("bleu",),
    targets=(0.95, 0.99),
    budgets=(0.25, 0.5),
    gap_budgets=(0.5,),
)
WITHOUT = "static_exit"


def made_up(line):
    """A figure that one method does not have."""
    return None if line.entry.method == WITHOUT else 10 * len(line.entry.label) + (line.entry.budget or 0)


DUMMY = Column(
    key="dummy",
    value=made_up,
    format=lambda value: f"{value:.2f} n_o",
    help="Made up",
    best="most",
    page=Cell("Dummy,\nnodes"),
    method=Cell("Dummy"),
    terminal=Cell("dummy"),
    latex=Cell("dummy_nodes"),
    csv=Cell("dummy_csv"),
    json=Cell("dummy_json"),
)


def span(cells, name="colspan"):
    return sum(int(attributes.get(name, 1)) for attributes, _ in cells)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    run = synthetic_run(documents=12, tasks=["nano_summary", "nano_math"])
    return read_board([run.write(tmp_path_factory.mktemp("run"))])


@pytest.fixture(scope="module")
def site(board, tmp_path_factory):
    """The site of a board with one column more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_columns, "ROWS", (*row_columns.ROWS, DUMMY))
        return sites.build(board, tmp_path_factory.mktemp("site")).parent


@pytest.fixture(scope="module")
def lines(board):
    """Entry id → its line, on the page of one task."""
    view = next(view for view in board.views if view.slug == "nano-summary")
    return {line.entry.id: line for line in entry_lines(view, view.entries)}


def written(line):
    value = made_up(line)
    return "–" if value is None else f"{value:.2f} n_o"


def test_a_new_column_shows_on_the_page_in_its_format(site, lines):
    table = Tables((site / "nano-summary.html").read_text()).tables["table"]
    (heading,) = [cell for _, cells in table for cell in cells if cell[0].get("data-sort") == "dummy"]
    assert texts([heading]) == ["Dummy, nodes"]
    assert heading[0]["title"] == "Made up" and heading[0]["data-best"] == "most"
    shown = {attributes["id"]: texts(cells)[-1] for attributes, cells in table if "id" in attributes}
    assert shown == {id_: written(line) for id_, line in lines.items()}
    assert shown["calm-50"] == "40.50 n_o" and shown["static-exit-50"] == "–"


def test_a_new_column_shows_on_the_page_of_its_method(site):
    table = Tables((site / "methods" / "calm.html").read_text()).tables
    rows = next(lines for lines in table.values() if texts(lines[0][1])[0] == "Variant")
    place = texts(rows[0][1]).index("Dummy")
    assert {texts(cells)[place] for _, cells in rows[1:]} == {"40.25 n_o", "40.50 n_o", "40.75 n_o"}


def test_a_new_column_shows_in_csv_and_json_as_a_plain_value(site):
    rows = list(csv.DictReader(io.StringIO((site / "records.csv").read_text())))
    assert {row["dummy_csv"] for row in rows if row["label"] == "calm"} == {"40.25", "40.5", "40.75"}
    assert {row["dummy_csv"] for row in rows if row["method"] == WITHOUT} == {""}
    views = json.loads((site / "board.json").read_text())["views"]
    assert len(views) == 3
    for view in views:
        by_method = {row["id"]: row["dummy_json"] for row in view["rows"]}
        assert by_method["calm-50"] == 40.5
        assert by_method["static-exit-50"] is None


def test_a_new_column_shows_in_latex_for_every_budget(site):
    comment, tabular, _, heads, *rows = (site / "tables" / "nano-summary.tex").read_text().splitlines()
    assert comment.endswith("with 95 % intervals; dummy_nodes")
    assert tabular == r"\begin{tabular}{lrrrrrrrrrr}"
    assert heads.split(" & ")[6:] == [rf"dummy\_nodes, {one}\,\%" for one in (25, 50, 75, 100)] + [
        r"dummy\_nodes, other \\"
    ]
    (calm,) = [row.split(" & ") for row in rows if row.startswith("calm")]
    (without,) = [row.split(" & ") for row in rows if row.startswith(r"static\_exit")]
    assert calm[6:] == [r"40.25 n\_o", r"40.50 n\_o", r"40.75 n\_o", "--", r"-- \\"]
    assert without[6:] == ["--"] * 4 + [r"-- \\"] and "--" not in without[1:4]


def test_a_new_column_shows_in_the_terminal(board, monkeypatch):
    def printed():
        console = Console(width=160, file=io.StringIO(), color_system=None)
        console.print(closing_table(board.tracks, 160))
        return console.file.getvalue().splitlines()

    before = printed()
    monkeypatch.setattr(row_columns, "ROWS", (*row_columns.ROWS, DUMMY))
    after = printed()
    assert not any("dummy" in line for line in before)
    assert any(line.rstrip().endswith("dummy") for line in after)
    assert sum(line.rstrip().endswith("40.50 n_o") for line in after) == 2  # calm, on both tasks
    first = next(number for number, line in enumerate(after) if line.strip().startswith("static_exit"))
    assert [line.split()[-1] for line in after[first : first + 3]] == ["–"] * 3


def test_a_new_column_sorts_like_the_others(site, lines):
    with browsing(chromium()) as browser:
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        watched = Watched(context.new_page())
        page = watched.open(site / "nano-summary.html", unfold=True)
        heading = page.locator("#table th[data-sort='dummy']")

        def order():
            return page.eval_on_selector_all("#table tbody tr[id]", "rows => rows.map(row => row.id)")

        start = order()
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "descending"
        values = [made_up(lines[id_]) for id_ in order()]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=True) and values == known + [None] * 3
        heading.locator("button").click()
        assert [made_up(lines[id_]) for id_ in order()][: len(known)] == sorted(known)
        heading.locator("button").click()
        assert order() == start
        watched.assert_clean(site)
        context.close()


@pytest.mark.parametrize("path", ["index.html", "nano-summary.html", "methods/calm.html"])
def test_every_line_of_a_table_has_as_many_cells_as_its_head(site, path):
    tables = Tables((site / path).read_text()).tables
    for name, table in tables.items():
        head = span(table[0][1])
        assert {span(cells) for _, cells in table if not any("data-sort" in one for one, _ in cells)} == {head}, name


@pytest.mark.parametrize("table", [row_columns.ROWS, method_columns.METHODS])
def test_keys_are_unique_and_columns_name_only_what_there_is(table):
    columns = []
    for item in table:
        columns += [item] if isinstance(item, Column) else item(INFO)
    keys = [column.key for column in columns]
    assert len(keys) == len(set(keys)) > 10
    macros = environment().get_template("cells.html.j2").module
    for output in OUTPUTS:
        for column in columns_of(table, output, INFO):
            cell = column.cell(output)
            assert cell.before in (None, "", *keys)
            assert not cell.macro or callable(getattr(macros, cell.macro)), cell.macro


def test_columns_stand_in_the_order_of_the_table_unless_they_say_otherwise():
    def column(key, before=None):
        return Column(key=key, value=str, page=Cell(key, before=before))

    table = (column("a"), column("b", before="a"), lambda info: map(column, info.extras), column("c", before=""))
    info = TableInfo(extras=("x", "y"))
    assert [one.key for one in columns_of(table, "page", info)] == ["b", "a", "x", "y", "c"]
    # A column whose neighbour does not show keeps its own place.
    assert [one.key for one in columns_of(table[1:], "page", info)] == ["b", "x", "y", "c"]
    assert columns_of(table, "csv", info) == []


def test_neighbours_of_a_group_share_a_heading():
    columns = [
        Column(key="a", value=str, page=Cell("A", span=2)),
        Column(key="b", value=str, page=Cell("B", group="both")),
        Column(key="c", value=str, page=Cell("C", group="both")),
    ]
    table = html_table(columns, "page")
    assert table.width == 4
    assert [[(one.title, one.colspan, one.rowspan) for one in row] for row in table.header] == [
        [("A", 2, 2), ("both", 2, 1)],
        [("B", 1, 1), ("C", 1, 1)],
    ]
    assert [one.rowspan for one in html_table(columns[:1], "page").header[0]] == [1]
