"""Every kind of run, through a server in another process and each kind of client."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.testing import assert_documents_equal
from tests.served import client_of, served
from tests.unit.serving.conftest import NUMBER, Lab

pytestmark = pytest.mark.filterwarnings("default")

ODD = ("a/b", "_hidden", "time", "seq_num", "ts_x", "x", "a b%c", "grüße")
FRAMES = np.arange(3 * 4 * 6, dtype="<u2").reshape(3, 4, 6)


def odd_names(emit: Any) -> None:
    composed = event_model.compose_run(
        metadata={"plan_name": "odd", "scan_id": 10, "bad": math.nan, "far": [math.inf]}
    )
    emit("start", composed.start_doc)
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={name: dict(NUMBER) for name in ODD},
        hints={},
        configuration={},
        object_keys={"det": list(ODD)},
        validate=False,
    )
    emit("descriptor", stream.descriptor_doc)
    for point in range(3):
        data = {name: 10.0 * i + point for i, name in enumerate(ODD)}
        event = stream.compose_event(
            data=data,
            timestamps=dict.fromkeys(data, 7.0),
            time=50.0 + point,
            validate=False,
        )
        emit("event", event)
    emit("stop", composed.compose_stop(exit_status="fail", reason="motor stalled"))


def hdf5_frames(beamtime: Beamtime, folder: Path) -> None:
    from bluesky_beamtime.storage import HDF5Writer

    writer = HDF5Writer.get("over-http")
    writer.set_uri(str(folder))
    sink = writer.prepare("cam", "cam", "<u2", (4, 6))
    writer.kickoff()
    composed = event_model.compose_run(metadata={"plan_name": "hdf5", "scan_id": 11})
    beamtime("start", composed.start_doc)
    described = {
        "source": "s",
        "dtype": "array",
        "shape": [4, 6],
        "dtype_numpy": "<u2",
        "units": "counts",
        "dims": ["row", "column"],
        "external": "STREAM:",
    }
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={"cam": described},
        hints={},
        configuration={},
        object_keys={"cam": ["cam"]},
    )
    beamtime("descriptor", stream.descriptor_doc)
    sink.write_many(FRAMES)
    for name, document in writer.collect_stream_docs("cam", 3):
        if name == "stream_resource":
            document = {**document, "run_start": composed.start_doc["uid"]}
        else:
            numbers = {"start": 1, "stop": 4}
            document = {
                **document,
                "descriptor": stream.descriptor_doc["uid"],
                "seq_nums": numbers,
            }
        beamtime(name, document)
    sink.close()
    HDF5Writer.release("over-http")
    beamtime("stop", composed.compose_stop())


@pytest.fixture(scope="module")
def emitted() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    return {}


@pytest.fixture(scope="module")
def catalog(
    tmp_path_factory: pytest.TempPathFactory, emitted: dict[str, Any]
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("http")
    with Beamtime(folder / "x.db", sample="LaB6") as beamtime:
        lab = Lab(beamtime)
        lab.run(images=True)
        docs: list[tuple[str, dict[str, Any]]] = []
        emitted["odd"] = docs

        def emit(name: str, document: Any) -> None:
            docs.append((name, dict(document)))
            beamtime(name, document)

        odd_names(emit)
        hdf5_frames(beamtime, folder / "x.zarr" / "hdf5")
        emitted["cut"] = lab.emitted[lab.run(scan_id=12, stop=False)]
    with served(folder / "x.db") as address, client_of(address) as client:
        yield client


def test_names_that_mean_something_else_to_tiled(catalog: Any) -> None:
    stream = catalog[10].primary
    table = stream.base["internal"].read()
    assert table["time"].tolist() == [50, 51, 52]
    assert table["seq_num"].tolist() == [1, 2, 3]
    dataset = stream.read()
    assert dataset["time"].values.tolist() == [50, 51, 52]
    assert dataset["x"].values.tolist() == [50, 51, 52]
    for i, name in enumerate(ODD):
        values = [10.0 * i, 10.0 * i + 1, 10.0 * i + 2]
        columns = [c for c in table.columns if table[c].tolist() == values]
        assert columns, name


def test_their_documents_are_as_emitted(catalog: Any, emitted: Any) -> None:
    documents = [(name, dict(doc)) for name, doc in catalog[10].documents()]
    assert_documents_equal(documents, emitted["odd"])


def test_metadata_with_numbers_that_json_lacks(catalog: Any) -> None:
    run = catalog[10]
    assert run.start["scan_id"] == 10
    assert run.stop["reason"] == "motor stalled"
    assert run.metadata["beamtime"]["status"] == "fail"
    assert math.isnan(run.start["bad"])
    assert run.start["far"] == [math.inf]


def test_frames_in_hdf5(catalog: Any) -> None:
    stream = catalog[11].primary
    np.testing.assert_array_equal(stream["cam"].read(), FRAMES)
    np.testing.assert_array_equal(stream["cam"][1, 1:3], FRAMES[1, 1:3])
    assert stream["cam"].dims[0] == "time"
    assert stream["cam"].metadata["units"] == "counts"
    np.testing.assert_array_equal(stream.read()["cam"].values, FRAMES)


def test_a_run_that_was_cut_off(catalog: Any, emitted: Any) -> None:
    run = catalog[12]
    assert run.stop is None
    assert run.metadata["beamtime"]["status"] == "interrupted"
    assert run.primary.read()["x"].values.tolist() == [0, 1, 2]
    documents = [(name, dict(doc)) for name, doc in run.documents()]
    assert_documents_equal(documents, emitted["cut"])


def test_the_second_view(catalog: Any) -> None:
    pytest.importorskip("databroker")
    run = catalog.v2[1]
    assert run.primary.read()["x"].values.tolist() == [0, 1, 2]
    assert run.primary.read()["image"].shape == (3, 4, 6)
    assert run.primary["config"]["motor"].read()["velocity"].values.tolist() == [2.5]
    assert catalog.v2[11].primary.read()["cam"].shape == (3, 4, 6)


def test_the_first_view(catalog: Any) -> None:
    pytest.importorskip("databroker.v1")
    db = catalog.v1
    header = db[1]
    assert header.start["scan_id"] == 1
    assert header.table()["x"].tolist() == [0, 1, 2]
    assert db[-3].start["scan_id"] == 10
    assert header.stream_names == ["primary"]
    assert next(iter(header.documents()))[0] == "start"
    assert next(iter(db(plan_name="hdf5"))).start["scan_id"] == 11
    assert list(header.data("x")) == [0, 1, 2]
