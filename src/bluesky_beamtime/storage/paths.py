"""Where frames go: URIs, and folders with numbers that are never used twice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from bluesky_beamtime.errors import PathError, StoreWriteError
from bluesky_beamtime.storage.files import write_error

DEFAULT_BASE = "~/bluesky-beamtime"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_DRIVE = re.compile(r"[A-Za-z]:")
_SUFFIXES = re.compile(r"\.(zarr|h5|hdf5|hdf|nxs)$")


def from_uri(uri: str) -> str:
    """Return the local path of a ``file:`` URI; anything else comes back unchanged.

    Percent escapes are decoded; ``#`` and ``?`` that were left bare are part of the
    name. The host may be absent or ``localhost``.

    Raises
    ------
    PathError
        The URI names another host, whose files are not here.
    """
    if uri[:5].lower() != "file:":
        return uri
    rest = uri[5:]
    if not rest.startswith("//"):
        return _unquote(rest)
    host, slash, path = rest[2:].partition("/")
    if _DRIVE.fullmatch(host):
        # "file://C:/x", which some programs write on Windows.
        return _unquote(f"{host}{slash}{path}")
    if host.lower() not in ("", "localhost"):
        raise PathError(
            f"{uri!r} names the host {host!r}; mount its disk here and use the path of "
            "the mount"
        )
    if os.name == "nt" and _DRIVE.match(_unquote(path)):
        return _unquote(path)
    return _unquote(f"/{path}")


def _unquote(text: str) -> str:
    """Decode percent escapes as file names are decoded, whatever bytes they hold."""
    return os.fsdecode(unquote_to_bytes(_encode(text)))


def _encode(name: str) -> bytes:
    try:
        return os.fsencode(name)
    except UnicodeEncodeError as error:
        raise PathError(f"{name!r} is no name that a file can have") from error


def to_uri(path: str | os.PathLike[str], *, host: str = "localhost") -> str:
    """Return the ``file:`` URI of a local path, percent-encoded.

    ``from_uri(to_uri(path))`` is the absolute path again. The host stands where
    ophyd-async puts it; ``host=""`` leaves it out.
    """
    absolute: str = os.path.abspath(os.path.expanduser(os.fspath(path)))
    posix = absolute.replace(os.sep, "/")
    if not posix.startswith("/"):
        posix = f"/{posix}"
    return f"file://{host}{quote_from_bytes(_encode(posix))}"


def child_uri(uri: str, name: str) -> str:
    """Return the URI of an array inside the store at ``uri``, a URI or local path."""
    base = uri if _SCHEME.match(uri) and not _DRIVE.fullmatch(uri[:2]) else to_uri(uri)
    # What was left bare is escaped now: other readers would cut the name there.
    base = base.replace("#", "%23").replace("?", "%3F")
    return f"{base.rstrip('/')}/{quote(name, safe='')}"


@dataclass(frozen=True)
class PathInfo:
    """Where one acquisition goes.

    Attributes
    ----------
    store_uri : str
        URI of the store.
    array_key : str
        What the path was asked for.
    capacity : int
        Frames expected, 0 for as many as come.
    mimetype_hint : str
        Format that the store is meant for.
    extra : Mapping
        Anything else that a writer may want.
    """

    store_uri: str
    array_key: str
    capacity: int = 0
    mimetype_hint: str = "application/x-zarr"
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.store_uri:
            raise PathError("a PathInfo needs the URI of a store")
        if self.capacity < 0:
            raise PathError(f"capacity must be 0 or more, got {self.capacity}")


@runtime_checkable
class FilenameProvider(Protocol):
    """Names a file: returns a stem without extension, which contains the group."""

    def __call__(self, key: str | None = None, group: str | None = None) -> str:
        """Return the stem for what is called ``key`` within ``group``."""
        ...


@runtime_checkable
class PathProvider(Protocol):
    """Says where an acquisition goes."""

    def __call__(self, key: str | None = None, group: str | None = None) -> PathInfo:
        """Return the path for what is called ``key`` within ``group``."""
        ...


def check_name(name: str, what: str) -> str:
    """Return ``name`` if it may be one folder.

    Raises
    ------
    PathError
        It is empty, would lead elsewhere, or no file system takes it.
    """
    if (
        not name
        or name.strip(". ") == ""
        or name == "zarr.json"
        or any(character in name for character in "/\\\0")
        or len(_encode(name)) > 200
    ):
        raise PathError(
            f"{what} {name!r} cannot name a folder: use at most 200 bytes without '/', "
            "'\\' or NUL, not only dots, and not 'zarr.json'"
        )
    return name


def reserve_folder(parent: Path, stem: Callable[[int], str], start: int) -> Path:
    """Create the first of the folders ``parent / stem(n)`` that is not there.

    Creating it is the reservation: of two processes that ask at once, each gets one.
    """
    number = start
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder = parent / stem(number)
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        raise write_error("a new folder", parent, error) from error


class SessionPathProvider:
    """Numbered folders ``<base>/<session>/<YYYY_MM_DD>/<key>[_<group>]_<number>``.

    The folder is created when it is asked for, which reserves its number on disk: two
    processes never get the same one. Numbers are the highest of the day plus one, each
    key and group on its own.

    Parameters
    ----------
    base_dir
        Base folder; ``~`` is expanded and a relative path made absolute.
    session
        Name of the session, one folder.
    max_digits
        Width of the number; a number that needs more digits takes them.
    mimetype_hint, capacity
        Passed on in every :class:`PathInfo`.
    """

    def __init__(
        self,
        base_dir: str | os.PathLike[str] = DEFAULT_BASE,
        session: str = "default",
        max_digits: int = 5,
        mimetype_hint: str = "application/x-zarr",
        capacity: int = 0,
    ) -> None:
        if max_digits < 1:
            raise PathError(f"max_digits must be 1 or more, got {max_digits}")
        self.max_digits = max_digits
        self.mimetype_hint = mimetype_hint
        self.capacity = capacity
        self._session = check_name(session, "the session")
        self.base_dir = base_dir

    @property
    def base_dir(self) -> Path:
        """Base folder, absolute; the session's folder is created when it is set."""
        return self._base_dir

    @base_dir.setter
    def base_dir(self, value: str | os.PathLike[str]) -> None:
        self._base_dir = Path(value).expanduser().absolute()
        self._make_session()

    @property
    def session(self) -> str:
        """Name of the session; the folder is created when it is set."""
        return self._session

    @session.setter
    def session(self, value: str) -> None:
        self._session = check_name(value, "the session")
        self._make_session()

    def _make_session(self) -> None:
        folder = self._base_dir / self._session
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error("a session", folder, error) from error

    def __call__(self, key: str | None = None, group: str | None = None) -> PathInfo:
        """Reserve the next folder for ``key`` and ``group``.

        Raises
        ------
        PathError
            A name that would lead out of the session.
        StoreWriteError
            The folder cannot be created.
        """
        key = check_name("default" if key is None else key, "the key")
        stem = key if group is None else f"{key}_{check_name(group, 'the group')}"
        day = self.base_dir / self.session / f"{date.today():%Y_%m_%d}"
        folder = reserve_folder(
            day,
            lambda number: f"{stem}_{number:0{self.max_digits}d}",
            self._highest(day, stem) + 1,
        )
        return PathInfo(
            store_uri=to_uri(folder, host=""),
            array_key=key,
            capacity=self.capacity,
            mimetype_hint=self.mimetype_hint,
        )

    def _highest(self, day: Path, stem: str) -> int:
        """Return the highest number in use for a stem, -1 for none."""
        # A longer run of digits is a date or a serial number, no count of ours; one
        # digit more than the width is what a full counter grows into.
        pattern = re.compile(
            re.escape(stem) + r"_([0-9]{1," + str(self.max_digits + 1) + r"})"
        )
        try:
            with os.scandir(day) as entries:
                names = [entry.name for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return -1
        except OSError as error:
            raise StoreWriteError(
                f"cannot look into {str(day)!r}: {os.strerror(error.errno or 0)}",
                errno=error.errno,
                filename=str(day),
            ) from error
        found = (pattern.fullmatch(_SUFFIXES.sub("", name)) for name in names)
        return max((int(match[1]) for match in found if match), default=-1)


class AcquisitionPathProvider:
    """Folders ``<base>/<YYYY_MM_DD>/<name>`` that people can read.

    Parameters
    ----------
    base
        Base folder.

    Notes
    -----
    Called with the name of the acquisition as ``key``, such as ``"en_scan_00214"``; a
    folder that exists gets ``_2`` and so on. Without a name the folder is
    ``acquisition_<number>``, the highest of the day plus one.
    """

    def __init__(self, base: str | os.PathLike[str]) -> None:
        self.base = Path(base).expanduser().absolute()
        # Nothing is created before the first acquisition.
        self._numbered: SessionPathProvider | None = None

    def __call__(self, key: str | None = None, group: str | None = None) -> PathInfo:
        """Reserve the folder of an acquisition."""
        if key is None:
            if self._numbered is None:
                self._numbered = SessionPathProvider(self.base.parent, self.base.name)
            info = self._numbered("acquisition", group)
            # One form of URI for all acquisitions of a store.
            return replace(info, store_uri=to_uri(from_uri(info.store_uri)))
        stem = check_name(key, "the acquisition")
        if group is not None:
            stem = f"{stem}_{check_name(group, 'the group')}"
        day = self.base / f"{date.today():%Y_%m_%d}"
        folder = reserve_folder(
            day,
            lambda number: stem if number == 1 else f"{stem}_{number}",
            # A folder of that name is rare; then the day is looked through once.
            _highest_copy(day, stem) + 1 if (day / stem).exists() else 1,
        )
        return PathInfo(store_uri=to_uri(folder), array_key=stem)


def _highest_copy(day: Path, stem: str) -> int:
    """Return the highest number behind a name, 1 for the name alone."""
    pattern = re.compile(re.escape(stem) + r"_([2-9]|[1-9][0-9]{1,8})")
    found = (pattern.fullmatch(name) for name in os.listdir(day))
    return max((int(match[1]) for match in found if match), default=1)
