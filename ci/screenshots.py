#!/usr/bin/env python
"""Take screenshots of a board's main pages: `ci/screenshots.py [RUN_DIR] [--out FOLDER]`.

Without a run, the public records are shown; the README's picture, leaderboard/board.png, is one of these. Needs
playwright (the `test` extra) and Chromium (see ci/browser). With the fonts Inter and Charis SIL installed
(`apt-get install fonts-inter fonts-sil-charis`) the pages look as they do to most readers.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.site import build

ROOT = Path(__file__).resolve().parent.parent
DESKTOP = {"viewport": {"width": 1400, "height": 900}, "device_scale_factor": 2}


def shoot(browser: Browser, site: Path, out: Path) -> None:
    """Take a screenshot of every main page: light and dark, wide and narrow, with and without JavaScript."""
    samples = next(iter(sorted((site / "samples").glob("*/*router-50.html"))), None)
    pages: dict[str, tuple[str, dict[str, Any], bool]] = {
        "board": ("index.html", {}, False),
        "board-dark": ("index.html", {"color_scheme": "dark"}, False),
        "board-whole": ("index.html", {}, True),
        "board-time": ("index.html#axis=token1", {}, True),
        "board-900": ("index.html", {"viewport": {"width": 900, "height": 900}}, True),
        "board-400": ("index.html", {"viewport": {"width": 400, "height": 900}}, True),
        "board-plain": ("index.html", {"java_script_enabled": False}, True),
        "methods": ("methods.html", {}, True),
        "method": ("methods/hidden-router.html", {}, True),
    }
    if samples is not None:
        pages["samples"] = (str(samples.relative_to(site)), {}, False)
    for name, (page, options, whole) in pages.items():
        asked: dict[str, Any] = {**DESKTOP, **options}
        context = browser.new_context(**asked)
        shown = context.new_page()
        file, _, state = page.partition("#")
        shown.goto(f"{(site / file).as_uri()}{'#' if state else ''}{state}")
        if name.startswith("board") and name != "board-plain":
            shown.wait_for_selector(".live-chart svg")
            shown.wait_for_timeout(400)
        shown.screenshot(path=out / f"{name}.png", full_page=whole)
        context.close()
        print(out / f"{name}.png")


def main(run: Path | None, out: Path) -> None:
    """Build the site in a temporary folder and take the screenshots."""
    runs = [run] if run else sorted(path.parent for path in (ROOT / "leaderboard" / "records").glob("*/records.jsonl"))
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        site = build(read_board(runs), Path(folder) / "site").parent
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        shoot(browser, site, out)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="run folder [the public records]")
    parser.add_argument("--out", type=Path, default=Path("screenshots"), help="folder for the pictures [screenshots]")
    given = parser.parse_args()
    main(given.run, given.out)
