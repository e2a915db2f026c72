"""The page in a real browser (Debian's chromium), over a real store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from viewer_line import Line, Viewer, viewing, wait_for

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path(os.environ.get("HEADRACE_TEST_CHROMIUM", "/usr/bin/chromium"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no chromium at {CHROMIUM}")]

PIPELINE = """
name = "houses"
[topics.meters.fields]
current = { type = "float", unit = "A" }
[streams.meters-10s]
from = "meters"
window = { kind = "tumbling", size = "10s" }
aggregates = { current = ["mean", "max"] }
[[panels]]
title = "Now"
kind = "last"
of = "meters"
[[panels]]
title = "Current by house"
kind = "lines"
of = "meters"
[[panels]]
title = "Means"
kind = "bars"
of = "meters-10s"
columns = ["current_mean"]
[[panels]]
title = "Windows"
kind = "table"
of = "meters-10s"
"""
UNGATED = [str(Path(__file__).parent / "viewer_ungated.py"), "--work-s", "1"]
TITLES = ["Now", "Current by house", "Means", "Windows"]
WAIT_MS = 60_000


class Browser:
    """A browser's tab, and what went wrong in it."""

    def __init__(self, tab: playwright.Page) -> None:
        self.tab = tab
        self.errors: list[str] = []
        tab.on("console", self._said)
        tab.on("pageerror", lambda failure: self.errors.append(str(failure)))

    def _said(self, message: playwright.ConsoleMessage) -> None:
        # What a browser says of a server that is stopped on purpose is no mistake of the page, nor what
        # Perspective now and then says of a panel that it was about to draw when the page let go of it.
        expected = ("ERR_CONNECTION_REFUSED", "Panel disposed")
        if message.type in ("error", "warning") and not any(text in message.text for text in expected):
            self.errors.append(message.text)

    def open(self, viewer: Viewer) -> None:
        """Load the page, until its panels stand."""
        self.tab.goto(viewer.url)
        self.state("data-panels='4'")

    def state(self, attribute: str) -> None:
        """Wait for an attribute of the page (under its policy a string cannot be evaluated)."""
        self.tab.wait_for_selector(f"html[{attribute}]", state="attached", timeout=WAIT_MS)

    def cell(self, text: str) -> None:
        """Wait for a cell with this text."""
        self.tab.locator("td", has_text=text).first.wait_for(state="visible", timeout=WAIT_MS)

    def change(self, panel: str, config: dict[str, object]) -> None:
        """Change a panel as its user would; what becomes of it is not waited for."""
        self.tab.evaluate(
            "([panel, config]) => { document.querySelector('perspective-viewer').restore(config, {panel})"
            ".catch(failure => { document.documentElement.dataset.failure = failure.message ?? failure }) }",
            [panel, config],
        )

    def panels(self) -> list[str]:
        """The titles of the panels that the viewer holds."""
        saved = self.tab.evaluate("() => document.querySelector('perspective-viewer').saveWorkspace()")
        return [saved["panels"][name]["title"] for name in sorted(saved["panels"])]


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: playwright.Browser) -> Iterator[Browser]:
    tab = chromium.new_page(viewport={"width": 1400, "height": 900})
    yield Browser(tab)
    tab.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path, PIPELINE)
    now_us = time.time_ns() // 1_000
    for device in ("house-1", "house-2"):
        times = [now_us - (60 - n) * 1_000_000 for n in range(60)]
        made.put("meters", [device] * 60, times, current=[10 + n / 10 for n in range(60)])
        starts = [(now_us // 10_000_000 - 7 + n) * 10_000_000 for n in range(6)]
        made.windows([device] * 6, starts, [10.0 + n for n in range(6)])
    yield made
    made.close()


def test_page_shows_rows_and_a_cell_changes_with_the_store(line: Line, browser: Browser) -> None:
    with viewing(line) as viewer:
        browser.open(viewer)
        browser.cell("house-2")
        browser.cell("15.90")
        assert browser.panels() == TITLES
        browser.state("data-state='live'")
        line.put("meters", ["house-1"], [time.time_ns() // 1_000], current=[1234.56])
        browser.cell("1,234.56")
        browser.tab.locator("#freshness", has_text=" s").wait_for(timeout=WAIT_MS)
        assert browser.tab.title() == "houses · Headrace"
        assert browser.tab.locator("#line").inner_text() == "houses"
        assert not browser.errors


def test_corrected_window_changes_in_its_row(line: Line, browser: Browser) -> None:
    with viewing(line) as viewer:
        browser.open(viewer)
        start_us = (time.time_ns() // 10_000_000_000 - 1) * 10_000_000
        line.windows(["house-1"], [start_us], [777.25])
        browser.cell("777.25")
        line.windows(["house-1"], [start_us], [888.25], revision=1)
        browser.cell("888.25")
        assert browser.tab.locator("td", has_text="777.25").count() == 0
        assert not browser.errors


def test_charts_are_drawn(line: Line, browser: Browser) -> None:
    with viewing(line) as viewer:
        browser.open(viewer)
        colours = (
            "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
        )
        charts = browser.tab.locator("perspective-viewer canvas.webgl-canvas")

        def drawn() -> bool:
            return charts.count() == 2 and all(chart.evaluate(colours) > 1 for chart in charts.all())

        wait_for(drawn, timeout_s=WAIT_MS / 1000)
        assert not browser.errors


def test_panels_survive_a_restart_of_the_server(line: Line, browser: Browser) -> None:
    first = Viewer(line)
    try:
        browser.open(first)
        browser.cell("15.90")
        # A panel that the user has changed must come back as the user left it.
        browser.tab.evaluate(
            "() => document.querySelector('perspective-viewer').restore({title: 'Mine'}, {panel: 'panel-1'})"
        )
        wait_for(lambda: "Mine" in browser.panels())
        assert first.stop(signal.SIGTERM) == 0
        browser.state("data-state='reconnecting'")
    finally:
        first.kill()
    with viewing(line, port=first.port):
        browser.state("data-connections='2'")
        browser.state("data-state='live'")
        assert browser.panels() == ["Mine", *TITLES[1:]]
        line.put("meters", ["house-1"], [time.time_ns() // 1_000], current=[4321.75])
        browser.cell("4,321.75")
        assert not browser.errors


def test_panels_survive_the_end_of_the_engine(line: Line, browser: Browser) -> None:
    with viewing(line) as viewer:
        browser.open(viewer)
        browser.cell("15.90")
        browser.change("panel-1", {"title": "Mine"})
        wait_for(lambda: "Mine" in browser.panels())
        (engine,) = psutil.Process(viewer.process.pid).children()
        engine.kill()
        browser.state("data-connections='2'")
        browser.state("data-state='live'")
        assert browser.panels() == ["Mine", *TITLES[1:]]
        line.put("meters", ["house-1"], [time.time_ns() // 1_000], current=[4321.75])
        browser.cell("4,321.75")
        assert not browser.errors


def test_panel_that_ends_the_engine_is_taken_back_and_its_user_told(line: Line, browser: Browser) -> None:
    loop = "for (var i := 0; i < 999999; i += 1) { 1 }"
    with viewing(line, program=UNGATED) as viewer:
        browser.open(viewer)
        browser.cell("15.90")
        browser.change("panel-2", {"title": "Mine", "expressions": {"it": loop}, "columns": ["it"]})
        browser.tab.locator("#notice", has_text="what you asked for held the engine for").wait_for(timeout=WAIT_MS)
        browser.state("data-connections='2'")
        browser.state("data-state='live'")
        assert browser.panels() == TITLES
        browser.cell("15.90")


def test_expression_that_is_refused_leaves_the_page_alive(line: Line, browser: Browser) -> None:
    with viewing(line) as viewer:
        browser.open(viewer)
        browser.cell("15.90")
        browser.change("panel-1", {"expressions": {"it": "while (true) { 1 }"}, "columns": ["it"]})
        browser.tab.wait_for_selector("html[data-failure*=\"'while' is nothing\"]", state="attached", timeout=WAIT_MS)
        browser.change("panel-1", {"expressions": {"it": '"current (A)" * 100'}, "columns": ["it"]})
        browser.cell("1,590.00")
        browser.state("data-connections='1'")
        browser.state("data-state='live'")


def test_page_says_that_it_waits_for_the_store(tmp_path: Path, browser: Browser) -> None:
    line = Line(tmp_path, PIPELINE)
    with viewing(line) as viewer:
        browser.open(viewer)
        browser.state("data-state='waiting'")
        assert "waiting for the store" in browser.tab.locator("#notice").inner_text()
        line.put("meters", ["house-7"], [time.time_ns() // 1_000], current=[5.5])
        browser.state("data-state='live'")
        browser.cell("house-7")
        assert not browser.errors
    line.close()


def test_page_fits_a_narrow_window(line: Line, browser: Browser) -> None:
    browser.tab.set_viewport_size({"width": 800, "height": 900})
    with viewing(line) as viewer:
        browser.open(viewer)
        browser.cell("house-1")
        assert browser.panels() == TITLES
        width = browser.tab.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 800
        assert not browser.errors
