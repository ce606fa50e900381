"""Downloads from a server that misbehaves: the right bytes arrive, or nothing gets the name."""

import hashlib
import random
import re
import subprocess
import sys
import time

import pytest

from convrnn_utils import downloads
from convrnn_utils.downloads import download
from convrnn_utils.files import locked

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)  # as long, and another


@pytest.fixture
def server(misbehaving):
    """A server of ``CONTENT`` that changes, when it shall, to ``OTHER``."""
    misbehaving.files["/file.zip"], misbehaving.other = CONTENT, OTHER
    misbehaving.address += "/file.zip"
    return misbehaving


def digest(content):
    return hashlib.sha256(content).hexdigest()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_and_is_not_fetched_again(server, tmp_path):
    path = download([server.address], tmp_path / "new" / "file.zip", len(CONTENT), digest(CONTENT))
    assert path.read_bytes() == CONTENT
    assert names_in(path.parent) == ["file.zip"]
    download([server.address], path)
    assert server.requests == [("none", None)]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, fault):
    fault("downloads")
    server.faults = [("cut", 100_000)]
    path = download([server.address], tmp_path / "file.zip")
    assert path.read_bytes() == CONTENT
    (_, first), (_, second) = server.requests
    begin = int(re.fullmatch(r"bytes=(\d+)-", second)[1])
    assert first is None and 100_000 - downloads.CHUNK < begin <= 100_000


def test_so_does_one_that_the_reader_stopped(server, tmp_path, monkeypatch, fault):
    """Stopped by an interrupt, after the first chunks, in another process or hours before."""
    fault("downloads")
    written = 0

    class Interrupting(downloads.tqdm):
        def update(self, count=1):
            nonlocal written
            written += count
            if written > 100_000:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "tqdm", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            download([server.address], tmp_path / "file.zip")
    assert names_in(tmp_path) == ["file.zip.part", "file.zip.part.json"]
    assert download([server.address], tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.requests[1] == ("none", f"bytes={written}-")


def test_one_that_stopped_before_it_got_its_name_is_not_fetched_again(server, tmp_path, fault):
    fault("downloads")
    state = f'{{"address": "{server.address}", "version": "x", "total": {len(CONTENT)}}}'
    (tmp_path / "file.zip.part").write_bytes(CONTENT)
    (tmp_path / "file.zip.part.json").write_text(state)
    assert download([server.address], tmp_path / "file.zip").read_bytes() == CONTENT
    assert names_in(tmp_path) == ["file.zip"] and server.requests == []


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b"\xff", b'{"total": 5}'])
def test_a_damaged_note_of_what_is_here_means_from_the_beginning(server, tmp_path, note, fault):
    fault("downloads")
    (tmp_path / "file.zip.part").write_bytes(b"bytes of whatever")
    (tmp_path / "file.zip.part.json").write_bytes(note)
    assert download([server.address], tmp_path / "file.zip").read_bytes() == CONTENT


# What the server does, and what shall come of it: the file, or a message.
PASSING = {
    "cut again and again": [("cut", 20_000)] * 12,
    "cut at the first byte": [("cut", 0)],
    "503, then good": [("status", 503)],
    "429, then good": [("status", 429)],
    "stalled": [("stalled", 50_000)],
    "stalled at once": [("stalled", 0)],
    "ignores ranges": [("cut", 100_000), ("no ranges", 200_000), ("cut", 50_000)],
    "without a version": [("cut", 100_000), ("no version", 0)],
    "bytes of another place": [("cut", 100_000), ("another place", 0)],
    "promises more than it has": [("wrong length", 1000)],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_after_a_fault_that_passes_the_file_is_whole(server, tmp_path, monkeypatch, faults, fault):
    fault("downloads", len(faults))
    monkeypatch.setattr(downloads, "SILENCE", 0.5)
    server.faults = list(faults)
    path = download([server.address], tmp_path / "file.zip", len(CONTENT), digest(CONTENT))
    assert path.read_bytes() == CONTENT
    assert names_in(tmp_path) == ["file.zip"]


def test_a_file_that_changes_between_two_attempts_is_fetched_anew(server, tmp_path, fault):
    fault("downloads")
    server.faults = [("cut", 100_000), ("changed", 0)]
    assert download([server.address], tmp_path / "file.zip").read_bytes() == OTHER


def test_a_change_that_the_server_hides_is_found_by_the_sum(server, tmp_path, fault):
    fault("downloads")
    server.faults = [("cut", 100_000), ("mixed up", 0)]
    with pytest.raises(ValueError, match="SHA-256 is not that of.* it was removed"):
        download([server.address], tmp_path / "file.zip", len(CONTENT), digest(CONTENT))
    assert names_in(tmp_path) == []
    assert download([server.address], tmp_path / "file.zip").read_bytes() == CONTENT


LASTING = {
    "404": ([("status", 404)], "404 Not Found", []),
    "403": ([("status", 403)], "403 Forbidden", []),
    "503": ([("status", 503)] * 9, "503 Service Unavailable", []),
    "web page": ([("web page", 0)], "a web page instead of the file.*in a browser", []),
    "never answers": ([("stalled", 0)] * 9, "no byte came for 0.2 seconds", ["part"]),
    "cut at the same byte": (
        [("cut", 70_000), *[("cut", 0)] * 9],
        r"broke off at byte 6\d,\d{3}",
        ["part"],
    ),
    "promises too much": ([("wrong length", 1000)] * 20, "broke off|no such range", []),
    "sends too little": ([("wrong length", -1000)], "has 299,000 bytes.*released has 300,000", []),
}


@pytest.mark.parametrize("faults, message, kept", LASTING.values(), ids=LASTING)
def test_after_a_fault_that_lasts_there_is_no_file_and_a_message(
    server, tmp_path, monkeypatch, faults, message, kept, fault
):
    fault("downloads", len(faults))
    monkeypatch.setattr(downloads, "SILENCE", 0.2)
    server.faults = list(faults)
    with pytest.raises((ConnectionError, ValueError), match=message) as refusal:
        download([server.address], tmp_path / "file.zip", len(CONTENT), digest(CONTENT))
    assert server.address in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (tmp_path / "file.zip").exists()
    assert (tmp_path / "file.zip.part").exists() == bool(kept) or not kept
    server.faults = []
    path = download([server.address], tmp_path / "file.zip", len(CONTENT), digest(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_mirror_is_asked_where_the_first_address_fails(server, tmp_path, fault):
    fault("downloads")
    server.faults = [("status", 404)]
    addresses = [f"{server.address}?first", server.address]
    assert download(addresses, tmp_path / "file.zip").read_bytes() == CONTENT
    server.faults = [("status", 404), ("status", 403)]
    with pytest.raises(ConnectionError, match=r"first \(.*404.*, nor from .*403"):
        download(addresses, tmp_path / "other.zip")


def test_a_mirror_does_not_go_on_in_the_file_of_another(server, tmp_path, fault):
    fault("downloads")
    server.faults = [("cut", 100_000), *[("status", 503)] * 9]
    with pytest.raises(ConnectionError):
        download([f"{server.address}?first"], tmp_path / "file.zip")
    server.faults = []
    assert download([server.address], tmp_path / "file.zip").read_bytes() == CONTENT
    assert server.requests[-1] == ("none", None)


def test_the_server_may_ask_for_a_pause(server, tmp_path, monkeypatch, fault):
    fault("downloads")
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(downloads, "FIRST_PAUSE", 1.0)
    server.pause = 7
    server.faults = [("status", 503)] * 3
    download([server.address], tmp_path / "file.zip")
    assert pauses == [7, 7, 7]


def test_pauses_grow_and_end(server, tmp_path, monkeypatch, fault):
    fault("downloads")
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(downloads, "FIRST_PAUSE", 1.0)
    server.faults = [("status", 503)] * 9
    with pytest.raises(ConnectionError):
        download([server.address], tmp_path / "file.zip")
    assert pauses == [1, 2, 4, 8]


def test_a_full_disk_is_found_out_before_the_first_byte(server, tmp_path, monkeypatch, fault):
    fault("downloads")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: Free(299_999))
    with pytest.raises(OSError, match=r"file\.zip needs 0\.0 GB .*make room, or set CONVRNN_DATA"):
        download([server.address], tmp_path / "file.zip")
    assert names_in(tmp_path) == []
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: Free(300_000))
    assert download([server.address], tmp_path / "file.zip").read_bytes() == CONTENT


class Free:
    def __init__(self, free):
        self.free = free


def test_a_disk_that_fills_up_on_the_way_leaves_no_file(server, tmp_path, monkeypatch, fault):
    fault("downloads")

    class Full(downloads.tqdm):
        def update(self, count=1):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "tqdm", Full)
        with pytest.raises(OSError, match="No space left"):
            download([server.address], tmp_path / "file.zip")
    assert not (tmp_path / "file.zip").exists()
    assert download([server.address], tmp_path / "file.zip").read_bytes() == CONTENT


def random_faults(generator):
    kinds = {
        "cut": lambda: generator.randrange(len(CONTENT)),
        "no ranges": lambda: generator.randrange(len(CONTENT)),
        "wrong length": lambda: generator.choice([-1000, -1, 1, 1000]),
        "status": lambda: generator.choice([404, 416, 429, 500, 503]),
        "web page": lambda: 0,
        "changed": lambda: 0,
        "mixed up": lambda: 0,
        "no version": lambda: 0,
        "another place": lambda: 0,
    }
    names = generator.choices(list(kinds), weights=[6, 2, 1, 1, 1, 1, 1, 1, 1], k=8)
    return [(name, kinds[name]()) for name in names[: generator.randrange(1, 9)]]


def test_random_faults_in_a_row(server, tmp_path, fault, many):
    """Whatever happens, what has the name is a file that the server had, whole."""
    generator = random.Random(7)
    whole = 0
    for number in range(many(40, 1000)):
        server.files["/file.zip"], server.faults = CONTENT, random_faults(generator)
        fault("downloads", len(server.faults))
        path = tmp_path / f"{number}.zip"
        known = (len(CONTENT), digest(CONTENT))
        try:
            download([server.address], path, *known)
        except (ConnectionError, ValueError):
            assert not path.exists()
            server.files["/file.zip"], server.faults = CONTENT, []
            download([server.address], path, *known)
        else:
            whole += 1
        assert path.read_bytes() == CONTENT
        path.unlink()
    assert names_in(tmp_path) == []
    assert whole > 5  # the faults are not so many that every download fails


# ---------------------------------------------------------------- two at once

WAITING = """
import sys, time
from pathlib import Path
from convrnn_utils.files import locked
path = Path(sys.argv[1])
with locked(path):
    made = not path.exists()
    if made:
        print("at work", flush=True)
        time.sleep(float(sys.argv[2]))
        path.mkdir()
print("made" if made else "found")
"""


def begin(path, seconds):
    command = [sys.executable, "-c", WAITING, str(path), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_programs_do_not_make_the_same_thing_at_once(tmp_path, fault, capsys):
    fault("downloads")
    first = begin(tmp_path / "set", 0.5)
    assert first.stdout.readline() == "at work\n"
    with locked(tmp_path / "set"):
        assert (tmp_path / "set").exists()
    assert "Another program is at work on set; waiting" in capsys.readouterr().out
    assert first.communicate()[0] == "made\n"


def test_a_killed_program_holds_no_lock_and_its_remains_go(tmp_path, fault):
    fault("downloads")
    first = begin(tmp_path / "set", 60)
    assert first.stdout.readline() == "at work\n"
    (tmp_path / ".set.123.unfinished").mkdir()
    (tmp_path / "set" / "images" / ".train.123.unfinished").mkdir(parents=True)
    first.kill()
    first.wait()
    with locked(tmp_path / "set"):
        assert names_in(tmp_path) == [".set.lock", "set"]
        assert not names_in(tmp_path / "set" / "images")
