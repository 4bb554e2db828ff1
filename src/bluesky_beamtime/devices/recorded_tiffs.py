"""Frames out of TIFF files, one after another."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import MissingExtraError, SourceError

SUFFIXES = (".tif", ".tiff")
"""How the names of TIFF files end, in small letters."""


def tiffs_in(folder: Path) -> list[Path]:
    """Return the TIFF files of a folder, ``img_2.tif`` before ``img_10.tif``."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in names by their value."""
    parts = re.split(r"(\d+)", name.casefold())
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part)
        for part in parts
        if part
    ]


class TiffRecording:
    """Frames of TIFF files, of one page or many; a recording.

    Parameters
    ----------
    name
        Where they are.
    files
        The files, in order.
    """

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name = name
        self._files = list(files)
        self._tifffile = _tifffile()
        first = next(self._pages(self._files[0]), None)
        if first is None:
            raise SourceError(f"{str(self._files[0])!r} has no image in it")
        self.shape = first.shape
        self.dtype = first.dtype

    def frames(self) -> Iterator[NDArray[Any]]:
        """Begin with the first page of the first file."""
        for file in self._files:
            for page, frame in enumerate(self._pages(file)):
                if frame.shape != self.shape or frame.dtype != self.dtype:
                    raise SourceError(
                        f"page {page} of {str(file)!r} is {frame.dtype} {frame.shape}, "
                        f"and those before are {self.dtype} {self.shape}; replay "
                        "images of one kind, from a folder of their own"
                    )
                yield frame

    def _pages(self, file: Path) -> Iterator[NDArray[Any]]:
        try:
            with self._tifffile.TiffFile(file) as tiff:
                with _Complaints() as complaints:
                    len(tiff.pages)  # looks for all of them
                    found = tiff.series
                complaints.check(file)
                for series in found:
                    # Others are thumbnails, labels, tables.
                    if _kind(series) == _kind(found[0]):
                        yield from self._series(file, series)
        except (OSError, IndexError, self._tifffile.TiffFileError) as error:
            raise SourceError(
                f"cannot replay the TIFF file {str(file)!r}: {error}"
            ) from error
        except (ValueError, RuntimeError) as error:
            if "imagecodecs" in str(error):
                raise MissingExtraError(
                    f"the compressed TIFF file {str(file)!r}", "imagecodecs"
                ) from error
            raise SourceError(
                f"cannot replay the TIFF file {str(file)!r}: {error}"
            ) from error

    def _series(self, file: Path, series: Any) -> Iterator[NDArray[Any]]:
        count = math.prod(series.shape) // math.prod(series.keyframe.shape)
        if series.dataoffset is not None and len(series.pages) == 1 < count:
            # Some programs write many images and one page that stands for all.
            yield from self._contiguous(file, series)
            return
        for number, page in enumerate(series.pages):
            if page is None:
                raise SourceError(f"page {number} of {str(file)!r} is not there")
            yield _native(page.asarray())

    @staticmethod
    def _contiguous(file: Path, series: Any) -> Iterator[NDArray[Any]]:
        shape = tuple(series.keyframe.shape)
        dtype = np.dtype(series.dtype).newbyteorder(series.parent.byteorder)
        size = math.prod(shape)
        for number in range(math.prod(series.shape) // size):
            offset = series.dataoffset + number * size * dtype.itemsize
            frame = np.fromfile(file, dtype, size, offset=offset)
            if frame.size < size:
                raise SourceError(
                    f"{str(file)!r} is cut short: image {number} is not there"
                )
            yield _native(frame.reshape(shape))


class _Complaints(logging.Handler):
    """What tifffile finds wrong with a file and tells its log alone."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._thread = threading.get_ident()
        self._found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._found.append(record.getMessage())

    def check(self, file: Path) -> None:
        if self._found:
            raise SourceError(
                f"the TIFF file {str(file)!r} is damaged, pages of it may be missing: "
                f"{self._found[0]}"
            )

    def __enter__(self) -> _Complaints:
        logging.getLogger("tifffile").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("tifffile").removeHandler(self)


def _kind(series: Any) -> tuple[Any, ...]:
    return (*series.keyframe.shape, np.dtype(series.dtype))


def _native(frame: NDArray[Any]) -> NDArray[Any]:
    return frame.astype(frame.dtype.newbyteorder("="), copy=False)


def _tifffile() -> Any:
    try:
        # Its types leave much open.
        return import_module("tifffile")
    except ImportError as error:
        raise MissingExtraError("replaying TIFF files", "tifffile", "tiff") from error
