"""Our HDF5 files and documents in the hands of Tiled's own code, unchanged.

The consolidator of bluesky-tiled-plugins turns the documents into what Tiled stores,
and Tiled's HDF5 adapters read the file: while it grows, closed, and after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.storage import (
    FrameSink,
    FrameStore,
    HDF5Writer,
    from_uri,
    repair_store,
)

consolidators = pytest.importorskip("bluesky_tiled_plugins.writing.consolidators")
hdf5 = pytest.importorskip("tiled.adapters.hdf5")
ndslice = pytest.importorskip("tiled.ndslice")

SHAPE = (4, 6)


@pytest.fixture(params=["none", "gzip", "lz4", "zstd"])
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HDF5Writer]:
    made = HDF5Writer.get("stock", compression=request.param)
    made.set_uri(str(tmp_path / "store"))
    yield made
    made.abort()
    HDF5Writer.release("stock")


def begin(writer: HDF5Writer) -> FrameSink:
    sink = writer.prepare("cam", "cam", "<u2", SHAPE)
    writer.kickoff()
    return sink


def frames(start: int, stop: int) -> np.ndarray[Any, Any]:
    return np.arange(start, stop, dtype="<u2")[:, None, None] + np.zeros(SHAPE, "<u2")


def consolidator(resource: dict[str, Any]) -> Any:
    described = {
        "source": "test",
        "dtype": "array",
        "dtype_numpy": "<u2",
        "shape": [*SHAPE],
        "external": "STREAM:",
    }
    return consolidators.consolidator_factory(
        resource, {"data_keys": {"cam": described}}
    )


def filled(document: dict[str, Any]) -> dict[str, Any]:
    """Return a StreamDatum as the RunEngine completes it, one frame per event."""
    rows = document["indices"]
    numbers = {"start": rows["start"] + 1, "stop": rows["stop"] + 1}
    return {**document, "descriptor": "uid", "seq_nums": numbers}


def test_documents_of_a_file_that_grows(writer: HDF5Writer):
    """Each StreamDatum lets Tiled read exactly the frames that it announces."""
    sink = begin(writer)
    stock = None
    for stop in (1, 4, 9):
        sink.write_many(frames(sink.frames_written, stop))
        for name, document in writer.collect_stream_docs("cam", stop):
            if name == "stream_resource":
                stock = consolidator(document)
            else:
                stock.consume_stream_datum(filled(document))
        assert stock is not None
        assert type(stock).__name__ == "HDF5Consolidator"
        assert stock.shape == (stop, *SHAPE)
        assert not stock.has_skips
        read = np.asarray(stock.init_adapter().read())
        np.testing.assert_array_equal(read, frames(0, stop))
        # What is written behind the announcement stays out of it.
        sink.write(frames(stop, stop + 1)[0])
        sink.publish()
        read = np.asarray(stock.init_adapter().read())
        np.testing.assert_array_equal(read, frames(0, stop))
    # What was catalogued during the scan is read the same way after it.
    sink.close()
    np.testing.assert_array_equal(
        np.asarray(stock.init_adapter().read()), frames(0, stop)
    )


@pytest.mark.parametrize("state", ["growing", "closed", "killed", "repaired"])
def test_the_file_by_itself(writer: HDF5Writer, tmp_path: Path, state: str):
    """Registered as a file that Tiled walks through, without any document."""
    sink = begin(writer)
    sink.write_many(frames(0, 5))
    sink.publish()
    path = Path(from_uri(sink.uri))
    if state in ("killed", "repaired"):
        # What a killed process leaves is the file as it is at some moment.
        left = tmp_path / "left" / path.name
        left.parent.mkdir()
        shutil.copy(path, left)
        path = left
    if state == "closed":
        sink.close()
    if state == "repaired":
        assert repair_store(path.parent).ok
    swmr = state in ("growing", "killed")
    tree = hdf5.HDF5Adapter.from_uris(f"file://localhost{path}", swmr=swmr)
    array = tree["entry"]["data"]["data"]
    np.testing.assert_array_equal(np.asarray(array.read()), frames(0, 5))
    block = array.read_block(ndslice.NDBlock((3, 0, 0)))
    np.testing.assert_array_equal(np.asarray(block), frames(3, 4))


def test_beside_a_detector_of_ophyd_async(RE: Any, tmp_path: Path):
    """One plan, one consolidator: our camera and theirs cannot be told apart."""
    from bluesky import plans as bp
    from ophyd_async.core import (
        StaticFilenameProvider,
        StaticPathProvider,
        init_devices,
    )
    from ophyd_async.sim import PatternGenerator, SimBlobDetector

    from bluesky_beamtime.devices import SimCamera

    store = FrameStore(tmp_path, name=lambda: "scan", mimetype="application/x-hdf5")
    theirs = StaticPathProvider(StaticFilenameProvider("theirs"), tmp_path)
    with init_devices():
        cam = SimCamera(store)
        det = SimBlobDetector(theirs, PatternGenerator())
    descriptors: dict[str, dict[str, Any]] = {}
    resources: dict[str, dict[str, Any]] = {}
    stock: dict[str, Any] = {}

    def consolidate(name: str, document: dict[str, Any]) -> None:
        if name == "descriptor":
            for key in document["data_keys"]:
                descriptors[key] = document
        elif name == "stream_resource":
            key = document["data_key"]
            resources[key] = document
            stock[document["uid"]] = consolidators.consolidator_factory(
                document, descriptors[key]
            )
        elif name == "stream_datum":
            stock[document["stream_resource"]].consume_stream_datum(document)

    RE(bp.count([cam, det], 3), consolidate)
    assert set(resources["cam"]["parameters"]) >= set(resources["det"]["parameters"])
    assert resources["cam"]["mimetype"] == resources["det"]["mimetype"]
    assert {type(one) for one in stock.values()} == {consolidators.HDF5Consolidator}
    for one in stock.values():
        read = np.asarray(one.init_adapter().read())
        assert read.shape[0] == one.shape[0] == 3
        if one.data_key in ("cam", "det"):
            assert read.ndim >= 3
            assert read.max() > 0
