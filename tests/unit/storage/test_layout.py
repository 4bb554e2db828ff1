"""What the metadata of an array says, and what is read of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.errors import FrameMismatchError, MetadataError, StoreReadError
from bluesky_beamtime.storage.codecs import COMPRESSIONS, CompressionError, FrameCodec
from bluesky_beamtime.storage.layout import (
    ArrayLayout,
    encode_json,
    plain_json,
    zarr_data_type,
)


def layout(dtype: str = "<u2", **options: Any) -> ArrayLayout:
    compression = options.pop("compression", "none")
    checksum = options.pop("checksum", True)
    return ArrayLayout(
        **{
            "shape": (4, 6),
            "codec": FrameCodec(np.dtype(dtype), compression, checksum),
            "frames_per_shard": 8,
            "dimension_names": ("time", "y", "x"),
            **options,
        }
    )


@pytest.mark.parametrize("dtype", ["?", "<i1", ">u2", "<f2", ">f8", "<c8", ">c16"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("checksum", [True, False])
def test_a_layout_comes_back_from_its_json(
    dtype: str, compression: str, checksum: bool
):
    one = layout(dtype, compression=compression, checksum=checksum)
    content = json.loads(one.to_json(3, {"units": "counts"}))
    assert ArrayLayout.from_json(content, "here") == one
    assert content["shape"] == [3, 4, 6]
    assert content["attributes"] == {"units": "counts"}


@pytest.mark.parametrize("shape", [(), (5,), (0,), (3, 0, 2)])
def test_frames_of_any_rank_have_chunks_of_at_least_one(shape: tuple[int, ...]):
    one = layout(shape=shape, dimension_names=None)
    content = json.loads(one.to_json(0, {}))
    assert ArrayLayout.from_json(content, "here") == one
    inner = content["codecs"][0]["configuration"]["chunk_shape"]
    assert inner[0] == 1 and min(inner) == 1
    assert one.shard_name(7) == ".".join(["c", "7", *"0" * len(shape)])


def drop(content: dict[str, Any], *path: Any) -> None:
    for step in path[:-1]:
        content = content[step]
    del content[path[-1]]


def put(content: dict[str, Any], value: Any, *path: Any) -> None:
    for step in path[:-1]:
        content = content[step]
    content[path[-1]] = value


INNER = ("codecs", 0, "configuration")


@pytest.mark.parametrize(
    "path",
    [
        *(("shape",), ("data_type",), ("node_type",), ("codecs",), ("chunk_grid",)),
        *((*INNER, "chunk_shape"), (*INNER, "codecs"), (*INNER, "index_codecs")),
        *((*INNER, "index_location"), ("chunk_key_encoding", "configuration")),
    ],
)
def test_metadata_without_a_part_is_not_ours(path: tuple[Any, ...]):
    content = json.loads(layout().to_json(3, {}))
    drop(content, *path)
    with pytest.raises(StoreReadError, match="here"):
        ArrayLayout.from_json(content, "here")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data_type",), "uint17"),
        (("data_type",), {"name": "structured"}),
        (("node_type",), "group"),
        (("shape",), []),
        (("shape",), [3, 4, 7]),
        (("shape",), "text"),
        ((*INNER, "chunk_shape"), [2, 4, 6]),
        ((*INNER, "index_location"), "end"),
        ((*INNER, "index_codecs"), [{"name": "bytes"}, {"name": "crc32c"}]),
        ((*INNER, "codecs"), [{"name": "gzip"}]),
        ((*INNER, "codecs"), []),
        (("codecs", 0, "name"), "bytes"),
        (("chunk_key_encoding", "configuration", "separator"), "/"),
        (("chunk_grid", "configuration", "chunk_shape"), [8, 4, 7]),
    ],
)
def test_metadata_that_says_something_else_is_not_ours(
    path: tuple[Any, ...], value: Any
):
    """Another layout is never read as if it were this one."""
    content = json.loads(layout().to_json(3, {}))
    put(content, value, *path)
    with pytest.raises(StoreReadError):
        ArrayLayout.from_json(content, "here")


def test_zarr_python_takes_every_layout(tmp_path: Any):
    for dtype in ("?", "<u2", ">f4", "<c16"):
        for compression in COMPRESSIONS:
            (tmp_path / "zarr.json").write_bytes(
                layout(dtype, compression=compression).to_json(2, {"a": 1})
            )
            array = zarr.open_array(tmp_path, mode="r")
            assert array.shape == (2, 4, 6) and array.attrs["a"] == 1
            # A frame that is not there reads as nothing, in every dtype.
            assert not np.asarray(array[0]).any()


@pytest.mark.parametrize("dtype", ["U3", "S2", "O", "M8[s]", "m8[s]", "g", "G", "V4"])
def test_only_numbers_have_a_data_type(dtype: str):
    with pytest.raises(FrameMismatchError):
        zarr_data_type(np.dtype(dtype))


def test_unknown_compressions_are_refused_with_those_that_are_known():
    with pytest.raises(CompressionError, match="lz4") as caught:
        FrameCodec(np.dtype("<u2"), "gzip")  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)


def test_plain_json_is_a_copy():
    value = {"list": [1, (2, 3)], "number": np.float64(1.5)}
    plain = plain_json(value)
    assert plain == {"list": [1, [2, 3]], "number": 1.5}
    value["list"].append(4)  # type: ignore[attr-defined]
    assert plain["list"] == [1, [2, 3]]
    assert json.loads(encode_json(value))["list"] == [1, [2, 3], 4]


def test_what_holds_itself_is_refused():
    value: dict[str, Any] = {}
    value["self"] = value
    with pytest.raises(MetadataError):
        plain_json(value)
