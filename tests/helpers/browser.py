"""A headless Chromium for tests, where one can be had; what it was asked for, and what went wrong on a page."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium():
    """Return the path of the browser, or skip the tests."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install 'dlbench[test]'")
    found = os.environ.get("DLBENCH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: `apt-get install chromium`, or name one in DLBENCH_CHROMIUM (ci/browser does)")
    return found


def axe():
    """Return the script of axe-core, or skip the test."""
    place = os.environ.get("DLBENCH_AXE")
    if not place or not Path(place).is_file():
        pytest.skip("no axe-core here: name its axe.min.js in DLBENCH_AXE (ci/browser fetches it from npm)")
    return Path(place).read_text()


class Watched:
    """A page, with all that it asked for and complained about."""

    def __init__(self, page):
        self.page = page
        self.requests, self.complaints = [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._dialog)

    def _said(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _dialog(self, dialog):
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path, state="", live=True, unfold=False):
        """Open a file; wait until its chart is alive; open what is folded."""
        self.page.goto(f"{path.as_uri()}{state}")
        if live:
            self.page.wait_for_selector(".live-chart svg", timeout=30_000)
        if unfold:
            self.page.evaluate("document.querySelectorAll('details.fold').forEach(one => one.open = true)")
        return self.page

    def assert_clean(self, site):
        """Everything came from the site's own folder, and nothing was complained about."""
        assert self.complaints == []
        home = site.as_uri()
        assert [url for url in self.requests if not url.startswith((home, "data:"))] == []


def until(page, condition, seconds=10):
    """Wait until an expression is true. The page allows no eval, which playwright's own waiting needs."""
    for _ in range(int(20 * seconds)):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


@contextmanager
def browsing(executable):
    """Start the browser and end it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
