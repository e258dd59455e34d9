#!/usr/bin/env python
"""Measure building and browsing a large board: `ci/board_scale.py [--tasks 20 …] [--processes N]`.

With 2,000 records and 50,000 samples the board must be built in under 60 s and 2 GB, its front page be interactive in
under 2 s, and sorting and filtering take under 200 ms. So must a single page that holds 2,000 rows (`--long`).
The script prints the figures and fails if one is missed.
Browser figures need Chromium (see ci/browser) and are left out without it.

The whole command `dlbench board` is measured, with every process that it starts: their CPU time as the system counts
it, and the sum of their resident memory, sampled twenty times a second. Shared pages count once per process.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from large_run import write_large_run  # noqa: E402

READY = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
SORT = """(() => {
  const start = performance.now();
  document.querySelector("#table th[data-sort='NAME'] button").click();
  document.body.getBoundingClientRect();
  return performance.now() - start;
})()"""
FIND = """((text) => {
  const start = performance.now();
  const find = document.getElementById("find");
  find.value = text;
  find.dispatchEvent(new Event("input"));
  document.body.getBoundingClientRect();
  return performance.now() - start;
})"""


def browse(page_file: Path) -> dict[str, float]:
    """Return times of a page in milliseconds: until it is interactive, until its chart is, to sort and to filter."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        ready, alive = [], []
        for _ in range(3):
            page = browser.new_page()
            start = time.perf_counter()
            page.goto(page_file.as_uri())
            ready.append(page.evaluate(READY))
            page.wait_for_selector(".live-chart svg", timeout=60_000)
            alive.append(1000 * (time.perf_counter() - start))
        page.evaluate("document.getElementById('rows').open = true")
        page.wait_for_timeout(1000)
        sorts = [page.evaluate(SORT.replace("NAME", name)) for name in ("kept", "total", "name", "layers", "rank")]
        finds = [page.evaluate(FIND, text) for text in ("method_01", "static", "method", "")]
        rows = page.locator("#table tbody tr[id]").count()
        browser.close()
    return {"rows": rows, "ready": median(ready), "alive": median(alive), "sort": max(sorts), "filter": max(finds)}


def build(command: list[str]) -> dict[str, float]:
    """Run a command and return its wall and CPU time in seconds and its peak memory in bytes."""
    start, most = time.perf_counter(), 0
    done = subprocess.Popen(command)
    while done.poll() is None:
        resident = 0
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(done.pid)
            for one in (top, *top.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    resident += one.memory_info().rss
        most = max(most, resident)
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.returncode)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": seconds, "busy": used.ru_utime + used.ru_stime, "memory": most}


def long_page(folder: Path, rows: int) -> Path:
    """Build the board of one task with so many rows, without scores, and return the page that holds all of them."""
    run = write_large_run(folder / "run", 1, rows, 2)
    for path in (run / "samples").iterdir():
        path.unlink()
    command = [sys.executable, "-m", "dlbench", "board", str(run), "--out", str(folder / "site")]
    subprocess.run(command, check=True)
    return folder / "site" / "task-00-all.html"


def main(tasks: int, rows: int, documents: int, processes: int | None, long: int) -> int:
    """Build, browse and print; return 1 if a limit is exceeded."""
    missed = []

    def tell(what: str, value: float, unit: str, most: float | None = None) -> None:
        mark = "" if most is None else f"(limit: {most:g} {unit})"
        print(f"{what:44} {value:10.1f} {unit:3} {mark}")
        if most is not None and value >= most:
            missed.append(what)

    with tempfile.TemporaryDirectory() as folder:
        run = write_large_run(Path(folder) / "run", tasks, rows, documents)
        print(f"{tasks * rows:,} records, {tasks * rows * documents:,} samples")
        site = Path(folder) / "site"
        command = [sys.executable, "-m", "dlbench", "board", str(run), "--out", str(site)]
        cost = build([*command, "--processes", str(processes)] if processes else command)
        tell("build", cost["wall"], "s", 60)
        tell("build, CPU time of all processes", cost["busy"], "s")
        tell("build, peak memory of all processes", cost["memory"] / 1e9, "GB", 2)
        files = [path for path in site.rglob("*") if path.is_file()]
        tell("site", sum(path.stat().st_size for path in files) / 1e6, "MB")
        tell("largest sample page", max(p.stat().st_size for p in (site / "samples").rglob("*.html")) / 1e3, "kB", 200)
        first = [site / "index.html", *(p for p in (site / "assets").iterdir() if p.name != "vega.js")]
        tell("front page before the chart script", sum(path.stat().st_size for path in first) / 1e3, "kB", 350)
        try:
            seen = browse(site / "index.html")
        except Exception as error:
            print(f"no browser figures: {str(error).splitlines()[0]}")
        else:
            tell(f"front page of {seen['rows']} rows, until interactive", seen["ready"], "ms", 2000)
            tell("until its chart is interactive", seen["alive"], "ms")
            tell("sorting, the slowest of five columns", seen["sort"], "ms", 200)
            tell("filtering, the slowest of four", seen["filter"], "ms", 200)
            seen = browse(long_page(Path(folder) / "long", long))
            tell(f"page of {long:,} rows, until interactive", seen["ready"], "ms", 2000)
            tell("until its chart is interactive", seen["alive"], "ms")
            tell("sorting, the slowest of five columns", seen["sort"], "ms", 200)
            tell("filtering, the slowest of four", seen["filter"], "ms", 200)
    if missed:
        print(f"over the limit: {', '.join(missed)}")
    return bool(missed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("tasks", 20), ("rows", 100), ("documents", 25)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--processes", type=int, help="number of processes [chosen by `dlbench board`]")
    parser.add_argument("--long", type=int, default=2000, help="rows of the single page [2000]")
    given = parser.parse_args()
    sys.exit(main(given.tasks, given.rows, given.documents, given.processes, given.long))
