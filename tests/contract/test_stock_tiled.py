"""Our documents and frames in a stock server of Tiled, through a stock TiledWriter.

The server runs in a process of its own, without this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.storage import FrameStore, from_uri
from tests.stock_tiled import stock_tiled

pytest.importorskip("bluesky_tiled_plugins")
pytest.importorskip("tiled.server")
pytestmark = pytest.mark.filterwarnings("default")

SHAPE = (12, 16)
ZARR = "application/x-zarr"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stock")


@pytest.fixture(scope="module")
def address(shared: Path) -> Iterator[str]:
    with stock_tiled(shared / "server", shared / "data") as address:
        yield address


@pytest.fixture
def data(shared: Path, request: pytest.FixtureRequest) -> Path:
    folder = shared / "data" / request.node.name
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    from tiled.client import from_uri as connect

    client = connect(address)
    yield client
    client.context.close()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make bluesky-tiled-plugins as it is where this package is not installed."""
    from bluesky_tiled_plugins.writing.consolidators import CONSOLIDATOR_REGISTRY

    # Set before it is taken away, so that it is put back also if it was absent.
    monkeypatch.setitem(CONSOLIDATOR_REGISTRY, ZARR, CONSOLIDATOR_REGISTRY["none"])
    monkeypatch.delitem(CONSOLIDATOR_REGISTRY, ZARR)
    monkeypatch.delitem(CONSOLIDATOR_REGISTRY, "none")


@pytest.fixture
def with_ours(bare: None) -> None:
    from bluesky_beamtime.serving import consolidator

    consolidator.register()


@pytest.fixture
def measure(RE: Any, client: Any) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """Run a plan into the server; give its run there, and the arrays on the disk."""
    from bluesky_tiled_plugins import TiledWriter

    def measure(plan: Any, *callbacks: Any) -> tuple[Any, dict[str, Any]]:
        paths: dict[str, str] = {}

        def look(name: str, document: Any) -> None:
            if name == "stream_resource":
                paths[document["data_key"]] = from_uri(document["uri"])

        tokens = [RE.subscribe(each) for each in (*callbacks, look)]
        tokens.append(RE.subscribe(TiledWriter(client)))
        (uid,) = RE(plan)
        for token in tokens:
            RE.unsubscribe(token)
        arrays = {key: zarr.open_array(path, mode="r") for key, path in paths.items()}
        return client[uid], arrays

    return measure


def make_camera(frames: FrameStore, name: str = "cam") -> SimCamera:
    from ophyd_async.core import init_devices

    with init_devices():
        camera = SimCamera(frames, name=name, shape=SHAPE)
    return camera


def test_one_frame_per_event_needs_nothing_of_ours(
    bare: None, data: Path, measure: Any
) -> None:
    from bluesky import plans as bp

    store = FrameStore(data)
    cameras = [make_camera(store, "cam1"), make_camera(store, "cam2")]
    run, arrays = measure(bp.count(cameras, 5))
    for name in ("cam1", "cam2"):
        there = run["primary"][name]
        assert there.shape == (5, *SHAPE)
        assert there.dtype == np.dtype("<u2")
        np.testing.assert_array_equal(there.read(), arrays[name][:])
        np.testing.assert_array_equal(there[3, 2:5], arrays[name][3, 2:5])
        assert arrays[name][:].any()


def test_a_fly_scan_needs_nothing_of_ours(bare: None, data: Path, measure: Any) -> None:
    from bluesky_beamtime.plans import fly_frames

    camera = make_camera(FrameStore(data))
    run, arrays = measure(fly_frames([camera], 20, exposure=0.001))
    (stream,) = run.keys()
    np.testing.assert_array_equal(run[stream]["cam"].read(), arrays["cam"][:])
    assert run[stream]["cam"].shape == (20, *SHAPE)


def several_frames(camera: SimCamera, events: int, frames: int) -> Any:
    from bluesky import plan_stubs as bps
    from bluesky import preprocessors as bpp
    from ophyd_async.core import TriggerInfo

    @bpp.stage_decorator([camera])
    @bpp.run_decorator()
    def plan() -> Any:
        info = TriggerInfo(collections_per_event=frames)
        yield from bps.prepare(camera, info, wait=True)
        for _ in range(events):
            yield from bps.trigger_and_read([camera])

    return plan()


def test_several_frames_per_event_with_the_consolidator(
    with_ours: None, data: Path, measure: Any
) -> None:
    camera = make_camera(FrameStore(data))
    run, arrays = measure(several_frames(camera, 4, 3))
    there = run["primary"]["cam"]
    assert there.shape == (12, *SHAPE)
    np.testing.assert_array_equal(there.read(), arrays["cam"][:])
    np.testing.assert_array_equal(there[7], arrays["cam"][7])


def test_a_beamtime_that_records_brings_the_consolidator(
    bare: None, data: Path, measure: Any
) -> None:
    with Beamtime(data / "x.db") as beamtime:
        camera = make_camera(beamtime.frames)
        run, arrays = measure(several_frames(camera, 2, 3), beamtime)
    there = run["primary"]["cam"]
    assert there.shape == (6, *SHAPE)
    np.testing.assert_array_equal(there.read(), arrays["cam"][:])


def test_a_group_and_the_name_of_its_dataset(
    with_ours: None, data: Path, client: Any
) -> None:
    import event_model
    from bluesky_tiled_plugins import TiledWriter

    frames = np.arange(3 * 4 * 6, dtype="<u2").reshape(3, 4, 6)
    group = zarr.open_group(data / "theirs.zarr", mode="w")
    made = group.create_array(
        "entry/cam", shape=frames.shape, chunks=(1, 4, 6), dtype="<u2"
    )
    made[:] = frames
    composed = event_model.compose_run(metadata={"plan_name": "theirs", "scan_id": 1})
    write = TiledWriter(client)
    write("start", composed.start_doc)
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={
            "cam": {
                "source": "s",
                "dtype": "array",
                "shape": [4, 6],
                "dtype_numpy": "<u2",
                "external": "STREAM:",
            }
        },
        hints={},
        configuration={},
        object_keys={"cam": ["cam"]},
    )
    write("descriptor", stream.descriptor_doc)
    resource = composed.compose_stream_resource(
        mimetype=ZARR,
        uri=f"file://localhost{data / 'theirs.zarr'}/",
        data_key="cam",
        parameters={"chunk_shape": [1, 4, 6], "dataset": "/entry/cam"},
    )
    write("stream_resource", resource.stream_resource_doc)
    write(
        "stream_datum",
        resource.compose_stream_datum(
            {"start": 0, "stop": 3}, {"start": 1, "stop": 4}, stream.descriptor_doc
        ),
    )
    write("stop", composed.compose_stop())
    there = client[composed.start_doc["uid"]]["primary"]["cam"]
    np.testing.assert_array_equal(there.read(), frames)
