"""The download of Flickr8k, against a server of our own: no test touches the network."""

import functools
import hashlib
import io
import re
import socket
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy
import pytest
from PIL import Image

from convrnn_utils import data, downloads, sources

RELEASE = Path(__file__).resolve().parents[2] / "shared" / "flickr8k" / "make_release.py"
TEXTS, PICTURES = "Flickr8k_text.zip", "Flickr8k_Dataset.zip"
SPLITS = {
    "train": ["30_c.jpg", "10_a.jpg", "20_b.jpg"],
    "dev": ["50_e.jpg"],
    "test": ["60_f.jpg", "40_d.jpg"],
}
NO_SPLIT = "25_x.jpg"  # the release has pictures with captions that are in none of the splits


def jpeg(number):
    """A little photograph of one grey, its own."""
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (30 * number,) * 3).save(file, "JPEG")
    return file.getvalue()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def picture_members():
    names = sorted([*sum(SPLITS.values(), []), NO_SPLIT])
    members = {"Flicker8k_Dataset/": b"", "__MACOSX/": b""}
    members |= {f"Flicker8k_Dataset/{name}": jpeg(n) for n, name in enumerate(names)}
    return members | {f"__MACOSX/Flicker8k_Dataset/._{name}": b"no picture" for name in names}


def text_members():
    names = [*sum(SPLITS.values(), []), NO_SPLIT]
    lines = [f"{name}#{n}\tCaption {n} of {name} , à côté ." for name in names for n in range(5)]
    lines.insert(7, f"{NO_SPLIT}.1#0\tpeople waiting for the subway")  # as the public file has
    members = {"Flickr8k.token.txt": "\n".join(lines) + "\n", "readme.txt": "A readme."}
    for split, names in SPLITS.items():
        members[f"Flickr_8k.{split}Images.txt"] = "\n".join(names) + "\n"
    members |= {name: f"content of {name}\n" for name in sources.FLICKR8K_JUDGEMENTS}
    return members | {"__MACOSX/._Flickr8k.token.txt": b"\x00\x05"}


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        super().do_GET()

    def end_headers(self):
        if self.server.longer:  # promises more than it sends, as a broken connection does
            self.send_header("Connection", "close")
        super().end_headers()

    def send_header(self, keyword, value):
        if keyword == "Content-Length":
            value = str(int(value) + self.server.longer)
        super().send_header(keyword, value)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    """A function that serves a folder on 127.0.0.1; the server notes the requests."""
    servers = []

    def start(folder):
        handler = functools.partial(Handler, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.requests, server.longer = [], 0
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def release(data_home, monkeypatch, tmp_path, serve):
    """A server of a release of seven pictures; its ``folder`` may be changed."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CONVRNN_FLICKR8K", raising=False)
    monkeypatch.setattr(sources, "FLICKR8K_PICTURES", 7)
    monkeypatch.setattr(downloads, "FIRST_PAUSE", 0.01)
    for name in (TEXTS, PICTURES):  # the sums of the public files do not fit ours
        monkeypatch.setitem(sources.FLICKR8K, name, {**sources.FLICKR8K[name], "sha256": None})
    folder = tmp_path / "release"
    folder.mkdir()
    write_zip(folder / TEXTS, text_members())
    write_zip(folder / PICTURES, picture_members())
    server = serve(folder)
    server.folder = folder
    return server


def names_in(folder):
    """The files of a folder, but for the empty one that two programs lock each other out with."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def assert_nothing_is_left(data_home, *archives):
    """No data set, no half of one, and of the archives only the sound ones."""
    assert set(names_in(data_home)) <= {"flickr8k-archives"}
    if (data_home / "flickr8k-archives").exists():
        assert names_in(data_home / "flickr8k-archives") == sorted(archives)


def test_the_release_becomes_a_data_set_with_the_official_split(release, data_home):
    folder = data.flickr8k(release.address)
    assert folder == data_home / "flickr8k"
    assert names_in(data_home) == ["flickr8k"]  # the archives are gone
    assert names_in(folder) == [
        "CrowdFlowerAnnotations.txt",
        "ExpertAnnotations.txt",
        "captions_test.json",
        "captions_train.json",
        "captions_val.json",
        "images",
    ]
    assert names_in(folder / "images") == sorted([*sum(SPLITS.values(), []), NO_SPLIT])
    ids = []
    for ours, theirs in {"train": "train", "val": "dev", "test": "test"}.items():
        split = data.load_split(folder, ours)
        assert [path.name for path in split.paths] == sorted(SPLITS[theirs])
        for path, captions in zip(split.paths, split.captions, strict=True):
            assert captions == [f"Caption {n} of {path.name} , à côté ." for n in range(5)]
        ids += split.ids
    assert len(set(ids)) == len(ids) == 6
    numbers = {name: number for number, name in enumerate(names_in(folder / "images"))}
    for path in data.load_split(folder, "train").paths:
        grey = data.read_image(path).getpixel((5, 5))[0]
        assert grey == pytest.approx(30 * numbers[path.name], abs=3)


def test_the_judgements_are_kept_as_they_are(release):
    folder = data.flickr8k(release.address)
    for name in sources.FLICKR8K_JUDGEMENTS:
        assert (folder / name).read_text() == f"content of {name}\n"


def test_a_release_without_judgements_is_a_data_set_all_the_same(release):
    members = {k: v for k, v in text_members().items() if k not in sources.FLICKR8K_JUDGEMENTS}
    write_zip(release.folder / TEXTS, members)
    assert not list(data.flickr8k(release.address).glob("*Annotations.txt"))


def test_a_second_call_asks_for_nothing(release):
    folder = data.flickr8k(release.address)
    assert sorted(release.requests) == [f"/{PICTURES}", f"/{TEXTS}"]
    assert data.flickr8k(release.address) == folder
    assert data.flickr8k() == folder
    assert len(release.requests) == 2


def test_the_address_may_end_in_a_slash(release):
    data.flickr8k(release.address + "/")
    assert sorted(release.requests) == [f"/{PICTURES}", f"/{TEXTS}"]


def test_the_variable_names_the_address_and_the_argument_goes_before(
    release, monkeypatch, data_home, serve, tmp_path
):
    elsewhere = serve(tmp_path)
    monkeypatch.setenv("CONVRNN_FLICKR8K", elsewhere.address)
    data.flickr8k(release.address)
    assert elsewhere.requests == [] and len(release.requests) == 2
    (data_home / "flickr8k").rename(data_home / "by-argument")
    monkeypatch.setenv("CONVRNN_FLICKR8K", release.address)
    assert data.flickr8k().is_dir()
    assert len(release.requests) == 4


def test_an_empty_variable_is_no_address(release, monkeypatch):
    """``export CONVRNN_FLICKR8K=`` is how some unset it: then the public address is asked."""
    asked = []
    monkeypatch.setenv("CONVRNN_FLICKR8K", "")
    monkeypatch.setattr(sources, "_fetch_flickr8k", lambda folder, address: asked.append(address))
    data.flickr8k()
    assert asked == [None]


def test_without_either_the_public_address_is_asked(release, monkeypatch):
    for name, known in sources.FLICKR8K.items():
        size = (release.folder / name).stat().st_size
        changed = {**known, "address": release.address, "bytes": size}
        monkeypatch.setitem(sources.FLICKR8K, name, changed)
    data.flickr8k()
    assert len(release.requests) == 2


def test_the_public_address_and_files_are_those_of_the_release():
    assert sources.FLICKR8K_ADDRESS.startswith("https://")
    assert sources.FLICKR8K_PICTURES == 8091
    assert set(sources.FLICKR8K) == {TEXTS, PICTURES}
    for archive in sources.FLICKR8K.values():
        assert archive["sha256"] is None or re.fullmatch("[0-9a-f]{64}", archive["sha256"])


# ---------------------------------------------------------------- what may go wrong


@pytest.mark.parametrize("count", [6, 8])
def test_another_number_of_pictures_is_refused(release, data_home, monkeypatch, count):
    monkeypatch.setattr(sources, "FLICKR8K_PICTURES", count)
    with pytest.raises(ValueError, match=rf"{PICTURES}.* 7 pictures and not {count}.*removed"):
        data.flickr8k(release.address)
    assert_nothing_is_left(data_home, TEXTS)
    monkeypatch.setattr(sources, "FLICKR8K_PICTURES", 7)
    assert data.flickr8k(release.address).is_dir()
    assert release.requests.count(f"/{PICTURES}") == 2  # fetched anew, the captions kept
    assert release.requests.count(f"/{TEXTS}") == 1


@pytest.mark.parametrize("name", [TEXTS, PICTURES])
def test_an_archive_that_is_no_zip_file_is_refused(release, data_home, name):
    sound = (release.folder / name).read_bytes()
    (release.folder / name).write_bytes(b"<html>Sign in to go on</html>")
    with pytest.raises(ValueError, match=rf"{name}.*not a zip file.*removed.*flickr8k\(\) again"):
        data.flickr8k(release.address)
    assert_nothing_is_left(data_home, *({TEXTS, PICTURES} - {name}))
    (release.folder / name).write_bytes(sound)
    assert data.flickr8k(release.address).is_dir()


@pytest.mark.parametrize("name", [TEXTS, PICTURES])
def test_an_archive_with_a_wrong_byte_is_refused(release, data_home, name):
    content = bytearray((release.folder / name).read_bytes())
    mark = b"Caption 2 of 10_a.jpg" if name == TEXTS else jpeg(3)
    content[content.index(mark) + 8] ^= 1
    (release.folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*removed"):
        data.flickr8k(release.address)
    assert_nothing_is_left(data_home, *({TEXTS, PICTURES} - {name}))


@pytest.mark.parametrize(
    "member", ["Flickr8k.token.txt", "Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt"]
)
def test_texts_without_a_member_are_refused_by_its_name(release, data_home, member):
    members = text_members()
    del members[member]
    write_zip(release.folder / TEXTS, members)
    with pytest.raises(ValueError, match=rf"{TEXTS}.*{member}.*removed"):
        data.flickr8k(release.address)
    assert_nothing_is_left(data_home, PICTURES)


@pytest.mark.parametrize(
    "content",
    [b"no picture", jpeg(3)[:-40], b""],
    ids=["no picture", "cut off", "empty"],
)
def test_a_broken_photograph_is_refused_by_name(release, data_home, content):
    members = picture_members()
    members["Flicker8k_Dataset/40_d.jpg"] = content
    write_zip(release.folder / PICTURES, members)
    with pytest.raises(ValueError, match=r"40_d\.jpg cannot be read as a picture"):
        data.flickr8k(release.address)
    assert_nothing_is_left(data_home, TEXTS)


def test_a_release_that_is_not_there_is_a_connection_error_in_words(release, data_home):
    with pytest.raises(ConnectionError, match=r"404.*CONVRNN_FLICKR8K") as refusal:
        data.flickr8k(f"{release.address}/elsewhere")
    assert "could not be fetched from http://127.0.0.1" in str(refusal.value)
    assert_nothing_is_left(data_home)
    (release.folder / PICTURES).unlink()
    with pytest.raises(ConnectionError, match=f"{PICTURES} could not be fetched"):
        data.flickr8k(release.address)
    assert_nothing_is_left(data_home, TEXTS)


def test_a_connection_that_is_refused_is_a_connection_error_in_words(release, data_home):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        words = "could not be fetched.*there is no connection to the server.*check the network"
        with pytest.raises(ConnectionError, match=words):
            data.flickr8k(address)
    assert_nothing_is_left(data_home)


def test_an_address_without_a_protocol_is_a_connection_error_in_words(release, data_home):
    with pytest.raises(ConnectionError, match="could not be fetched from somewhere"):
        data.flickr8k("somewhere")
    assert_nothing_is_left(data_home)


def test_a_download_that_breaks_off_is_not_taken_for_whole(release, data_home):
    release.longer = 1000
    with pytest.raises(
        ConnectionError, match=r"broke off.*flickr8k\(\) again \(.*\), which goes on"
    ):
        data.flickr8k(release.address)
    assert_nothing_is_left(data_home, f"{TEXTS}.part", f"{TEXTS}.part.json")
    release.longer = 0
    assert data.flickr8k(release.address).is_dir()


@pytest.mark.parametrize("name", [TEXTS, PICTURES])
def test_a_file_with_another_sum_than_the_known_one_is_refused(
    release, data_home, monkeypatch, name
):
    monkeypatch.setitem(sources.FLICKR8K, name, {"sha256": "0" * 64})
    with pytest.raises(ValueError, match=rf"{name} could not .*its SHA-256 is not that.*removed"):
        data.flickr8k(release.address)
    assert_nothing_is_left(data_home, *([TEXTS] if name == PICTURES else []))


def test_files_with_the_known_sums_are_taken(release, monkeypatch):
    for name in (TEXTS, PICTURES):
        digest = hashlib.sha256((release.folder / name).read_bytes()).hexdigest()
        monkeypatch.setitem(sources.FLICKR8K, name, {"sha256": digest})
    assert data.flickr8k(release.address).is_dir()


def test_an_interrupt_while_unpacking_leaves_no_data_set(release, data_home, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sources, "read_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.flickr8k(release.address)
    assert_nothing_is_left(data_home, TEXTS, PICTURES)
    assert data.flickr8k(release.address).is_dir()
    assert len(release.requests) == 2  # the archives were sound, and were used again


# ---------------------------------------------------------------- the whole of it


@pytest.mark.skipif(not RELEASE.exists(), reason="Flickr8k itself is not here")
def test_the_whole_of_flickr8k(data_home, serve, tmp_path, monkeypatch):
    for archive in sources.FLICKR8K:  # the rebuilt archives are smaller than the public ones
        monkeypatch.setitem(sources.FLICKR8K, archive, {"sha256": None})
    subprocess.run([sys.executable, RELEASE, tmp_path / "release"], check=True)
    folder = data.flickr8k(serve(tmp_path / "release").address)
    files = {path.name for path in (folder / "images").iterdir()}
    assert len(files) == 8091
    splits = {name: data.load_split(folder, name) for name in ("train", "val", "test")}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 6000,
        "val": 1000,
        "test": 1000,
    }
    ids = [image_id for split in splits.values() for image_id in split.ids]
    assert len(set(ids)) == 8000
    for name, split in splits.items():
        official = "dev" if name == "val" else name
        listed = RELEASE.with_name(f"Flickr_8k.{official}Images.txt").read_text().split()
        in_split = [path.name for path in split.paths]
        same = sorted(in_split) == sorted(listed)  # compared here, so that a failure shows no name
        assert same and files.issuperset(in_split)
        assert all(len(captions) == 5 for captions in split.captions)
        assert all(text == text.strip() != "" for captions in split.captions for text in captions)
        for path in split.paths[::200]:
            pixels = numpy.asarray(data.read_image(path))
            assert pixels.shape == (224, 224, 3)
            assert pixels.std() > 5
