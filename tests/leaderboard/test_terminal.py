import io

from record_factory import record, synthetic_run
from rich.console import Console

from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.terminal.table import closing_table


def printed(table, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_closing_table_fits_a_hundred_columns_uncut():
    run = synthetic_run(documents=20)
    text = printed(closing_table(build_tracks(run.records, run.timings)))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "…" not in text
    for word in (
        "nano_math",
        "n 20",
        "chrf",
        "hidden_router",
        "nano-half",
        "oracle@full",
        "retained [95 %]",
        "batch 16",
    ):
        assert word in text
    assert "0.25 †" in text
    assert "unreachable" in text


def test_table_without_times_has_no_columns_for_them():
    assert "ms/token" not in printed(closing_table(build_tracks([record()])))


def test_names_are_not_markup_and_nothing_is_a_dash():
    bare = record("[red]x[/red]", status="unreachable", quality=None, compute=None)
    text = printed(closing_table(build_tracks([bare])))
    assert "[red]x[/red]" in text
    assert "None" not in text
    assert "–" in text
