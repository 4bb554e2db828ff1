"""Arrays inside events, written to the Zarr store before their event is committed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bluesky_beamtime.database.encoding import ArrayReference
from bluesky_beamtime.database.kinds import is_array, is_mapping
from bluesky_beamtime.database.rows import column_text
from bluesky_beamtime.errors import FrameMismatchError, StorageError, StoreStateError
from bluesky_beamtime.storage import (
    FolderLock,
    ShardedArray,
    create_group,
    quote_name,
)
from bluesky_beamtime.storage.files import make_folder, write_error

# Each open array holds a file open; waveforms of many lengths make many arrays.
_MOST_OPEN = 32
_COMPRESSION = "none"

# field, Zarr path, index, width, height, shape, dtype, codec: see the table image_refs.
ImageRef = tuple[str, str, int, int | None, int | None, str, str, str]


@dataclass(frozen=True, slots=True)
class StoredData:
    """The data of an event, its arrays replaced by references."""

    data: dict[str, Any]
    images: list[ImageRef]


class EventArrays:
    """Writes the arrays of one run's events to ``runs/<run uid>/<stream>/<field>``.

    An array that differs in dtype or shape from what its field's array holds goes to
    another one, ``<field>.1`` and so on.

    Parameters
    ----------
    store
        Root of the Zarr store.
    run_uid
        The run.
    power
        Fsync each array before its event may be committed.
    """

    def __init__(self, store: Path, run_uid: str, *, power: bool) -> None:
        self._store = store
        self._power = power
        self._run_path = f"runs/{quote_name(run_uid)}"
        self._lock = threading.Lock()
        self._open: OrderedDict[str, ShardedArray] = OrderedDict()
        # (stream, field, dtype, shape) → path of its array
        self._paths: dict[tuple[str, str, str, tuple[int, ...]], str] = {}
        # Lower-case paths in use: the folder may move to a disk that ignores case.
        self._taken: set[str] = set()
        self._groups: set[str] = set()
        # Of arrays without a frame, by their path.
        self._claims: dict[str, FolderLock] = {}

    @staticmethod
    def takes(value: Any) -> bool:
        """Say whether a value of an event goes to the Zarr store.

        Numbers in one or more dimensions do; what Zarr has no form for (text, objects,
        structures, nothing at all) stays in the event.
        """
        return (
            is_array(value)
            and value.ndim > 0
            and value.size > 0
            and value.dtype.kind in "biufc"
            and value.dtype.char not in "gG"
        )

    def write(
        self, stream: str, data: Mapping[str, Any], data_keys: Mapping[str, Any]
    ) -> StoredData:
        """Write the arrays of one event and let readers see them.

        Parameters
        ----------
        stream
            Name of the event's stream.
        data
            Data of the event.
        data_keys
            Those of the event's descriptor.

        Raises
        ------
        StoreWriteError
            The disk refused.
        """
        stored: dict[str, Any] = {}
        images: list[ImageRef] = []
        for field, value in data.items():
            if not self.takes(value):
                stored[field] = value
                continue
            key = data_keys.get(field)
            units = key.get("units") if is_mapping(key) else None
            reference = self._append(stream, field, value, units)
            stored[field] = reference
            images.append(_image_ref(field, reference, value))
        return StoredData(stored, images)

    def write_fitting(
        self, stream: str, field: str, value: np.ndarray[Any, Any], units: Any = None
    ) -> tuple[ArrayReference, ImageRef]:
        """Write one array that must be like those that its field has already.

        Parameters
        ----------
        stream, field
            Names of stream and field.
        value
            What :meth:`takes` accepts.
        units
            Units of a new field.

        Raises
        ------
        FrameMismatchError
            It has another dtype or shape; nothing was written.
        StoreWriteError
            The disk refused.
        """
        with self._lock:
            for known_stream, known_field, dtype, shape in self._paths:
                if (known_stream, known_field) != (stream, field):
                    continue
                if (dtype, shape) != (value.dtype.str, value.shape):
                    raise FrameMismatchError(
                        field,
                        f"{np.dtype(dtype)} {shape}",
                        f"{value.dtype} {value.shape}",
                    )
        reference = self._append(stream, field, value, units)
        return reference, _image_ref(field, reference, value)

    def _append(
        self, stream: str, field: str, value: np.ndarray[Any, Any], units: Any
    ) -> ArrayReference:
        # Zarr has no byte order of its own; the reference remembers it.
        native = np.ascontiguousarray(value, value.dtype.newbyteorder("="))
        with self._lock:
            path, array = self._array_for(stream, field, native, units)
            index = array.append(native)
            array.publish()
            claim = self._claims.pop(path, None)
            if claim is not None:
                # Those who look now see that it holds frames.
                claim.release()
        return ArrayReference(path, index, value.dtype.str)

    def _array_for(
        self, stream: str, field: str, value: np.ndarray[Any, Any], units: Any
    ) -> tuple[str, ShardedArray]:
        key = (stream, field, value.dtype.str, value.shape)
        path = self._paths.get(key)
        if path is None:
            path, array = self._create(stream, field, value, units)
            self._paths[key] = path
        elif path in self._open:
            array = self._open[path]
        else:
            array = ShardedArray.open(self._store / path, power=self._power)
        self._open[path] = array
        self._open.move_to_end(path)
        while len(self._open) > _MOST_OPEN:
            _, oldest = self._open.popitem(last=False)
            oldest.close()
        return path, array

    def _create(
        self, stream: str, field: str, value: np.ndarray[Any, Any], units: Any
    ) -> tuple[str, ShardedArray]:
        group = f"{self._run_path}/{quote_name(stream)}"
        if group not in self._groups:
            create_group(self._store / group, root=self._store, sync=self._power)
            self._groups.add(group)
        attributes = {"data_key": column_text(field)}
        if isinstance(units, str):
            attributes["units"] = column_text(units)
        number = 0
        while True:
            name = quote_name(f"{field}.{number}" if number else field)
            path = f"{group}/{name}"
            number += 1
            if path.casefold() in self._taken:
                continue
            try:
                array = self._create_alone(path, value, attributes)
            except StoreStateError:
                # Another recorder of this run wrote here, or is about to; its frames
                # stay.
                self._taken.add(path.casefold())
                continue
            self._taken.add(path.casefold())
            return path, array

    def _create_alone(
        self, path: str, value: np.ndarray[Any, Any], attributes: dict[str, Any]
    ) -> ShardedArray:
        """Make an array that nobody else takes for an empty one before it is not.

        Raises
        ------
        StoreStateError
            Somebody else has frames there, or makes the array at this moment.
        StoreWriteError
            The disk refused.
        """
        folder = self._store / path
        try:
            make_folder(folder)
            claim = FolderLock(folder)
        except OSError as error:
            raise write_error("an array", folder, error) from error
        try:
            array = ShardedArray.create(
                folder,
                dtype=value.dtype,
                shape=value.shape,
                compression=_COMPRESSION,
                attributes=attributes,
                power=self._power,
            )
        except BaseException:
            claim.release()
            with suppress(OSError):
                # Readers stumble over a folder that is no array.
                os.rmdir(folder)
            raise
        self._claims[path] = claim
        return array

    def sync(self) -> None:
        """Bring everything to the disk itself; called from another thread."""
        for array in tuple(self._open.values()):
            if array.unsynced and not array.closed:
                with suppress(StorageError):
                    array.sync()

    def close(self) -> None:
        """Close the arrays; what could not be brought to the disk is raised once.

        Raises
        ------
        StoreWriteError
            The disk refused.
        """
        failure: StorageError | None = None
        with self._lock:
            while self._open:
                _, array = self._open.popitem()
                try:
                    array.close()
                except StorageError as error:
                    failure = error
            while self._claims:
                self._claims.popitem()[1].release()
        if failure is not None:
            raise failure


def _image_ref(
    field: str, reference: ArrayReference, value: np.ndarray[Any, Any]
) -> ImageRef:
    shape = value.shape
    return (
        column_text(field),
        reference.path,
        reference.index,
        shape[-1],
        shape[-2] if len(shape) > 1 else None,
        orjson.dumps(shape).decode(),
        value.dtype.str,
        _COMPRESSION,
    )
