"""A local store and its copy in a backend, which is brought up to date by walks."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import BackendError, StorageError, StoreReadError
from bluesky_beamtime.storage.backends.keys import join_key
from bluesky_beamtime.storage.layout import METADATA_FILE, ArrayLayout
from bluesky_beamtime.storage.remote_array import Remote, RemoteArray


class RemoteStore:
    """The copy of a store: its groups, its arrays, and at the end all else.

    Not thread-safe, but for reading the attributes.

    Parameters
    ----------
    path
        Folder of the local store; it need not exist yet.
    remote
        Where the copy goes.

    Attributes
    ----------
    arrays : dict of str to RemoteArray
        The arrays that were met, by path in the store.
    lengths : dict of str to int
        Their published frames.
    """

    def __init__(self, path: Path, remote: Remote) -> None:
        self.path = path
        self.arrays: dict[str, RemoteArray] = {}
        self.lengths: dict[str, int] = {}
        self._remote = remote
        # What was sent last under each key, to leave alone what has not changed.
        self._sent: dict[str, Any] = {}

    def update(self, *, final: bool) -> None:
        """Go once through the store and upload what is new.

        What is wrong with one array does not keep the others from being uploaded; a
        backend that fails does.

        Parameters
        ----------
        final
            Upload also what is not finished: last shards, other arrays, other files.

        Raises
        ------
        BackendError
            The backend failed.
        StorageError
            What was wrong first with an array or file of the store.
        """
        problems: list[OSError] = []
        first: StorageError | None = None
        last: list[tuple[str, bytes]] = []
        for folder, key, names in self._folders(problems):
            try:
                self._look_at(folder, key, names, final, last)
            except BackendError:
                raise
            except StorageError as error:
                first = first or error
            except OSError as error:
                problems.append(error)
        for error in problems:
            # Before the end, the store need not be there yet.
            absent = error.filename == str(self.path) and error.errno == errno.ENOENT
            if final or not absent:
                first = first or self._unreadable(error)
        if final:
            for key, raw in reversed(last):
                self._send(key, raw)
        if first is not None:
            raise first

    def _unreadable(self, error: OSError) -> StoreReadError:
        where = str(error.filename or self.path)
        return StoreReadError(
            f"cannot read {where!r}: {os.strerror(error.errno or 0)}; it was not "
            "copied",
            errno=error.errno,
            filename=where,
        )

    def _folders(
        self, problems: list[OSError]
    ) -> Iterator[tuple[Path, str, list[str]]]:
        """Yield folder, key and file names, those above first; hidden ones are left."""
        for folder, below, names in os.walk(self.path, onerror=problems.append):
            below[:] = sorted(name for name in below if not name.startswith("."))
            inside = os.path.relpath(folder, self.path).replace(os.sep, "/")
            key = join_key(self._remote.prefix, "" if inside == "." else inside)
            yield Path(folder), key, [name for name in names if name[0] != "."]

    def _look_at(
        self,
        folder: Path,
        key: str,
        names: list[str],
        final: bool,
        last: list[tuple[str, bytes]],
    ) -> None:
        metadata_key = join_key(key, METADATA_FILE)
        raw = b""
        if METADATA_FILE in names:
            names.remove(METADATA_FILE)
            raw = (folder / METADATA_FILE).read_bytes()
            metadata = _parse(raw, folder)
            if metadata.get("node_type") == "group":
                self._send(metadata_key, raw)
            else:
                layout = _layout(metadata, folder)
                if layout is not None:
                    self._push_array(folder, key, layout, raw, metadata, final)
                    return
                # An array of somebody else: its metadata follows its chunks.
                last.append((metadata_key, raw))
        if final:
            for name in names:
                self._send_file(folder / name, join_key(key, name))

    def _push_array(
        self,
        folder: Path,
        key: str,
        layout: ArrayLayout,
        raw: bytes,
        metadata: dict[str, Any],
        final: bool,
    ) -> None:
        name = os.path.relpath(folder, self.path)
        self.lengths[name] = length = int(metadata["shape"][0])
        array = self.arrays.get(name)
        if array is None:
            array = RemoteArray(folder, layout, self._remote, key)
            array.resume(length)
            # Replaced as a whole: other threads ask for the progress.
            self.arrays = {**self.arrays, name: array}
        if final or self._sent.get(key) != raw:
            array.push(raw, final=final)
            self._sent[key] = raw

    def _send(self, key: str, raw: bytes) -> None:
        if self._sent.get(key) != raw:
            self._remote.put(key, raw)
            self._sent[key] = raw

    def _send_file(self, path: Path, key: str) -> None:
        found = path.stat()
        state = (found.st_size, found.st_mtime_ns)
        if self._sent.get(key) != state:
            self._remote.put_file(key, path)
            self._sent[key] = state


def _parse(raw: bytes, folder: Path) -> dict[str, Any]:
    try:
        metadata: Any = json.loads(raw)
    except ValueError as error:
        raise StoreReadError(
            f"{str(folder / METADATA_FILE)!r} is damaged: it is no JSON; "
            "repair_store() can write it anew"
        ) from error
    return metadata


def _layout(metadata: dict[str, Any], folder: Path) -> ArrayLayout | None:
    try:
        return ArrayLayout.from_json(metadata, str(folder))
    except StoreReadError:
        return None
