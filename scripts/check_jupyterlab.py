"""Run the router explorer's chapter in a real JupyterLab, in a real browser, and use both explorers by mouse and keys.

python scripts/check_jupyterlab.py [--smol] [--work folder] [--screenshots folder]

A few minutes, most of them for running the chapter. Needs Chromium (on the PATH, or named by CHROMIUM). With --smol
it is the live explorer on the shipped SmolLM2 experts that is used, which needs the public data and the student.
Times are printed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = "notebooks/08_router_explorer.ipynb"
SETTINGS = "@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
MINUTE = 60_000
HOSTILE = '<script>document.title = "broken"</script> & "quotes"'
NOBODY_RUNS = "() => ![...document.querySelectorAll('.jp-InputPrompt')].some((node) => node.textContent.includes('*'))"


def main() -> None:
    """Everything in a copy of the repository's notebooks, code and results."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--smol", action="store_true", help="use the live explorer of SmolLM2")
    options.add_argument("--screenshots", type=Path, help="folder for pictures of every step")
    options.add_argument("--work", type=Path, help="folder in which the chapter finds what it trained before")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        work = (chosen.work or Path(folder, "runs")).resolve()
        with lab(Path(folder), work, chosen.smol) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            trouble: list[str] = []
            page.on("pageerror", lambda error: trouble.append(str(error)))
            Visit(page, chosen.screenshots).all(address, chosen.smol)
            assert not trouble, trouble
            browser.close()
    print("ok")


def chromium() -> str:
    """A browser of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise SystemExit("needs Chromium or Chrome on the PATH, or its path in CHROMIUM")
    return path


@contextmanager
def lab(folder: Path, work: Path, smol: bool) -> Iterator[str]:
    """A JupyterLab on a copy of the chapter; yields the chapter's address."""
    for name in ("routedk_lite", "results"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks").mkdir()
    text = (ROOT / CHAPTER).read_text(encoding="utf-8")
    (folder / CHAPTER).write_text(text.replace("TRY_SMOL = False", f"TRY_SMOL = {smol}"), encoding="utf-8")
    settings = folder / "settings" / SETTINGS
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')  # all cells are in the page, also those out of sight
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    places = {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "ROUTEDK_WORK": str(work)}
    environment = os.environ | places | {"JUPYTER_TOKEN": token}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(120):
            try:
                urlopen(f"http://127.0.0.1:{port}/api?token={token}").close()
                break
            except URLError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/{CHAPTER}?token={token}"
    finally:
        server.terminate()
        server.wait()


class Visit:
    """What a reader does, step by step."""

    def __init__(self, page: Any, pictures: Path | None) -> None:
        self.page, self.pictures = page, pictures

    def all(self, address: str, smol: bool) -> None:
        """Run the chapter, then use its explorers."""
        self.run(address)
        widgets = self.page.locator(".widget-vbox").filter(has=self.page.locator("textarea"))
        widgets = widgets.filter(has=self.page.locator("[role=status]"))
        self.live = widgets.last if smol else widgets.first
        self.use_live()
        self.use_static()

    def run(self, address: str) -> None:
        """Open the chapter and run all cells."""
        page = self.page
        page.goto(address)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=MINUTE)
        page.wait_for_selector("text=/\\| Idle/", timeout=MINUTE)  # before that nothing is run
        page.get_by_text("Run", exact=True).first.click()
        started = time.perf_counter()
        page.get_by_text("Run All Cells", exact=True).first.click()
        page.wait_for_selector("[role=status]:has-text('answered in')", timeout=20 * MINUTE)
        page.wait_for_function(NOBODY_RUNS, timeout=20 * MINUTE)
        print(f"the chapter has run in {time.perf_counter() - started:.0f} s")
        assert not page.locator("[data-mime-type='application/vnd.jupyter.error']").count(), "a cell failed"

    def picture(self, name: str, what: Any) -> None:
        """Keep a picture, if somebody wants to see it."""
        if self.pictures:
            self.pictures.mkdir(parents=True, exist_ok=True)
            what.screenshot(path=self.pictures / f"{name}.png")

    # --- the live explorer ----------------------------------------------------------------------------------------

    def status(self) -> str:
        """What the live explorer says about itself."""
        return self.live.locator("[role=status]").inner_text()

    def settle(self, what: str, act: Callable[[], object], says: str) -> str:
        """Do something, wait until the model has answered; what is shown then."""
        before = self.shown()
        act()
        started = time.perf_counter()
        while not (says in self.status() and "answered" in self.status() and self.shown() != before):
            assert time.perf_counter() - started < 120, f"{what}: still {self.status()!r}"
            self.page.wait_for_timeout(20)
        print(f"{what}: {time.perf_counter() - started:.2f} s after the last event, {self.status()}")
        self.page.wait_for_timeout(1500)  # nothing may follow by itself
        assert says in self.status(), f"{what}: then {self.status()!r}"
        self.picture(what.replace(" ", "-"), self.live)
        return self.shown()

    def shown(self) -> str:
        """The bundles and weights, as text."""
        return self.live.locator(".rdkx-in, .rdkx-bare").last.inner_text()

    def use_live(self) -> None:
        """Type a session, drag every slider, go back, choose a layer."""
        page, live = self.page, self.live
        live.scroll_into_view_if_needed()
        page.wait_for_timeout(2000)
        assert "the router's" in self.status(), f"untouched, it says {self.status()!r}"

        def write() -> None:
            live.locator("textarea").click()
            page.keyboard.press("Control+A")
            page.keyboard.type(f"phone charger\nleather phone case\n{HOSTILE}\nusb cable", delay=5)

        text = self.settle("typing a session", write, "the router's")
        assert HOSTILE in text and page.title() != "broken"
        for place in range(live.locator(".noUi-handle").count()):
            self.settle(f"dragging slider {place}", lambda place=place: self.drag(place), "by hand in all layers")
        back = live.get_by_role("button", name="What the router would do")
        self.settle("going back to the router", back.click, "the router's")
        sessions, layers = live.locator("select").nth(0), live.locator("select").nth(1)
        self.settle("choosing a session", lambda: sessions.select_option(index=3), "the router's")
        layers.select_option(index=2)
        self.settle("dragging in one layer", lambda: self.drag(1), "by hand in layer")
        layers.select_option(index=0)
        page.wait_for_timeout(500)
        assert layers.input_value() == "all layers", "the list of layers went blank"

    def drag(self, place: int) -> None:
        """One slider, by mouse, to its right end."""
        handle, rail = self.live.locator(".noUi-handle").nth(place), self.live.locator(".noUi-base").nth(place)
        start, end = handle.bounding_box(), rail.bounding_box()
        x, y = start["x"] + start["width"] / 2, start["y"] + start["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(end["x"] + end["width"] + 5, y, steps=10)
        self.page.mouse.up()

    # --- the static explorer --------------------------------------------------------------------------------------

    def use_static(self) -> None:
        """Its look and its keys must not be JupyterLab's."""
        explorer = self.page.locator(".jp-OutputArea .rdkx[data-ready]").first
        heat = explorer.locator('[data-x="temperature"]')
        heat.scroll_into_view_if_needed()
        heat.focus()
        for _ in range(4):
            self.page.keyboard.press("ArrowLeft")
        assert heat.evaluate("node => node === document.activeElement"), "an arrow left the explorer"
        assert explorer.locator('[data-x="degree"]').inner_text() == "0.50"
        side = explorer.locator("tbody th[scope=row]").first.evaluate("node => getComputedStyle(node).textAlign")
        assert side == "left", f"titles stand {side}"
        self.picture("static-explorer", self.page)
        print("the static explorer follows its keys and keeps its look")


if __name__ == "__main__":
    main()
