"""Zip files that would do harm: refused in words, and nothing is written outside."""

import io
import random
import stat
import struct
import zipfile

import pytest

from convrnn_utils import archives
from convrnn_utils.archives import open_archive, unpack_pictures

AGAIN = "call it again"


def member(name, mode=0):
    info = zipfile.ZipInfo("x")
    info.filename = name  # past the cleaning of ZipInfo
    info.external_attr = mode << 16
    return info


def write_zip(path, members, packing=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packing) as archive:
        for info, content in members:
            info = info if isinstance(info, zipfile.ZipInfo) else member(info)
            archive.writestr(info, content, packing)
    return path


def names_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def unpack(path, folder, count):
    with open_archive(path, AGAIN) as archive:
        return unpack_pictures(archive, folder, count)


def test_pictures_are_unpacked_under_their_bare_names(tmp_path):
    members = [("set/a.jpg", b"A"), ("set/b.jpg", b"B"), ("__MACOSX/set/._a.jpg", b"no")]
    path = write_zip(tmp_path / "good.zip", [*members, ("set/notes.txt", b"no")])
    written = unpack(path, tmp_path / "out", 2)
    assert [file.read_bytes() for file in written] == [b"A", b"B"]
    assert names_below(tmp_path) == ["good.zip", "out", "out/a.jpg", "out/b.jpg"]


NAMES = {
    "up": "../evil.jpg",
    "up from below": "set/../../evil.jpg",
    "absolute": "/tmp/evil.jpg",
    "absolute twice": "//tmp/evil.jpg",
    "Windows": "..\\evil.jpg",
    "a drive": "C:evil.jpg",
    "a drive and a folder": "C:\\evil.jpg",
    "another stream": "a.jpg:evil.jpg",
    "a line": "a\nb.jpg",
    "a bell": "a\ab.jpg",
    "turned round": "a\u202egpj.exe",
    "no name": ".",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name, fault):
    fault("archives")
    path = write_zip(tmp_path / "evil.zip", [("good.jpg", b"good"), (name, b"evil")])
    with pytest.raises(ValueError, match="evil.zip is not as it was released: its member .*again"):
        unpack(path, tmp_path / "out", 2)
    assert names_below(tmp_path) == []


KINDS = {
    "link": stat.S_IFLNK,
    "device": stat.S_IFCHR,
    "disk": stat.S_IFBLK,
    "pipe": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
}


@pytest.mark.parametrize("mode", KINDS.values(), ids=KINDS)
def test_what_is_no_file_is_refused(tmp_path, mode, fault):
    fault("archives")
    path = write_zip(tmp_path / "evil.zip", [(member("a.jpg", mode | 0o777), b"/etc/passwd")])
    with pytest.raises(ValueError, match="'a.jpg' is a link or a device, not a file"):
        unpack(path, tmp_path / "out", 1)
    assert names_below(tmp_path) == []


ALIKE = {
    "case": ("a.jpg", "A.jpg"),
    "case of a folder": ("set/a.jpg", "SET/a.jpg"),
    "Unicode form": ("caf\u00e9.jpg", "cafe\u0301.jpg"),
    "sharp s": ("stra\u00dfe.jpg", "STRASSE.jpg"),
    "twice the same": ("a.jpg", "a.jpg"),
    "two folders": ("one/a.jpg", "two/a.jpg"),
}


@pytest.mark.parametrize("names", ALIKE.values(), ids=ALIKE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_one_to_some_disks_are_refused(tmp_path, names, fault):
    fault("archives")
    path = write_zip(tmp_path / "evil.zip", [(name, b"x") for name in names])
    with pytest.raises(ValueError, match="are one name on some disks"):
        unpack(path, tmp_path / "out", 2)
    assert names_below(tmp_path) == []


def test_a_member_that_unpacks_to_very_much_more_is_refused(tmp_path, fault):
    fault("archives")
    members = [("a.jpg", bytes(5_000_000))]
    path = write_zip(tmp_path / "bomb.zip", members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 6000
    with pytest.raises(ValueError, match="unpacks to more than 200 times its size"):
        unpack(path, tmp_path / "out", 1)
    assert names_below(tmp_path) == []


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, fault):
    fault("archives")
    path = write_zip(tmp_path / "big.zip", [(f"{n}.jpg", bytes(1000)) for n in range(11)])
    with (
        pytest.raises(ValueError, match="would unpack to 11,000 bytes; 10,000 are allowed"),
        open_archive(path, AGAIN, most_bytes=10_000),
    ):
        raise AssertionError("it was opened")
    assert names_below(tmp_path) == []


def test_one_that_says_less_than_it_holds_is_refused(tmp_path, fault):
    """A bomb whose sizes are false: what is read ends where it says, and its sum is wrong."""
    fault("archives")
    content = bytes(5_000_000)
    path = write_zip(tmp_path / "bomb.zip", [("a.jpg", content)], zipfile.ZIP_DEFLATED)
    lying = path.read_bytes().replace(struct.pack("<L", len(content)), struct.pack("<L", 100))
    path.write_bytes(lying)
    with pytest.raises(ValueError, match="not as it was released"):
        unpack(path, tmp_path / "out", 1)
    assert names_below(tmp_path / "out") == []


def test_members_that_share_their_bytes_are_refused(tmp_path, fault):
    """Fifield's bomb: many entries of the directory point to the same packed bytes."""
    fault("archives")
    path = write_zip(tmp_path / "one.zip", [("a.jpg", b"x" * 1000)])
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[start:end]
    entries = b"".join(entry.replace(b"a.jpg", b"%05d" % n) for n in range(5))
    tail = bytearray(content[end:])
    struct.pack_into("<HHL", tail, 8, 5, 5, len(entries))
    path.write_bytes(content[:start] + entries + tail)
    with pytest.raises(ValueError, match="not as it was released"), open_archive(path, AGAIN) as it:
        [it.read(name) for name in it.namelist()]


def test_one_that_wants_a_password_or_a_strange_packing_is_refused(tmp_path, fault):
    for at, value, message in ((6, 1, "encrypted"), (8, 99, "compression")):
        fault("archives")
        path = write_zip(tmp_path / "odd.zip", [("a.jpg", b"content")])
        content = bytearray(path.read_bytes())
        directory = content.index(b"PK\x01\x02")
        struct.pack_into("<H", content, at, value)
        struct.pack_into("<H", content, directory + at + 2, value)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"(?i){message}.*removed"):
            unpack(path, tmp_path / "out", 1)


def test_a_disk_without_room_is_found_out_before_the_first_file(tmp_path, monkeypatch, fault):
    fault("archives")

    class Free:
        free = 5

    monkeypatch.setattr("convrnn_utils.downloads.shutil.disk_usage", lambda path: Free)
    path = write_zip(tmp_path / "good.zip", [("a.jpg", b"123456")])
    with pytest.raises(OSError, match="unpacking needs"):
        unpack(path, tmp_path / "out", 1)
    assert names_below(tmp_path) == ["good.zip"]  # is sound, and stays


def test_random_damage_is_refused_in_words(tmp_path, fault, many):
    """Bytes changed, cut out or repeated: it unpacks to the right bytes, or is refused."""
    generator = random.Random(5)
    pictures = {f"set/{n}.jpg": generator.randbytes(200) for n in range(4)}
    sound = io.BytesIO()
    with zipfile.ZipFile(sound, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pictures.items():
            archive.writestr(name, content)
    refused = 0
    for number in range(many(200, 10_000)):
        fault("archives")
        damaged = bytearray(sound.getvalue())
        for _ in range(generator.randrange(1, 4)):
            place = generator.randrange(len(damaged))
            if generator.random() < 0.6:
                damaged[place] = generator.randrange(256)
            elif generator.random() < 0.5:
                del damaged[place : place + generator.randrange(1, 50)]
            else:
                damaged[place:place] = damaged[place : place + generator.randrange(1, 50)]
        path, folder = tmp_path / "damaged.zip", tmp_path / f"out-{number}"
        path.write_bytes(damaged)
        try:
            written = unpack(path, folder, len(pictures))
        except ValueError as error:
            refused += 1
            assert "damaged.zip is not as it was released: " in str(error)
            assert not path.exists()
        else:
            assert len(written) == len(pictures)
            assert sorted(file.read_bytes() for file in written) == sorted(pictures.values())
    assert refused > 100
    assert not list(tmp_path.parent.glob("*.jpg"))


def test_the_archives_of_the_course_are_within_the_limits():
    from convrnn_utils import coco, sources

    released = [*coco.ARCHIVES.values(), *sources.FLICKR8K.values()]
    assert max(archive["bytes"] for archive in released) < archives.MOST_BYTES
