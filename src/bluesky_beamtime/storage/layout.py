"""The metadata of a frame store: Zarr v3 groups, and arrays that grow by frames.

An array of frames is a Zarr v3 array with the ``sharding_indexed`` codec: one shard
holds ``frames_per_shard`` frames, one inner chunk holds one frame or one tile of it,
and the shard's index stands at its start, without a checksum of its own.
``docs/explanations`` tells why.

References
----------
Zarr v3 core specification (https://zarr-specs.readthedocs.io/en/latest/v3/core/) and
the ``sharding_indexed`` codec
(https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson

from bluesky_beamtime.errors import (
    FrameMismatchError,
    MetadataError,
    PathError,
    StoreReadError,
)
from bluesky_beamtime.storage.codecs import FrameCodec
from bluesky_beamtime.storage.files import (
    make_folder,
    replace_file,
    sync_file,
    sync_folder,
    write_error,
)
from bluesky_beamtime.storage.tiling import MOST_CHUNKS, Tiling, stored_shape

METADATA_FILE = "zarr.json"
# A copy of an array's metadata as it was created, never replaced again. The metadata
# file itself is replaced without waiting for the disk, so that a power cut may leave it
# empty.
LAYOUT_FILE = ".layout.json"

# Shards of about this many bytes: few files, and an index that is quick to read.
_SHARD_BYTES = 1 << 28
_MIN_FRAMES_PER_SHARD = 64
_MAX_FRAMES_PER_SHARD = 8192
_MAX_CHUNKS_PER_SHARD = 1 << 16


def default_frames_per_shard(frame_bytes: int, chunks_per_frame: int = 1) -> int:
    """Return how many frames of this size share one file."""
    wanted = _SHARD_BYTES // max(1, frame_bytes)
    bounded = max(_MIN_FRAMES_PER_SHARD, min(_MAX_FRAMES_PER_SHARD, wanted))
    bounded = max(1, min(bounded, _MAX_CHUNKS_PER_SHARD // chunks_per_frame))
    return 1 << (bounded.bit_length() - 1)


def zarr_data_type(dtype: np.dtype[Any]) -> str:
    """Return the Zarr v3 name of a NumPy dtype.

    Raises
    ------
    FrameMismatchError
        The dtype is not a number or bool: frames hold numbers.
    """
    # float16 … float64, complex64 and complex128, (u)int8 … 64, bool. NumPy's
    # longdouble ("g", "G") has no portable form.
    if dtype.kind not in "biufc" or dtype.char in "gG":
        raise FrameMismatchError("frames", "a number or bool dtype", str(dtype))
    return dtype.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayLayout:
    """What the metadata of an array says, apart from its length and attributes."""

    shape: tuple[int, ...]
    """Shape of one frame; ``()`` for a number per frame."""
    codec: FrameCodec
    """How a frame becomes bytes; holds the dtype."""
    frames_per_shard: int
    """Frames in one file."""
    dimension_names: tuple[str, ...] | None = None
    """Names of all dimensions, the first being that of the frames."""
    chunks: tuple[int, ...] | None = None
    """Shape of an inner chunk of a frame; None for the whole frame."""

    @property
    def tiling(self) -> Tiling:
        """How a frame is cut into inner chunks."""
        stored = self.stored_shape
        return Tiling(stored, stored if self.chunks is None else self.chunks)

    @property
    def chunks_per_frame(self) -> int:
        """Number of inner chunks, and so of index entries, of a frame."""
        return 1 if self.chunks is None else self.tiling.count

    @property
    def entries_per_shard(self) -> int:
        """Number of index entries of a shard."""
        return self.frames_per_shard * self.chunks_per_frame

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a frame, in the byte order that is stored."""
        return self.codec.dtype

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of what is read at the least: a frame or a tile of it."""
        return (1, *(self.stored_shape if self.chunks is None else self.chunks))

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of a frame's chunk: no axis of a chunk may have the length 0."""
        return stored_shape(self.shape)

    @property
    def frame_bytes(self) -> int:
        """Size of one uncompressed frame."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def shard_name(self, number: int) -> str:
        """Return the file name of a shard inside the array's folder."""
        return ".".join(["c", str(number), *["0"] * len(self.shape)])

    def to_json(self, length: int, attributes: Mapping[str, Any]) -> bytes:
        """Return the content of ``zarr.json`` for an array of ``length`` frames."""
        inner = {
            "chunk_shape": self.chunk_shape,
            "codecs": self.codec.to_json(),
            # No checksum over the index: it would have to be rewritten with every
            # frame, and a reader that looks meanwhile would find it torn.
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "index_location": "start",
        }
        fill: Any = False if self.dtype.kind == "b" else 0
        metadata: dict[str, Any] = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": (length, *self.shape),
            "data_type": zarr_data_type(self.dtype),
            "chunk_grid": {
                "name": "regular",
                "configuration": {
                    "chunk_shape": (self.frames_per_shard, *self.tiling.padded)
                },
            },
            "chunk_key_encoding": {
                "name": "default",
                "configuration": {"separator": "."},
            },
            "fill_value": [0.0, 0.0] if self.dtype.kind == "c" else fill,
            "codecs": [{"name": "sharding_indexed", "configuration": inner}],
            "attributes": dict(attributes),
        }
        if self.dimension_names is not None:
            metadata["dimension_names"] = self.dimension_names
        return encode_json(metadata)

    @classmethod
    def from_json(cls, metadata: Mapping[str, Any], where: str) -> ArrayLayout:
        """Read the layout back from parsed metadata.

        Raises
        ------
        StoreReadError
            An array that was not written in this layout.
        """
        try:
            (sharding,) = metadata["codecs"]
            inner = sharding["configuration"]
            shape = tuple(metadata["shape"][1:])
            stored = stored_shape(shape)
            shard = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
            one, *sizes = inner["chunk_shape"]
            chunks = tuple(sizes)
            tiling = Tiling(stored, chunks)
            separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
            known = (
                metadata["node_type"] == "array"
                and sharding["name"] == "sharding_indexed"
                and inner["index_location"] == "start"
                and [codec["name"] for codec in inner["index_codecs"]] == ["bytes"]
                and one == 1
                and all(type(size) is int and size >= 1 for size in (*chunks, shard[0]))
                and shard[1:] == tiling.padded
                and 0 < tiling.count <= MOST_CHUNKS
                and separator == "."
            )
            if known:
                dtype = np.dtype(metadata["data_type"])
                names = metadata.get("dimension_names")
                return cls(
                    shape=shape,
                    codec=FrameCodec.from_json(dtype, inner["codecs"]),
                    frames_per_shard=shard[0],
                    dimension_names=None if names is None else tuple(names),
                    chunks=None if chunks == stored else chunks,
                )
        except (
            *(KeyError, TypeError, ValueError, IndexError, ZeroDivisionError),
        ) as error:
            raise _not_ours(where) from error
        raise _not_ours(where)


def _not_ours(where: str) -> StoreReadError:
    return StoreReadError(
        f"{where!r} is not an array of frames as this package writes them"
    )


def plain_json(value: Any) -> Any:
    """Return a copy as plain dicts, lists, texts and numbers.

    Raises
    ------
    MetadataError
        A value that JSON cannot hold, or not for every reader: NaN, integers of more
        than 64 bits, halves of surrogate pairs, hundreds of levels.
    """
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
        # Strict where the standard library is not. The lists around it leave room for
        # the levels that stand above an attribute in the metadata of its array.
        orjson.dumps([[[[[[[[plain]]]]]]]])
    except (TypeError, ValueError, RecursionError) as error:
        raise MetadataError(f"metadata cannot be written as JSON: {error}") from error
    return plain


def encode_json(value: Any) -> bytes:
    """Return strict JSON; see :func:`plain_json`."""
    return json.dumps(plain_json(value), indent=1).encode()


def read_metadata(path: Path, name: str = METADATA_FILE) -> dict[str, Any]:
    """Read the ``zarr.json`` of a group or array.

    Raises
    ------
    StoreReadError
        There is none, it cannot be read, or it is no JSON object.
    """
    try:
        metadata: Any = json.loads((path / name).read_bytes())
    except FileNotFoundError as error:
        raise StoreReadError(
            f"there is no Zarr group or array at {str(path)!r}",
            errno=error.errno,
            filename=str(path),
        ) from error
    except OSError as error:
        raise StoreReadError(
            f"cannot read {str(path / name)!r}: {os.strerror(error.errno or 0)}",
            errno=error.errno,
            filename=str(path),
        ) from error
    except ValueError as error:
        raise StoreReadError(
            f"{str(path / name)!r} is damaged: it is no JSON; "
            "repair_store() can write it anew"
        ) from error
    if not isinstance(metadata, dict):
        raise StoreReadError(f"{str(path / name)!r} is damaged")
    return cast("dict[str, Any]", metadata)


def create_group(
    path: str | os.PathLike[str],
    attributes: Mapping[str, Any] | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    sync: bool = False,
) -> None:
    """Make a Zarr v3 group if there is none yet.

    Parameters
    ----------
    path
        Folder of the group; it is created with its parents.
    attributes
        Attributes of the group; an existing group gets those that it lacks.
    root
        A folder above ``path``; every folder between becomes a group as well.
    sync
        Make it survive a power cut before returning.

    Raises
    ------
    StoreWriteError
        The disk refused.
    StoreReadError
        An array, or something that is not Zarr, is in the way.
    """
    folder = Path(path)
    try:
        make_folder(folder, sync=sync)
        if root is not None:
            between = folder.parent
            top = Path(root)
            while between != top and top in between.parents:
                _make_group_here(between, {}, sync)
                between = between.parent
            _make_group_here(top, {}, sync)
        _make_group_here(folder, attributes or {}, sync)
    except OSError as error:
        if isinstance(error, StoreReadError):
            raise
        raise write_error("a group", folder, error) from error


def _make_group_here(folder: Path, attributes: Mapping[str, Any], sync: bool) -> None:
    known: dict[str, Any] = {}
    if (folder / METADATA_FILE).exists():
        metadata = read_metadata(folder)
        if metadata.get("node_type") != "group":
            raise StoreReadError(f"{str(folder)!r} is an array, not a group")
        known = metadata.get("attributes", {})
        if all(known.get(key) == value for key, value in attributes.items()):
            return
    content = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {**known, **attributes},
    }
    replace_file(folder / METADATA_FILE, encode_json(content), sync=sync)


def sync_hierarchy(folder: Path, levels: int = 4) -> None:
    """Make the names and metadata of the groups above a folder survive a power cut.

    Folders that belong to somebody else, and cannot be synced, are left alone.
    """
    for parent in list(folder.parents)[:levels]:
        with suppress(PermissionError):
            if (parent / METADATA_FILE).exists():
                sync_file(parent / METADATA_FILE)
            sync_folder(parent)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_node_name(name: str) -> str:
    """Return ``name`` if it may stand as one folder inside a group.

    Raises
    ------
    PathError
        It is empty, leads elsewhere, is hidden, or is a name that Zarr keeps for
        itself.
    """
    refused = (
        not name
        or name.startswith((".", "__"))
        or name == METADATA_FILE
        or any(character in name for character in "/\\\0")
        or not _is_text(name)
        or len(name.encode()) > 200
    )
    if refused:
        raise PathError(
            f"{name!r} cannot name an array: use a name of at most 200 bytes without "
            "'/', '\\' or NUL that does not start with '.' or '__'"
        )
    return name
