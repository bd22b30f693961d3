"""Files at addresses that fsspec reaches (`s3://bucket/night`): listed, fetched, and sent whole.

What file systems say of their failures is told in our own words: their own may hold credentials.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import os
import posixpath
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorlens.errors import InputError, OutputError, PriorlensError, WeightsError
from priorlens.ledger import Stamp

ATTEMPTS, PAUSE = 3, 2.0
"""To send a file, and seconds between the first two; twice as many before each further one."""

AT_ONCE = 8
"""Files that are sent at the same time, where a file system can."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PASSWORD = re.compile(r"://[^/@:]*:(?!\d+(/|$))[^@]*@")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_PACKAGES |= {"hdfs": "pyarrow", "sftp": "paramiko", "ssh": "paramiko", "http": "aiohttp", "https": "aiohttp"}
_WHOLE = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"))
"""Where an object appears whole or not at all; elsewhere a file is sent under another name, and renamed."""

_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "modification_time", "created")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Address:
    """Of a file or folder, without a slash at its end; it holds no password."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, relative: str | Path) -> Address:
        return Address(f"{self.text.rstrip('/')}/{relative}")

    def leads_to(self, relative: str) -> Address:
        """Where a path leads that starts at this folder and may have `..` in it."""
        scheme, _, rest = self.text.partition("://")
        return Address(f"{scheme}://{posixpath.normpath(posixpath.join(rest, relative))}")

    @property
    def name(self) -> str:
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> Address:
        return Address(self.text.rpartition("/")[0])

    def is_within(self, folder: Address) -> bool:
        return f"{self.text}/".startswith(f"{folder.text}/")


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a listing. relative: its path from the address that was listed."""

    address: Address
    relative: str
    stamp: Stamp


def place(text: str) -> Path | Address:
    """What a user has named: a path on this machine, or an address.

    Raises InputError for an address that may hold a credential, or that leads through several file systems; what may
    be secret is not told.
    """
    if "://" not in text:
        return Path(text)
    match = _ADDRESS.fullmatch(text)
    if _PASSWORD.search(text):
        shown = re.sub(r"(?<=://).*@", "...@", text, flags=re.DOTALL)
        raise InputError(f"{shown}: holds a password; leave it out, the file system finds it in its own settings")
    if match and match[1].lower() in ("http", "https") and "?" in text:
        raise InputError(f"{text.partition('?')[0]}: what follows the ? may be a credential; give an address without")
    if not match or "::" in text or {".", ".."} & set(match[2].split("/")):
        raise InputError(f"{text}: only plain addresses such as s3://bucket/folder are taken; give one")
    return Address(f"{match[1]}://{match[2].rstrip('/') or '/'}")


def require_file_system(address: Address) -> None:
    """Raises WeightsError: fsspec, or what it needs for this address, is not installed. InputError: it knows none."""
    _opened(address)


def listing(root: Address) -> list[Found]:
    """Every file below an address that is not hidden, in no order; of a single file this one.

    Raises InputError: there is nothing, or it cannot be reached.
    """
    with _told(root, "cannot be read", "check that it is there and may be read"):
        fs, path = _opened(root)
        fs.invalidate_cache()
        info = fs.info(path)
        if info["type"] == "file":
            return [Found(root, root.name, _stamp(info))]
        top = str(info["name"]).rstrip("/")
        found = []
        for name, one in fs.find(path, detail=True).items():
            relative = name[len(top) :].lstrip("/")
            if not any(part.startswith(".") for part in relative.split("/")) and not relative.endswith("/"):
                found.append(Found(root / relative, relative, _stamp(one)))
        fs.invalidate_cache()
        return found


def names_in(folder: Address) -> list[str]:
    """What a folder holds, not in depth; nothing where it is not there. Raises InputError."""
    with _told(folder, "cannot be read", "check that it may be read"):
        fs, path = _opened(folder)
        fs.invalidate_cache()
        try:
            return [name.rstrip("/").rpartition("/")[2] for name in fs.ls(path, detail=False)]
        except FileNotFoundError:
            return []


def stamp_at(address: Address) -> Stamp:
    """By what a file is known again, as far as its file system tells; that of nothing where it cannot be reached."""
    with suppress(InputError), _told(address, "cannot be read", "try again"):
        fs, path = _opened(address)
        fs.invalidate_cache(path)
        return _stamp(fs.info(path))
    return Stamp()


def fetch(address: Address, target: Path) -> None:
    """Copy a file to this disk, as it was at one moment.

    Raises InputError, which may pass; OutputError where this disk is full.
    """
    with _told(address, "cannot be fetched", "check that it is there, then score again"):
        fs, path = _opened(address)
        fs.invalidate_cache(path)
        before = fs.info(path)
        if before["type"] != "file":
            raise InputError(f"{address}: is a folder; name the files in it")
        fs.get_file(path, str(target))
        fs.invalidate_cache(path)
        after = _stamp(fs.info(path))
    if after != _stamp(before) or after.size not in (0, target.stat().st_size):
        raise InputError(f"{address}: was changed while it was fetched; score again", passing=True)


def content_at(address: Address) -> bytes | None:
    """Of a small file; None where there is none. Raises InputError."""
    with _told(address, "cannot be read", "try again"):
        fs, path = _opened(address)
        fs.invalidate_cache(path)
        try:
            return bytes(fs.cat_file(path))
        except FileNotFoundError:
            return None


def send(files: Iterable[tuple[Path, Address]]) -> None:
    """Copy files from this disk, each whole or not at all under its final name. Raises OutputError."""
    pairs = list(files)
    if not pairs:
        return
    fs, _ = _opened(pairs[0][1])
    if len(pairs) == 1 or not getattr(fs, "async_impl", False):  # others need not be safe in several threads
        for source, address in pairs:
            _send(source, address)
        return
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in threads.map(lambda pair: _send(*pair), pairs):
            pass


def remove(addresses: Iterable[Address]) -> None:
    """Those files that are there. Raises OutputError."""
    for address in addresses:
        try:
            with _told(address, "cannot be removed", "choose another --out"):
                fs, path = _opened(address)
                with suppress(FileNotFoundError):
                    fs.rm_file(path)
        except InputError as error:
            raise OutputError(str(error)) from error


def _send(source: Path, address: Address) -> None:
    for attempt in range(ATTEMPTS):
        try:
            with _told(address, "cannot be written", "check the place, then the same command goes on"):
                _send_whole(source, address)
            return
        except InputError as error:
            if attempt == ATTEMPTS - 1:
                raise OutputError(str(error)) from error
            time.sleep(PAUSE * 2**attempt)


def _send_whole(source: Path, address: Address) -> None:
    from fsspec import AbstractFileSystem

    fs, path = _opened(address)
    if not _WHOLE.isdisjoint([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol):
        fs.put_file(str(source), path)
        return
    folder, _, name = path.rpartition("/")
    partial = f"{folder}/.{name}.{uuid.uuid4().hex}.partial"
    fs.makedirs(folder, exist_ok=True)
    try:
        fs.put_file(str(source), partial)
        if type(fs).mv is AbstractFileSystem.mv:  # which takes brackets in a name for a pattern
            fs.cp_file(partial, path)
            fs.rm_file(partial)
            return
        try:
            fs.mv(partial, path)
        except Exception:
            if not fs.exists(path):
                raise
            fs.rm_file(path)  # HDFS does not rename over what is there
            fs.mv(partial, path)
    except BaseException:
        with suppress(Exception):
            fs.rm_file(partial)
        raise


def _opened(address: Address) -> tuple[Any, str]:
    """The file system, and what it calls the file. Raises InputError, WeightsError."""
    scheme = address.text.partition("://")[0].lower()
    if "::" in address.text:  # of a listing; fsspec would take it for an address in an address
        raise InputError(f"{address}: has :: in its name, which fsspec does not reach; rename it")
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(address.text)
    except ImportError as error:
        packages = " ".join(filter(None, ("'priorlens[remote]'", _PACKAGES.get(scheme))))
        line = f"{address}: what reaches such addresses is not installed; pip install {packages}"
        raise WeightsError(line) from error
    except ValueError as error:
        line = f"{address}: fsspec has no file system for {scheme}://, or none for such an address; correct it"
        raise InputError(line) from error
    return fs, str(path)


@contextmanager
def _told(address: Address, what: str, remedy: str) -> Iterator[None]:
    """Whatever a file system raises becomes an InputError that may pass; a full disk of this machine OutputError."""
    try:
        yield
    except PriorlensError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            line = f"{address}: cannot be copied ({os.strerror(error.errno or 0).lower()}); free some space"
            raise OutputError(f"{line}, then the same command goes on") from None
        line = f"{address}: {what} ({_reason(error)}); {remedy}"
        raise InputError(line, passing=True) from None  # a traceback would tell the file system's own words


def _reason(error: Exception) -> str:
    """In words of our own."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or folder"
    if isinstance(error, PermissionError):
        return "access is denied"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return type(error).__name__


def _stamp(info: dict[str, Any]) -> Stamp:
    """The size and what tells one version from another: a checksum, or else the time of the last change."""
    size = int(info.get("size") or 0)
    for name in _VERSIONS:
        if info.get(name):
            digest = hashlib.sha256(str(info[name]).encode()).digest()
            return Stamp(size, int.from_bytes(digest[:7], "big"))
    return Stamp(size, next((found for name in _TIMES if (found := _nanoseconds(info.get(name)))), 0))


def _nanoseconds(moment: object) -> int:
    """Of a time as file systems tell it: a number of seconds, a date, or text."""
    if isinstance(moment, str):
        with suppress(ValueError):
            moment = datetime.datetime.fromisoformat(moment)
    if isinstance(moment, datetime.datetime):
        moment = moment.timestamp()
    return round(moment * 1e6) * 1000 if isinstance(moment, int | float) else 0
