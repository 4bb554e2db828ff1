"""Files that documents refer to and that lie beside a beamtime's own folders."""

from __future__ import annotations

import os
import sqlite3
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from bluesky_beamtime.database.resource_places import alike
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
    uid: str
    values: Mapping[str, str]
    """What its columns say there."""
    outside: bool
    """Whether that is for files from outside of the beamtime's folder."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a path leads to."""

    name: str
    path: Path
    outside: bool


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
        Names of files and folders that a copy has already, from earlier. They are
        referred to then, although they are missing here.
    """

    def __init__(
        self,
        folder: Path,
        own: tuple[str, ...],
        outside: str,
        held: Collection[str],
    ) -> None:
        self._folder = folder
        self._own = own
        self._outside = outside
        self._held = held
        self._held_sorted: list[str] | None = None
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
                if name not in self._held and not os.path.exists(self._folder / name):
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
            self._moves.append(
                Move("stream_resources", uid, {"uri": quote(name)}, outside=True)
            )

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
        reason: Reason = "refused"
        for text in _readings(root, path):
            found = self._place(text)
            if found is None:
                continue
            if self._is_own(found.name) or self._add(found.name, found.path):
                break
            if self._holds(found.name):
                break
            reason = "missing"
        else:
            self._leave(os.path.join(root, path), run, reason)
            return
        values = self._moved(root, path, found.name, outside=found.outside)
        if values:
            self._moves.append(Move("resources", uid, values, found.outside))

    def _place(self, text: str) -> _Found | None:
        """Return where a path leads to, None if it is not followed."""
        try:
            full = _plain(os.path.join(self._folder, text))
        except (PathError, ValueError):
            return None
        inside = relative_to(full, self._folder)
        if inside is not None:
            return _Found(inside.as_posix(), self._folder / inside, outside=False)
        # Against which folder it was meant, nobody knows; and what holds all of this
        # is no file of a detector.
        if not os.path.isabs(text) or self._folder.is_relative_to(full):
            return None
        return _Found(self._name_outside(full), full, outside=True)

    def _moved(
        self, root: str, path: str, name: str, *, outside: bool
    ) -> dict[str, str]:
        """Return what the columns have to say for a copy to find a name."""
        if not os.path.isabs(path) and ".." not in f"{root}/{path}".split("/"):
            if not os.path.isabs(root):
                return {}
            if outside:
                # Where a root goes, its paths follow.
                return {"root": self._name_outside(Path(os.path.normpath(root)))}
        top = self._outside if outside else "."
        below = name.removeprefix(f"{top}/") + ("/" if path.endswith("/") else "")
        return {"root": top, "resource_path": below}

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
        name = self._name_outside(path)
        if self._folder.is_relative_to(path):
            self._leave(uri, run, "refused")
            return None
        if self._add(name, path):
            return name
        if name in self._held:
            return name
        self._leave(uri, run, "missing")
        return None

    def _name_outside(self, path: Path) -> str:
        return f"{self._outside}/{path.as_posix().strip('/')}".rstrip("/")

    def _holds(self, name: str) -> bool:
        """Say whether a copy has this, or files whose names begin so."""
        if self._held_sorted is None:
            self._held_sorted = sorted(self._held)
        first = bisect_left(self._held_sorted, name)
        for other in islice(self._held_sorted, first, None):
            if not other.startswith(name):
                return False
            if "/" not in other.removeprefix(name):
                return True
        return False

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
        others = list(alike(path))
        for other in others:
            beside = os.path.join(os.path.dirname(name), other.name)
            if not self._is_own(beside):
                self._assets[beside] = other
        return bool(others)

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
    plain = os.path.realpath if ".." in path.parts else os.path.normpath
    return Path(plain(path))


def _readings(root: str, path: str) -> Iterator[str]:
    """Yield the ways in which readers join a path to its root, the usual one first."""
    yield os.path.join(root, path)
    if root and path.startswith("/"):
        # Some take all paths for relative ones.
        yield os.path.join(root, path.lstrip("/"))
