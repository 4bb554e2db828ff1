"""Frames that were recorded before, one after another, whatever they are kept in."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.devices.recorded_tiffs import SUFFIXES, TiffRecording, tiffs_in
from bluesky_beamtime.errors import SourceError, StoreReadError
from bluesky_beamtime.storage import open_frames

_BLOCK_BYTES = 1 << 26

Frame = NDArray[Any]


class Recording(Protocol):
    """Frames in their order; they are read as they are asked for.

    Attributes
    ----------
    name : str
        Where they are.
    shape : tuple of int
        Shape of a frame.
    dtype : numpy.dtype
        Dtype of a frame, in native byte order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def frames(self) -> Iterator[Frame]:
        """Begin with the first frame; each is valid until the next is asked for.

        Raises
        ------
        BeamtimeError
            One cannot be read.
        """
        ...


def open_recording(path: Any) -> Recording:
    """Return the frames at a path.

    Parameters
    ----------
    path
        A folder of TIFFs, or one of them; an HDF5 file, a Zarr store, an ``.npy`` or an
        ``.npz`` file; or an array whose first axis counts frames, such as those that a
        run gives. Where a file has several, which: ``run.h5:/entry/data/data``,
        ``store.zarr:cam``, ``frames.npz:dark``.

    Raises
    ------
    SourceError
        There are no frames, or several and no choice between them.
    MissingExtraError
        The package that reads them is absent.
    """
    if not isinstance(path, (str, os.PathLike)):
        return ArrayRecording(
            path, str(getattr(path, "name", "") or type(path).__name__)
        )
    whole: str = os.path.expanduser(os.fspath(cast("os.PathLike[str]", path)))
    file, member = _split(whole)
    if file.is_dir():
        if any((file / name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
            return _zarr(file, member)
        found = tiffs_in(file)
        if not found:
            raise SourceError(
                f"folder {str(file)!r} has no TIFF files and is no Zarr store; give a "
                "folder of images, or the store itself"
            )
        return TiffRecording(str(file), found)
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        return TiffRecording(str(file), [file])
    if suffix == ".npy":
        return NpyRecording(file)
    if suffix == ".npz":
        return NpzRecording(file, member)
    return _hdf5(file, member)


def _split(path: str) -> tuple[Path, str]:
    """Return a file, and what is meant in it."""
    file, _, member = path.rpartition(":")
    if os.path.exists(path) or not file:
        file, member = path, ""
    if not os.path.exists(file):
        raise SourceError(
            f"there is nothing to replay at {path!r}; check the path, and what stands "
            "behind a colon"
        )
    return Path(file), member


def _one(where: Path, found: list[str]) -> str:
    """Return the only candidate."""
    if len(found) == 1:
        return found[0]
    if not found:
        raise SourceError(
            f"{str(where)!r} has no frames: no array of numbers with three or more axes"
        )
    shown = ", ".join(f"'{where}:{name}'" for name in sorted(found)[:6])
    more = ", …" if len(found) > 6 else ""
    raise SourceError(f"{str(where)!r} has several arrays; choose one: {shown}{more}")


# ------------------------------------------------------------------- HDF5 and Zarr


def _hdf5(file: Path, dataset: str) -> Recording:
    try:
        if not dataset:
            array = _own_hdf5(file)
            if array is not None:
                return ArrayRecording(array, str(file))
            dataset = _one(file, _datasets(file))
        array = open_frames(file, "application/x-hdf5", {"dataset": dataset})
    except StoreReadError as error:
        raise SourceError(f"cannot replay {str(file)!r}: {error}") from error
    return ArrayRecording(array, f"{file}:{dataset}")


def _own_hdf5(file: Path) -> Any:
    """Return the frames of a file that this package wrote, which may be a killed one.

    None if somebody else wrote it.
    """
    from bluesky_beamtime.storage.hdf5_look import is_ours, opened

    with opened(str(file)) as fd:
        ours = is_ours(fd)
    return open_frames(file, "application/x-hdf5") if ours else None


def _datasets(file: Path) -> list[str]:
    """Return the paths of what may be frames in an HDF5 file."""
    from importlib import import_module

    from bluesky_beamtime.errors import MissingExtraError

    try:
        h5py: Any = import_module("h5py")
    except ImportError as error:
        raise MissingExtraError("replaying HDF5 files", "h5py", "hdf5") from error
    found: dict[str, int] = {}

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "biufc":
            found["/" + name] = len(node.shape or ())

    try:
        with h5py.File(file, "r") as opened:
            opened.visititems(look)
    except OSError as error:
        raise SourceError(
            f"cannot replay {str(file)!r}: it is no TIFF, npy, npz, Zarr or HDF5 "
            f"({error})"
        ) from error
    return [name for name, ndim in found.items() if ndim >= 3]


def _zarr(folder: Path, member: str) -> Recording:
    import zarr

    name = f"{folder}:{member}" if member else str(folder)
    try:
        path = folder / member if member else folder
        node: Any = zarr.open(str(path), mode="r")  # pyright: ignore[reportUnknownMemberType]  # zarr has types, but not for all of its arguments
        if isinstance(node, zarr.Group):
            members: Any = node.members(max_depth=None)
            found = [
                key
                for key, one in members
                if isinstance(one, zarr.Array) and one.ndim >= 3
            ]
            chosen = _one(path, found)
            path, name = path / chosen, f"{path}:{chosen}"
            node = node[chosen]
        # Ours are read by what checks them; version 2 of the format zarr alone knows.
        ours = (path / "zarr.json").exists()
        return ArrayRecording(open_frames(path) if ours else node, name)
    except (StoreReadError, ValueError, KeyError, OSError) as error:
        raise SourceError(f"cannot replay {name!r}: {error}") from error


class ArrayRecording:
    """Frames of an array that is read where it is indexed; a recording.

    Parameters
    ----------
    array
        Anything with ``shape``, ``dtype`` and slices; the first axis counts frames. One
        with two axes or less is a frame itself.
    name
        Where it is.
    """

    def __init__(self, array: Any, name: str) -> None:
        try:
            shape = tuple(int(size) for size in array.shape)
            dtype = np.dtype(array.dtype)
        except (AttributeError, TypeError, ValueError) as error:
            raise SourceError(
                f"{array!r} cannot be replayed: give a path, or an array of frames"
            ) from error
        self.name = name
        self._array = array if len(shape) > 2 else array[None]
        self._count = shape[0] if len(shape) > 2 else 1
        self.shape = shape[1:] if len(shape) > 2 else shape
        self.dtype = dtype.newbyteorder("=")

    def frames(self) -> Iterator[Frame]:
        """Begin with the first frame.

        What lies in one chunk is read at once, up to 64 MiB.
        """
        size = self.dtype.itemsize * math.prod(self.shape)
        most = max(1, _BLOCK_BYTES // max(size, 1))
        block = max(1, min(_frames_per_chunk(self._array), most))
        for first in range(0, self._count, block):
            rows = np.asarray(self._array[first : first + block]).astype(
                self.dtype, copy=False
            )
            yield from rows


def _frames_per_chunk(array: Any) -> int:
    """Return how many frames are read together at the least; 1 if nobody knows."""
    chunks: Any = getattr(array, "chunk_shape", None) or getattr(array, "chunks", None)
    try:
        # Dask tells the sizes of all chunks along an axis.
        return int(np.ravel(chunks[0])[0])
    except (TypeError, IndexError, ValueError):
        return 1


# ----------------------------------------------------------------------- NumPy files


class NpyRecording:
    """Frames of an ``.npy`` file; a recording.

    They are read into memory of their own, and not mapped: a map would fill the memory
    of the process with the file.
    """

    def __init__(self, file: Path) -> None:
        self.name = str(file)
        self._file = file
        with file.open("rb") as opened:
            self._header = _Header(self.name, opened)
        self.shape, self.dtype = (
            self._header.frame,
            self._header.dtype.newbyteorder("="),
        )

    def frames(self) -> Iterator[Frame]:
        """Begin with the first frame."""
        if self._header.fortran:
            yield from self._strided()
            return
        with self._file.open("rb") as opened:
            opened.seek(self._header.offset)
            yield from self._header.frames(opened)

    def _strided(self) -> Iterator[Frame]:
        for number in range(self._header.count):
            # Mapped anew for each frame, so that the map does not grow.
            array: Any = np.load(self._file, mmap_mode="r")
            rows = array if array.ndim > 2 else array[None]
            yield np.array(rows[number], self.dtype, order="C")


class NpzRecording:
    """Frames of an array in an ``.npz`` file; a recording."""

    def __init__(self, file: Path, member: str) -> None:
        self._file = file
        try:
            with zipfile.ZipFile(file) as archive:
                names = [n[:-4] for n in archive.namelist() if n.endswith(".npy")]
                if member and member not in names:
                    raise SourceError(
                        f"{str(file)!r} has no array {member!r}; it has "
                        f"{', '.join(names) or 'none'}"
                    )
                if not member and len(names) > 1:
                    names = [n for n in names if self._look(archive, n).many]
                self._member = member or _one(file, names)
                self.name = f"{file}:{self._member}"
                self._header = self._look(archive, self._member)
        except zipfile.BadZipFile as error:
            raise SourceError(f"{str(file)!r} is no npz file: {error}") from error
        if self._header.fortran:
            raise SourceError(
                f"the array {self.name!r} is in Fortran order, in which frames cannot "
                "be read one by one; save it in C order, or as npy"
            )
        self.shape = self._header.frame
        self.dtype = self._header.dtype.newbyteorder("=")

    def _look(self, archive: zipfile.ZipFile, name: str) -> _Header:
        with archive.open(f"{name}.npy") as opened:
            return _Header(f"{self._file}:{name}", opened)

    def frames(self) -> Iterator[Frame]:
        """Begin with the first frame."""
        try:
            with (
                zipfile.ZipFile(self._file) as archive,
                archive.open(f"{self._member}.npy") as opened,
            ):
                opened.read(self._header.offset)
                yield from self._header.frames(opened)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise SourceError(f"{self.name!r} is damaged: {error}") from error


class _Header:
    """What stands before the data of an array in NumPy's format."""

    def __init__(self, name: str, opened: Any) -> None:
        lib = np.lib.format
        try:
            version = lib.read_magic(opened)
            read = (
                lib.read_array_header_1_0
                if version == (1, 0)
                else lib.read_array_header_2_0
            )
            shape, self.fortran, self.dtype = read(opened)
        except (ValueError, KeyError) as error:
            raise SourceError(
                f"{name!r} is no file of NumPy's: {error}; make it with numpy.save()"
            ) from error
        if self.dtype.hasobject or self.dtype.kind not in "biufc":
            raise SourceError(f"{name!r} holds {self.dtype}, not numbers")
        self.name = name
        self.offset = int(opened.tell())
        self.many = len(shape) > 2
        self.count = shape[0] if self.many else 1
        self.frame = tuple(shape[1:] if self.many else shape)

    def frames(self, opened: Any) -> Iterator[Frame]:
        """Read one frame after the other."""
        size = self.dtype.itemsize * math.prod(self.frame)
        native = self.dtype.newbyteorder("=")
        for number in range(self.count):
            data = _read_all(opened, size)
            if len(data) < size:
                raise SourceError(
                    f"{self.name!r} is cut short: frame {number} of {self.count} is "
                    "not there"
                )
            frame = np.frombuffer(data, self.dtype).reshape(self.frame)
            yield frame.astype(native, copy=False)


def _read_all(opened: Any, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = opened.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts) if len(parts) != 1 else parts[0]
