"""Downloads that resume where they broke off, and end with the right bytes or with none.

pooch and torchvision begin a broken download again from its first byte. Over the connection of a
train, 20 GB would then never arrive; hence this module.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import requests
from tqdm import tqdm

from convrnn_utils.files import flush_to_disk, nearest_folder

ATTEMPTS = 5  # in a row that bring no further byte, before an address is given up
FIRST_PAUSE = 1.0  # seconds before the second attempt; each pause is twice the one before
LONGEST_PAUSE = 60.0
SILENCE = 30.0  # seconds without a byte before a connection is given up
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # status codes after which trying again may help
CHUNK = 1 << 14  # bytes; when a connection breaks off, its unfinished last chunk is lost


class _Refused(Exception):
    """This address does not give the file, and asking again would not help."""


class _WrongFile(Exception):
    """What an address gave is not the file that was asked for."""


def download(
    addresses: Sequence[str], path: Path, size: int | None = None, sha256: str | None = None
) -> Path:
    """Fetch a file over HTTP; the addresses are tried in turn until one gives it.

    When a connection breaks off, or the user interrupts, what has arrived is kept in ``PATH.part``.
    The same call resumes from there, if the server can do that and its file has not changed.
    ``path`` itself only ever holds the whole file, and is not fetched again if it exists.

    Args:
        addresses: where the same file can be fetched.
        path: where to put it.
        size: in bytes, if it is known; another size is refused.
        sha256: of the file, if it is known; another checksum is refused.

    Raises:
        ConnectionError: no address gave the file; the message gives the reason for each.
        ValueError: what arrived does not have this checksum or size; it was removed.
        OSError: there is not enough room on the disk; this is checked before the first byte.
    """
    path = Path(path)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    refusals: list[Exception] = []
    for address in addresses:
        try:
            _fetch(address, part, size)
            _check(part, size, sha256)
        except (_Refused, _WrongFile) as refusal:
            refusals.append(refusal)
            continue
        flush_to_disk(part)
        os.replace(part, path)
        _state_of(part).unlink(missing_ok=True)
        return path
    kind = ValueError if any(isinstance(why, _WrongFile) for why in refusals) else ConnectionError
    reasons = (f"{address} ({why})" for address, why in zip(addresses, refusals, strict=True))
    raise kind(f"{path.name} could not be fetched from {', nor from '.join(reasons)}")


def download_released(
    name: str,
    release: dict,
    folder: Path,
    address: str | Sequence[str] | None,
    call: str,
    variable: str,
) -> Path:
    """Fetch one file of a public release, from its public address or from another.

    Args:
        name: of the file.
        release: ``"address"``, ``"bytes"`` and ``"sha256"`` (or None) of the file.
        folder: where to put it.
        address: one or several places that have the file; by default the public one. Only a file
            from the public address must have the size in ``release``: elsewhere it may have been
            packed anew, with smaller pictures.
        call, variable: named in error messages: the call to make again, and the environment
            variable that takes an address.

    Raises:
        ConnectionError, ValueError, OSError: see ``download``.
    """
    places = [address] if isinstance(address, str) else address or [release["address"]]
    addresses = [f"{place.rstrip('/')}/{name}" for place in places]
    size = None if address else release["bytes"]
    try:
        return download(addresses, folder / name, size, release["sha256"])
    except ConnectionError as error:
        raise ConnectionError(
            f"{error}; check the network and call {call} again (or give the same command again), "
            "which goes on where it stopped, or name another address in the environment variable "
            f"{variable}."
        ) from error


def fetched(names: Iterable[str], folder: Path) -> int:
    """How many bytes of the named files a folder has already, unfinished downloads included."""
    return sum(_length(folder / f"{name}{end}") for name in names for end in ("", ".part"))


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise an ``OSError`` that says what to do if a disk has less than ``needed`` bytes free."""
    free = shutil.disk_usage(nearest_folder(folder)).free
    if free < needed:
        raise OSError(
            f"{what} needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; "
            "make room, or set CONVRNN_DATA to a folder on another disk."
        )


def _fetch(address: str, part: Path, size: int | None) -> None:
    """Bring ``part`` to its full length, in as many attempts as that takes."""
    failures, furthest = 0, _length(part)
    while True:
        try:
            _attempt(address, part, size)
            return
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
            _Transient,
        ) as error:
            failures = 1 if _length(part) > furthest else failures + 1
            furthest = max(furthest, _length(part))
            if failures >= ATTEMPTS:
                raise _Refused(_in_words(error, part)) from error
            asked_for = getattr(error, "pause", 0)
            pause = max(asked_for, FIRST_PAUSE * 2 ** (failures - 1))
            time.sleep(min(pause, LONGEST_PAUSE))
        except requests.RequestException as error:  # such as an address without http://
            raise _Refused(str(error)) from error


class _Transient(Exception):
    """This attempt failed, but the next may succeed; the server may have asked for a pause."""

    def __init__(self, reason: str, pause: float = 0):
        super().__init__(reason)
        self.pause = pause


def _attempt(address: str, part: Path, size: int | None) -> None:
    """Make one request: for the rest of the file if that is possible, else for all of it."""
    have, known = _length(part), _read_state(part)
    if have and have == known.get("total"):  # stopped after the last byte, before the renaming
        return
    headers = {"Accept-Encoding": "identity"}
    if have and known.get("address") == address and known.get("version"):
        headers |= {"Range": f"bytes={have}-", "If-Range": known["version"]}
    with requests.get(address, headers=headers, stream=True, timeout=SILENCE) as response:
        total = _total(response)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if response.status_code == 416 and "Range" in headers:
            _forget(part)
            raise _Transient("the server has no such range: from the beginning again")
        _require_file(response)
        goes_on = response.status_code == 206
        if goes_on and not _same(response, have, known, version, total):
            _forget(part)
            raise _Transient("the file changed between two attempts: from the beginning again")
        if not goes_on:
            have = 0
        remaining = max((total or size or 0) - have, 0)
        require_room(part.parent, remaining, f"the download of {part.stem}")
        state = {"address": address, "version": _strong(version), "total": total}
        _state_of(part).write_text(json.dumps(state), encoding="utf-8")
        _receive(response, part, have, total)
    if total is not None and _length(part) != total:
        raise _Transient(f"the connection broke off at byte {_length(part):,} of {total:,}")


def _receive(response: requests.Response, part: Path, have: int, total: int | None) -> None:
    """Write what arrives to ``part``, after the first ``have`` bytes of it."""
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(
            total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, leave=False
        ) as bar,
    ):
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _require_file(response: requests.Response) -> None:
    """Raise unless the answer is a file; a web page is not one, whatever its status."""
    status = response.status_code
    if status in TRANSIENT:
        pause = response.headers.get("Retry-After", "")
        raise _Transient(
            f"the server answered {status} {response.reason}", int(pause) if pause.isdigit() else 0
        )
    if status not in (200, 206):
        raise _Refused(f"the server answered {status} {response.reason}")
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise _Refused(
            "the server sent a web page instead of the file, perhaps to sign in; "
            "open the address in a browser to see it"
        )


def _total(response: requests.Response) -> int | None:
    """The size of the whole file in bytes, if the server says it."""
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _same(response, have: int, known: dict, version: str | None, total: int | None) -> bool:
    """Whether a partial answer continues the bytes that are here."""
    begins_at = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    same_version = known.get("version") == _strong(version) or version is None
    return begins_at == str(have) and same_version and total == known.get("total")


def _strong(version: str | None) -> str | None:
    """The version, or None for a weak ETag, which only promises equivalent content, not bytes."""
    return None if version is None or version.startswith("W/") else version


def _check(part: Path, size: int | None, sha256: str | None) -> None:
    """Remove what arrived if it is not the file that was expected."""
    found = _length(part)
    complaint = None
    if size is not None and found != size:
        complaint = f"it has {found:,} bytes, and the file as released has {size:,}"
    elif sha256 is not None and _sum(part) != sha256:
        complaint = "its SHA-256 is not that of the file as released"
    if complaint:
        _forget(part)
        raise _WrongFile(f"{complaint}; it was removed")


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _in_words(error: Exception, part: Path) -> str:
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"no byte came for {SILENCE:g} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the connection broke off at byte {_length(part):,}"
    if type(error) is requests.ConnectionError:  # its subclasses say more
        return "there is no connection to the server"
    return str(error)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _state_of(part: Path) -> Path:
    """The file that records the address, version and full size of what ``part`` is a part of."""
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> dict:
    try:
        state = json.loads(_state_of(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or one that was half written when the machine stopped
        return {}
    return state if isinstance(state, dict) else {}


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_of(part).unlink(missing_ok=True)
