"""From the buffer of a scan to its file: Zarr, .npz or HDF5, none with pickles."""

from __future__ import annotations

import errno
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bluesky_beamtime.errors import MissingExtraError, PathError
from bluesky_beamtime.storage.files import sync_file, sync_folder, write_error
from bluesky_beamtime.storage.scan_buffer import ScanBuffer
from bluesky_beamtime.storage.scan_tags import usable_tags
from bluesky_beamtime.storage.scan_values import Axes


def save_scan(buffer: ScanBuffer, axes: Axes, kind: str) -> None:
    """Make the file of a scan out of its buffer, whole or not at all.

    The file takes its name when all of it is on disk, where it survives a power cut,
    and never that of another file. Blocks; the data pass through memory 16 MB at a
    time, or a frame if that is larger.

    Raises
    ------
    PathError
        There is a file of that name.
    StoreWriteError
        The disk refused; the buffer is kept.
    """
    tags = usable_tags(buffer.tags)
    work = buffer.place.workshop / f"scan{buffer.place.target.suffix}"
    try:
        buffer.check_place()
        if work.is_file():
            # Of an earlier try; the target may be the same file under another name.
            work.unlink()
        if kind == "zarr":
            _to_zarr(buffer, axes, tags)
        elif kind == "npz":
            _to_npz(work, buffer, axes, tags)
        else:
            _to_hdf5(work, buffer, axes, tags)
        # Moved since, what was read from it are fill values.
        buffer.check_place()
        _publish(work, buffer.place.target)
    except OSError as error:
        if isinstance(error, PathError):
            raise
        raise write_error("a scan", buffer.place.target, error) from error
    buffer.release()


_SLAB = 16 << 20
# What a file system says that has no hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def _publish(work: Path, target: Path) -> None:
    try:
        if work.is_dir():
            _rename(work, target)
        else:
            try:
                # A rename would replace what is there; a link does not.
                os.link(work, target)
            except FileExistsError:
                raise
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                _rename(work, target)
        sync_folder(target.parent)
    except FileExistsError:
        raise PathError(
            f"{str(target)!r} appeared while the scan was taken; move it away and "
            f"retry(): the data are in {str(work.parent)!r}"
        ) from None


def _rename(work: Path, target: Path) -> None:
    """Rename, unless there is something of that name.

    The workshop keeps the name from every other ScanStorage; another program has no
    more than the moment between the two calls.
    """
    if target.exists():
        raise FileExistsError
    os.rename(work, target)


def _mask(buffer: ScanBuffer) -> NDArray[np.bool_]:
    return np.zeros((), bool) if buffer.mask is None else buffer.mask


def _to_zarr(buffer: ScanBuffer, axes: Axes, tags: Mapping[str, Any]) -> None:
    buffer.write_axes(axes)
    buffer.write_mask()
    buffer.group.attrs["tags"] = dict(tags)
    for folder, _, names in os.walk(buffer.store):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def _to_npz(
    work: Path, buffer: ScanBuffer, axes: Axes, tags: Mapping[str, Any]
) -> None:
    text = orjson.dumps(tags, option=orjson.OPT_NON_STR_KEYS).decode()
    small = {f"axis_{number}": axis for number, axis in enumerate(axes)}
    small |= {"mask": _mask(buffer), "tags": np.array(text)}
    with zipfile.ZipFile(work, "w", allowZip64=True) as archive:
        with archive.open("data.npy", "w", force_zip64=True) as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(buffer.dtype),
                "fortran_order": False,
                "shape": buffer.shape,
            }
            np.lib.format.write_array_header_2_0(file, header)
            for _, slab in _slabs(buffer.array):
                file.write(np.ascontiguousarray(slab).tobytes())
        for name, values in small.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
    sync_file(work)


def _to_hdf5(
    work: Path, buffer: ScanBuffer, axes: Axes, tags: Mapping[str, Any]
) -> None:
    h5py = need_h5py()
    with h5py.File(work, "w") as file:
        data = file.create_dataset("data", buffer.shape, buffer.dtype)
        for place, slab in _slabs(buffer.array):
            data[place] = slab
        for number, axis in enumerate(axes):
            file[f"axis_{number}"] = axis
        file["mask"] = _mask(buffer)
        file["tags"] = orjson.dumps(tags).decode()
    sync_file(work)


def need_h5py() -> Any:
    """Return h5py.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("saving scans as HDF5", "h5py", "hdf5") from error
    return h5py


def _slabs(array: Any) -> Iterator[tuple[tuple[int | slice, ...], NDArray[Any]]]:
    """Yield pieces in C order with their places: ~16 MB, but no less than a frame."""
    shape: tuple[int, ...] = tuple(array.shape)
    axis, size = 0, int(array.dtype.itemsize) * math.prod(shape[1:])
    # Each piece of a frame would decompress all of its chunks.
    last = len(shape) - (3 if len(shape) > 2 else 1)
    while size > _SLAB and axis < last:
        axis += 1
        size //= shape[axis]
    if not shape:
        yield (), np.asarray(array[...])
        return
    rows = max(1, _SLAB // max(size, 1))
    for outer in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], rows):
            place = (*outer, slice(start, min(start + rows, shape[axis])))
            yield place, np.asarray(array[place])
