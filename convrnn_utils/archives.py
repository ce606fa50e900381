"""Zip files from elsewhere: every member is checked before a byte is written."""

import contextlib
import errno
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from convrnn_utils.downloads import require_room

MOST_BYTES = 60_000_000_000  # unpacked; the largest archive of the course, COCO's, has 19 GB
HIGHEST_RATIO = 200  # of unpacked to packed size: captions shrink 5 to 1, pictures not at all


@contextlib.contextmanager
def open_archive(path: Path, way_out: str, most_bytes: int = MOST_BYTES) -> Iterator:
    """Open a zip file, as ``zipfile.ZipFile``, if all its members are safe to unpack.

    Args:
        path: the zip file; it is removed if it is refused, or turns out to be damaged while it is
            read.
        way_out: what the reader can do then, for the message.
        most_bytes: the most that it may hold when unpacked.

    Raises:
        ValueError: the file is refused; or the ``with`` block raised a ``ValueError``, to whose
            message the way out is added.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, most_bytes)
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        ValueError,
        RuntimeError,  # it needs a password, or is packed in a way that this Python cannot unpack
        struct.error,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: seek before byte 0
            raise  # the disk's fault, not the archive's
        path.unlink()
        reason = str(error).strip("'\"").rstrip(".")
        raise ValueError(
            f"{path.name} is not as it was released: {reason}; it was removed, so {way_out}."
        ) from error


def unpack_pictures(archive: zipfile.ZipFile, folder: Path, count: int) -> list[Path]:
    """Write the JPEG members to ``folder`` under their bare names.

    Returns:
        the files written.

    Raises:
        ValueError: there are not ``count`` of them, or two have the same bare name.
        OSError: there is not enough room on the disk.
    """
    members = [member for member in archive.infolist() if _is_picture(member.filename)]
    if len(members) != count:
        raise ValueError(f"it holds {len(members)} pictures and not {count}")
    names = [PurePosixPath(member.filename).name for member in members]
    _refuse_like_names(names)
    require_room(folder, sum(member.file_size for member in members), "unpacking")
    folder.mkdir(parents=True, exist_ok=True)
    for member, name in zip(tqdm(members, desc="unpacking", leave=False), names, strict=True):
        (folder / name).write_bytes(archive.read(member))
    return [folder / name for name in names]


def _is_picture(name: str) -> bool:
    return name.endswith(".jpg") and not name.startswith("__MACOSX")


def _check_members(archive: zipfile.ZipFile, most_bytes: int) -> None:
    """Raise a ``ValueError`` if an archive would write outside its folder, or fill the disk."""
    members = archive.infolist()
    for member in members:
        _check_member(member)
    _refuse_like_names([member.filename for member in members])
    total = sum(member.file_size for member in members)
    if total > most_bytes:
        raise ValueError(f"it would unpack to {total:,} bytes; {most_bytes:,} are allowed")


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"its member {name!r} would land outside the folder")
    if not name.isprintable() or not path.parts:
        raise ValueError(f"its member {name!r} has no name that a file can have")
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where it was packed on Windows
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"its member {name!r} is a link or a device, not a file")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {name!r} has an unusual compression")
    if member.file_size > HIGHEST_RATIO * max(member.compress_size, 1024):
        raise ValueError(f"its member {name!r} unpacks to more than {HIGHEST_RATIO} times its size")


def _refuse_like_names(names: list[str]) -> None:
    """Refuse names that some disks treat as one: a file would silently replace another."""
    seen: dict[str, str] = {}
    for name in names:
        alike = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if alike in seen:
            raise ValueError(f"its members {seen[alike]!r} and {name!r} are one name on some disks")
        seen[alike] = name
