"""The notebooks in JupyterLab, in a real browser: run from the menu, every control moved.

    make browser-test

starts JupyterLab on copies of the notebooks, in the profile ``smoke``, and drives headless
Chromium. A picture of every figure is kept in ``build/browser``, to be looked at. Where there is
no Chromium or no Playwright, all of it is skipped.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "build" / "browser"
LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync --force-prefers-reduced-motion"
NOT_OURS = re.compile(r"favicon|Failed to load resource|listings|jupyterlab/extensionmanager|news")
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none", "autosaveInterval": 3600}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
SLOW = 60  # seconds that a change may take while the kernel works
LONG_IDLE = 3
CONTROLS = "[role=slider], select, button, input[type=checkbox], input[type=number]"
CONTROLS += ", input[type=text]"
CANNOT_MOVE = "e => e.disabled || e.readOnly || (e.type == 'number' && e.min == e.max)"
WHAT_IT_SHOWS = """explorer => [...explorer.querySelectorAll('.widget-html-content, button')]
    .map(element => element.innerHTML).join()"""

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def chromium():
    """The browser, or a skip that says what is missing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright: python -m pip install playwright"
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium here: on Debian, apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that shows copies of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=ignored)
    for name, text in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "CONVRNN_PROFILE": "smoke",
        "CONVRNN_DATA": os.environ.get("CONVRNN_DATA") or str(ROOT / "data"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--IdentityProvider.token="]
    command += [f"--ServerApp.root_dir={folder}"]
    address = f"http://127.0.0.1:{port}"
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(address + "/api", server, folder / "lab.log")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(address, server, log, seconds=240):
    for _ in range(4 * seconds):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.25)
    pytest.fail(f"JupyterLab does not start: {log.read_text()[-2000:]}")


class Notebook:
    """One notebook in a browser's page, and what the page complained of."""

    def __init__(self, browser, address: str, name: str):
        self.name = Path(name).stem
        self.page = browser.new_page(viewport={"width": 1280, "height": 1000})
        self.page.set_default_timeout(180_000)
        self.complaints: list[str] = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{address}/lab/tree/notebooks/{name}?reset")
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.page.get_by_text("| Idle").wait_for()  # before that the menu does nothing

    def _listen(self, message):
        if message.type == "error" and not NOT_OURS.search(message.text + str(message.location)):
            self.complaints.append(message.text)

    def run_all(self, seconds: int = 900) -> None:
        """Run → Run All Cells, and wait until the last cell has run."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
        self.page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
        until = time.monotonic() + seconds
        started = False
        while time.monotonic() < until:
            busy = self.page.locator(".jp-InputPrompt", has_text="[*]").count()
            started = started or busy > 0
            if started and not busy:
                return
            self.page.wait_for_timeout(500)
        pytest.fail(f"{self.name}: cells still run after {seconds} s")

    def errors(self) -> list[str]:
        """Tracebacks in the outputs; what is off the screen has a textContent, but no innerText."""
        outputs = self.page.locator(".jp-OutputArea-output").all_text_contents()
        return [text for text in outputs if "Traceback (most recent call last)" in text]

    def cells_not_run(self) -> int:
        """Code cells without a number; those that are empty do not count."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('.jp-CodeCell')].filter(cell =>
                cell.querySelector('.cm-content')?.textContent.trim() &&
                !/\\d/.test(cell.querySelector('.jp-InputPrompt').textContent)).length"""
        )

    def explorers(self):
        return self.page.locator(".jp-OutputArea-output > .widget-vbox")

    def keep_pictures(self) -> list[str]:
        """A picture of every figure and every explorer, as a file."""
        folder = PICTURES / self.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shown = {"figure": self.page.locator(".jp-RenderedImage img"), "widget": self.explorers()}
        for kind, locator in shown.items():
            for number, element in enumerate(locator.all(), start=1):
                element.scroll_into_view_if_needed()
                self.page.wait_for_timeout(300)  # what lies above it may still grow
                element.screenshot(path=folder / f"{kind}_{number:02}.png")
        return [path.name for path in sorted(folder.iterdir())]

    def move_all_controls(self) -> list[str]:
        """Work every control of every explorer with the keyboard; those that change nothing.

        One that changes nothing is tried again after the others.
        """
        idle = []
        for number, explorer in enumerate(self.explorers().all(), start=1):
            explorer.scroll_into_view_if_needed()
            controls = explorer.locator(CONTROLS).all()
            # boxes first: after another kernel is chosen there may be nothing for ReLU to cut off
            controls.sort(key=lambda control: control.get_attribute("type") != "checkbox")
            for _ in range(2):
                controls = [control for control in controls if self._is_idle(explorer, control)]
            for control in controls:
                text = control.evaluate("e => (e.closest('.jupyter-widgets') || e).innerText")
                idle.append(f"{self.name}, explorer {number}: {text!r}")
        return idle

    def _is_idle(self, explorer, control) -> bool:
        if control.evaluate(CANNOT_MOVE):
            return False
        assert control.evaluate("element => element.tabIndex >= 0"), "not in Tab's order"
        before = explorer.evaluate(WHAT_IT_SHOWS)
        return not any(self._changed(explorer, before) for _ in self._ways_to_move(control))

    def _ways_to_move(self, control):
        """One way after the other; the next is tried where the last changed nothing."""
        kind = control.evaluate("e => e.type || e.getAttribute('role')")
        if "widget-upload" in (control.get_attribute("class") or ""):
            with self.page.expect_file_chooser() as chooser:
                control.press("Enter")
            chooser.value.set_files(ROOT / "data" / "photos" / "images" / "dog.jpg")
            yield
        elif kind == "text":  # a word to look up
            for word in ("ring", "dog"):
                control.fill(word)
                control.press("Enter")
                yield
        elif kind == "select-one":  # Chromium's list of options is not a part of the page
            for place in (1, 2):
                control.select_option(index=place)
                yield
        else:
            keys = {"checkbox": ["Space"], "submit": ["Enter"], "button": ["Enter"]}
            keys |= {"number": ["ArrowUp", "ArrowDown"]}
            for key in keys.get(kind, ["ArrowRight"] * 4 + ["ArrowLeft"] * 4):
                control.press(key)
                yield

    def _changed(self, explorer, before) -> bool:
        """Whether it shows something else, before the kernel has long been idle again."""
        begun = time.monotonic()
        while time.monotonic() < begun + SLOW:
            if explorer.evaluate(WHAT_IT_SHOWS) != before:
                return True
            if time.monotonic() > begun + LONG_IDLE and self.page.get_by_text("| Idle").count():
                return False
            self.page.wait_for_timeout(200)
        return False


@pytest.mark.parametrize("name", [path.name for path in LESSONS])
def test_a_notebook_runs_from_the_menu_and_its_controls_work(chromium, lab, name):
    notebook = Notebook(chromium, lab, name)
    try:
        notebook.run_all()
        assert notebook.errors() == []
        assert notebook.cells_not_run() == 0
        assert notebook.keep_pictures()
        assert notebook.move_all_controls() == []
        assert notebook.complaints == []
        if notebook.name == "00_welcome":
            keep_pictures_for_the_readme(notebook)
        if notebook.name == "06_attention":
            hover_over_a_place(notebook)
    finally:
        notebook.page.close()


def hover_over_a_place(attention: Notebook) -> None:
    """The mouse reaches the places of the grid, and each says its weight."""
    place = attention.explorers().first.locator("svg rect").nth(10)
    place.hover()  # fails where something else lies above it
    assert re.fullmatch(r"row 2, column 2: 0\.\d{3}", place.locator("title").text_content())


def keep_pictures_for_the_readme(welcome: Notebook) -> None:
    """Where the captioner looked in a photograph, and a widget in use."""
    looks = welcome.page.locator(".jp-RenderedImage img").nth(1)
    looks.screenshot(path=PICTURES / "attention.jpg", type="jpeg", quality=80)
    explorer = welcome.explorers().first
    explorer.locator("select").select_option("dog")
    welcome.page.wait_for_timeout(3000)
    for _ in range(5):
        explorer.locator("[role=slider]").last.press("ArrowRight")
    welcome.page.wait_for_timeout(3000)
    explorer.screenshot(path=PICTURES / "widget.jpg", type="jpeg", quality=80)


def test_the_book_is_built_without_a_warning_and_finds_a_word(chromium, tmp_path):
    pytest.importorskip("sphinx_book_theme", reason='no Sphinx: pip install ".[book]"')
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-b",
        "html",
        "-W",
        "-c",
        "book",
        ".",
        tmp_path,
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    page = chromium.new_page()
    page.goto(f"file://{tmp_path}/search.html?q=spectral+radius", wait_until="domcontentloaded")
    page.locator("#search-results a", has_text="RNN recurrence").first.click()
    assert page.locator("h1").first.inner_text().startswith("02 · RNN recurrence")
    shown = page.locator("main img").evaluate_all(
        "all => all.filter(e => e.naturalWidth > 1).length"
    )
    saved = (ROOT / "notebooks" / "02_rnn_recurrence.ipynb").read_text()
    assert shown == saved.count('"image/png"') + saved.count('"image/jpeg"') > 0
    page.close()
