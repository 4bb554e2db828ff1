"""Files that documents refer to and that lie beside a beamtime's own folders."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from bluesky_beamtime.database.uris import is_relative, relative_to
from bluesky_beamtime.errors import PathError
from bluesky_beamtime.storage import from_uri
from bluesky_beamtime.storage.layout import METADATA_FILE

Reason = Literal["remote", "missing", "refused"]


@dataclass(frozen=True, slots=True)
class Asset:
    """A file or folder that documents refer to."""

    name: str
    """Where it belongs in a copy, relative to the copy of the database."""
    path: Path
    """Where it is."""


@dataclass(frozen=True, slots=True)
class Absent:
    """What a document refers to and a copy cannot have."""

    uri: str
    """URI, or path, as the document has it."""
    run: str
    """Uid of a run that refers to it."""
    reason: Reason
    """``remote``: on another machine, where it stays; ``missing``: it should be here
    and is not; ``refused``: nobody follows such a path."""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.uri} is {_SENTENCES[self.reason]} (run {self.run[:8]})"


_SENTENCES = {
    "remote": "elsewhere and stays there",
    "missing": "not there",
    "refused": "no place that is followed: it leads out of the folder, or holds it",
}


@dataclass(frozen=True, slots=True)
class Move:
    """A row that has to name another place in a copy of the database."""

    table: Literal["stream_resources", "resources"]
    column: Literal["uri", "root"]
    uid: str
    value: str


@dataclass(frozen=True, slots=True)
class References:
    """All that documents refer to besides the beamtime's own folders."""

    assets: tuple[Asset, ...]
    """Files and folders, none inside another, sorted by name."""
    absent: tuple[Absent, ...]
    """What is not among them, each place once."""
    moves: tuple[Move, ...]
    """What a copy of the database has to say instead."""


class AssetFinder:
    """Looks through the documents of a database for files.

    What lies in the folder of the database keeps its place there. What lies outside
    goes to ``<outside>/<its path>``, so that equal names stay apart and a later copy
    finds it at the same place.

    Parameters
    ----------
    folder
        Folder of the database, without links.
    own
        Names in it whose content is part of every copy.
    outside
        Name of the folder that a copy has for what lies elsewhere.
    held
        Says whether a copy has something of this name already, from earlier. It is
        referred to then, although it is missing here.
    """

    def __init__(
        self,
        folder: Path,
        own: tuple[str, ...],
        outside: str,
        held: Callable[[str], bool],
    ) -> None:
        self._folder = folder
        self._own = own
        self._outside = outside
        self._held = held
        self._assets: dict[str, Path] = {}
        self._absent: dict[str, Absent] = {}
        self._moves: list[Move] = []
        self._lost: dict[str, tuple[str, str]] = {}

    def look(self, database: sqlite3.Connection) -> References:
        """Return what the documents of a database refer to."""
        for uid, run, uri in database.execute(
            "SELECT uid, run_uid, uri FROM stream_resources ORDER BY rowid"
        ):
            self._look_at_stream(uid, run, uri)
        for uid, run, root, path in database.execute(
            "SELECT uid, run_uid, root, resource_path FROM resources ORDER BY rowid"
        ):
            if isinstance(path, str):
                self._look_at_legacy(uid, run, root or "", path)
        if self._lost:
            # What nothing was ever promised of need not be there.
            promised = "SELECT DISTINCT stream_resource FROM stream_datums"
            for (uid,) in database.execute(promised):
                if uid in self._lost:
                    self._leave(*self._lost[uid], "missing")
        return References(
            assets=tuple(self._topmost()),
            absent=tuple(self._absent.values()),
            moves=tuple(self._moves),
        )

    # -------------------------------------------------------------- stream resources

    def _look_at_stream(self, uid: str, run: str, uri: str) -> None:
        if is_relative(uri):
            name = os.path.normpath(unquote(uri))
            if self._is_own(name):
                if not self._held(name) and not os.path.exists(self._folder / name):
                    self._lost[uid] = uri, run
            else:
                self._look_inside(unquote(uri), uri, run)
            return
        path = self._local(uri)
        if path is None:
            self._leave(uri, run, "remote")
            return
        name = self._look_outside(path, uri, run)
        if name is not None:
            self._moves.append(Move("stream_resources", "uri", uid, quote(name)))

    @staticmethod
    def _local(uri: str) -> Path | None:
        """Return the path of a URI, None if it is not of this machine."""
        if uri[:5].lower() != "file:":
            return None
        try:
            return _plain(from_uri(uri))
        except (PathError, ValueError):
            return None

    # -------------------------------------------------------------- legacy resources

    def _look_at_legacy(self, uid: str, run: str, root: str, path: str) -> None:
        text = os.path.join(root, path)
        if not os.path.isabs(text):
            self._look_inside(text, text, run)
            return
        # Only as written: where a root goes, its paths have to follow.
        full, base = os.path.normpath(text), os.path.normpath(root or "/")
        if "\0" in full or not Path(full).is_relative_to(base):
            self._leave(text, run, "refused")
            return
        name = self._look_outside(Path(full), text, run)
        if name is not None and root:
            moved = f"{self._outside}/{base.strip('/')}".rstrip("/")
            self._moves.append(Move("resources", "root", uid, moved))

    # ------------------------------------------------------------------------ places

    def _look_inside(self, text: str, uri: str, run: str) -> None:
        """Note what lies in the folder of the database."""
        name = os.path.normpath(text)
        if self._is_own(name):
            return
        path = self._folder / name
        if ".." in text.split("/") or relative_to(path, self._folder) is None:
            self._leave(uri, run, "refused")
        elif not self._add(name, path):
            self._leave(uri, run, "missing")

    def _is_own(self, name: str) -> bool:
        return any(name == own or name.startswith(f"{own}/") for own in self._own)

    def _look_outside(self, path: Path, uri: str, run: str) -> str | None:
        """Note what lies elsewhere; return its name in a copy."""
        name = f"{self._outside}/{path.as_posix().strip('/')}"
        if self._folder == path or self._folder.is_relative_to(path):
            self._leave(uri, run, "refused")
            return None
        if self._add(name, path):
            return name
        if self._held(name):
            return name
        self._leave(uri, run, "missing")
        return None

    def _leave(self, uri: str, run: str, reason: Reason) -> None:
        self._absent.setdefault(uri, Absent(uri, run, reason))

    def _add(self, name: str, path: Path) -> bool:
        if name in self._assets:
            return True
        try:
            # Neither a link to nothing nor a device, which has no end.
            found = path.is_file() or path.is_dir()
            if found and (path.parent / METADATA_FILE).is_file():
                # The group of an array: what devices said of themselves is there.
                above = f"{os.path.dirname(name)}/{METADATA_FILE}"
                if (path / METADATA_FILE).is_file():
                    self._assets[above] = path.parent / METADATA_FILE
        except (OSError, ValueError):
            return False
        if found:
            self._assets[name] = path
            return True
        # Some old resources name the beginning that several files have in common.
        alike = list(_alike(path))
        for other in alike:
            self._assets[f"{os.path.dirname(name)}/{other.name}"] = other
        return bool(alike)

    def _topmost(self) -> Iterator[Asset]:
        """Yield what does not lie in another one's folder, in order."""
        for name in sorted(self._assets):
            above = name
            while above := os.path.dirname(above):
                if above in self._assets:
                    break
            else:
                yield Asset(name, self._assets[name])


def _plain(text: str) -> Path:
    if "\0" in text:
        raise PathError(f"{text!r} is no path")
    path = Path(text)
    return path.resolve() if ".." in path.parts else Path(os.path.normpath(path))


def _alike(path: Path) -> Iterator[Path]:
    """Yield the files whose names begin like this one."""
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                if path.name and entry.name.startswith(path.name) and entry.is_file():
                    yield Path(entry.path)
    except OSError:
        return
