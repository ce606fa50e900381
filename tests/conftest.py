"""What several test files share: a data folder of their own, a small data set in it, faults.

``make test`` runs a few cases of each fault; ``make test-faults`` sets ``CONVRNN_FAULTS=all``, runs
many, and ends with a table of them.
"""

import contextlib
import hashlib
import os
import re
import signal
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import matplotlib
import matplotlib.pyplot as plt
import numpy
import pytest
import torch
from PIL import Image

from convrnn_utils import commands, data, downloads, files
from convrnn_utils.encoders import ImageEncoder

matplotlib.use("Agg")  # draws without a window


@pytest.fixture(autouse=True, scope="session")
def interrupts():
    """Programs that a shell runs in the background ignore them; tests interrupt themselves."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def close_figures():
    """Figures of a test do not outlive it."""
    yield
    plt.close("all")


@pytest.fixture
def two_threads():
    """torch computes in two threads, although each worker of ``make test`` begins with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data_home(monkeypatch, tmp_path):
    """An empty folder in place of ``data/``."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("CONVRNN_DATA", str(folder))
    return folder


@pytest.fixture
def small_scenes(data_home, monkeypatch):
    """The folder of a few scenes, which the commands take for ``--data scenes``."""
    folder = data.scenes(train=30, test=10)
    monkeypatch.setitem(commands.DATA_SETS, "scenes", lambda: folder)
    return folder


@pytest.fixture
def small_split(data_home):
    """Seven pictures of noise of different sizes, with two captions each."""
    random = numpy.random.RandomState(0)
    folder = data_home / "noise"
    (folder / "images").mkdir(parents=True)
    records = []
    for number in range(7):
        pixels = random.randint(0, 256, (20 + number, 30, 3), numpy.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        captions = [f"picture {number} is {'very ' * number}noisy", f"noise {number}"]
        records.append({"id": 10 + number, "file_name": f"{number}.png", "captions": captions})
    files.write_captions(folder, "train", records)
    return data.load_split(folder, "train")


class TinyEncoder(ImageEncoder):
    """A grid of 2 × 2 places and 5 features from pictures of 16 pixels; counts its calls."""

    def __init__(self, **options):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 5, kernel_size=8, stride=8)
        super().__init__("tiny", network, 16, 5, (127.0,) * 3, (128.0,) * 3, **options)
        self.calls = 0

    def forward(self, pictures):
        self.calls += 1
        return super().forward(pictures)


@pytest.fixture
def tiny_encoder():
    """An ``ImageEncoder`` that takes no time."""
    return TinyEncoder()


# ---------------------------------------------------------------- a server that misbehaves


class MisbehavingHandler(BaseHTTPRequestHandler):
    """Serves ``server.files`` with ranges and ETags; ``server.faults`` go before, one a request.

    A fault is a name and a number, which some of them need.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        fault, number = self.server.faults.pop(0) if self.server.faults else ("none", 0)
        asked = self.headers.get("Range")
        self.server.requests.append((fault, asked))
        path = self.path.split("?")[0]
        if path not in self.server.files:
            return self.answer(404, b"sorry")
        if fault == "changed":
            self.server.files[path] = self.server.other
        content = self.server.files[path]
        if fault == "status":
            return self.answer(number, b"sorry")
        if fault == "web page":
            return self.answer(200, b"<html>Please sign in</html>", kind="text/html; charset=utf-8")
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        begin = int(re.match(r"bytes=(\d+)-", asked)[1]) if asked else 0
        same = self.headers.get("If-Range") == tag or fault == "mixed up"
        if fault == "no ranges" or not same:
            begin = 0
        if begin >= len(content) > 0:
            return self.answer(416, b"")
        body = content[begin:]
        length = len(body)
        if fault == "wrong length":
            length += number
        if fault == "mixed up":  # goes on in another file than the one that was begun
            body = self.server.other[begin:]
        if fault in ("cut", "stalled", "no ranges"):
            body = body[: min(number, len(body))]
        headers = {"ETag": tag}
        if fault == "no version":
            headers = {}
        if fault == "another place":  # bytes from elsewhere in the file
            body = body[1:]
            headers["Content-Range"] = f"bytes {begin + 1}-{len(content) - 1}/{len(content)}"
        elif begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        status = 206 if "Content-Range" in headers else 200
        self.answer(status, body[:length], max(length, 0), headers=headers)
        if fault == "stalled":
            time.sleep(1)

    def answer(self, status, body, length=None, kind="application/zip", headers=()):
        self.send_response(status)
        if status == 503 and self.server.pause:
            self.send_header("Retry-After", str(self.server.pause))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the other side gave up
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def misbehaving(monkeypatch):
    """A server on 127.0.0.1 with ``address``, ``files``, ``faults`` and ``requests``."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(downloads, "SILENCE", 5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), MisbehavingHandler)
    server.files, server.other, server.pause, server.faults, server.requests = {}, b"", 0, [], []
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


# ---------------------------------------------------------------- faults

ALL_FAULTS = os.environ.get("CONVRNN_FAULTS") == "all"


@pytest.fixture(scope="session")
def many():
    """``many(few, all)`` is how many cases of a fault to try."""
    return lambda few, all_of_them: all_of_them if ALL_FAULTS else few


@pytest.fixture
def fault(record_property):
    """Call it with the kind of a fault just before injecting it, for the table.

    A test that fails has lost the fault that was injected last.
    """
    return lambda kind, count=1: record_property("fault", (kind, count))


def pytest_terminal_summary(terminalreporter):
    """Print how many faults were injected, survived and lost."""
    injected, lost = Counter(), Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            faults = [value for name, value in report.user_properties if name == "fault"]
            if getattr(report, "when", None) == "call":
                for kind, count in faults:
                    injected[kind] += count
                if outcome == "failed":
                    lost[faults[-1][0] if faults else "other"] += 1
    if not ALL_FAULTS or not injected:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'':14}{'injected':>10}{'survived':>10}{'lost':>6}")
    for kind in [*sorted(injected), *sorted(lost.keys() - injected.keys()), "all"]:
        tried = injected.total() if kind == "all" else injected[kind]
        gone = lost.total() if kind == "all" else lost[kind]
        line = f"{kind:14}{tried:10,}{max(tried - gone, 0):10,}{gone:6,}"
        terminalreporter.write_line(line)
