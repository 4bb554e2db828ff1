"""What a stream holds, through each of the clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bluesky_beamtime.testing import assert_documents_equal

pytestmark = pytest.mark.filterwarnings("default")

Connect = Callable[[], Any]


def test_scalars_and_arrays_become_a_dataset(lab: Any, connect: Connect) -> None:
    lab.run(images=True)
    stream = connect()[-1].primary
    dataset = stream.read()
    assert dataset["x"].values.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(dataset["y"].values, [0, np.nan, 20])
    assert dataset["label"].values.tolist() == ["point 0", "point 1", "point 2"]
    assert dataset["image"].dims == ("time", "image_y", "image_x")
    assert dataset["image"].dtype == np.dtype("<u2")
    assert dataset["image"].values[:, 0, 0].tolist() == [0, 1, 2]
    assert dataset["time"].values.tolist() == [100, 101, 102]


def test_parts_are_read_alone(lab: Any, connect: Connect) -> None:
    lab.run(images=True)
    stream = connect()[-1]["primary"]
    assert stream["image"][1:, 2, :3].tolist() == [[1, 1, 1], [2, 2, 2]]
    assert stream["x"].read().tolist() == [0, 1, 2]
    assert set(stream.read(["x"]).data_vars) == {"x"}
    assert stream["ts_x"].read().tolist() == [100, 101, 102]
    table = stream.base["internal"]
    assert table.columns[:2] == ["seq_num", "time"]
    assert table.read(["x", "seq_num"])["seq_num"].tolist() == [1, 2, 3]


def test_units_and_configuration_are_in_the_metadata(
    lab: Any, connect: Connect
) -> None:
    lab.run()
    run = connect()[-1]
    metadata = run.primary.metadata
    assert metadata["data_keys"]["x"]["units"] == "mm"
    motor = metadata["configuration"]["motor"]
    assert motor["data"]["velocity"] == 2.5
    assert motor["data_keys"]["velocity"]["units"] == "mm/s"
    assert run.primary.base["internal"].metadata["x"]["units"] == "mm"
    descriptor = next(d for n, d in lab.emitted[run.start["uid"]] if n == "descriptor")
    found = run.descriptors[0]
    assert found["object_keys"] == descriptor["object_keys"]
    # Clients tell by the keys which device they are of.
    for name, data_key in descriptor["data_keys"].items():
        device = found["data_keys"][name].pop("object_name")
        assert name in descriptor["object_keys"][device]
        assert found["data_keys"][name] == data_key


def test_a_stream_without_events_is_empty(lab: Any, connect: Connect) -> None:
    lab.run(0)
    assert dict(connect()[-1].primary.read().sizes).get("time", 0) == 0


def test_documents_come_back(lab: Any, connect: Connect) -> None:
    uid = lab.run()
    documents = [(name, dict(doc)) for name, doc in connect()[-1].documents()]
    assert_documents_equal(documents, lab.emitted[uid])


def test_many_documents_come_in_pages(lab: Any, connect: Connect) -> None:
    uid = lab.run(2500)
    documents = [(name, dict(doc)) for name, doc in connect()[-1].documents()]
    assert_documents_equal(documents, lab.emitted[uid])


def test_the_older_views(lab: Any, connect: Connect) -> None:
    pytest.importorskip("databroker")
    lab.run(images=True)
    client = connect()
    v2 = client.v2[-1]
    assert v2.primary.read()["x"].values.tolist() == [0, 1, 2]
    assert v2.primary["config"]["motor"].read()["velocity"].values.tolist() == [2.5]


def test_the_table_of_databroker(lab: Any, connect: Connect) -> None:
    pytest.importorskip("databroker.v1")
    lab.run()
    header = connect().v1[-1]
    assert header.start["scan_id"] == 1
    assert header.table()["x"].tolist() == [0, 1, 2]


def test_a_description_that_changes(lab: Any, connect: Connect) -> None:
    import event_model

    composed = event_model.compose_run(metadata={"plan_name": "two", "scan_id": 1})
    lab.beamtime("start", composed.start_doc)
    for velocity in (1.0, 2.0):
        stream = composed.compose_descriptor(
            name="primary",
            data_keys={"x": {"source": "s", "dtype": "number", "shape": []}},
            hints={},
            configuration={
                "motor": {
                    "data": {"velocity": velocity},
                    "timestamps": {"velocity": 1.0},
                    "data_keys": {},
                }
            },
            object_keys={"motor": ["x"]},
        )
        lab.beamtime("descriptor", stream.descriptor_doc)
        lab.beamtime(
            "event", stream.compose_event(data={"x": velocity}, timestamps={"x": 1.0})
        )
    lab.beamtime("stop", composed.compose_stop())
    run = connect()[-1]
    assert len(run.descriptors) == 2
    velocities = [
        d["configuration"]["motor"]["data"]["velocity"] for d in run.descriptors
    ]
    assert velocities == [1.0, 2.0]


def constants(*names: str, shape: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return fields of which each holds its place among them."""
    return {
        name: lambda _, place=place: np.full(shape, place).tolist()
        for place, name in enumerate(names)
    }


@pytest.mark.parametrize(
    ("names", "served"),
    [
        (("a/b", "a_b", "a b"), ("a_b_", "a_b", "a b")),
        (("internal", "ts_x", "a/b"), ("internal_", "ts_x", "a_b")),
        (("é#?", "_z", "a\nb", "5%20"), ("é__", "_z", "a_b", "5_20")),
        (("..", ".", "a\\b", "a%2fb", "5%"), ("__", "_", "a_b", "a_2fb", "5%")),
    ],
)
def test_no_array_takes_the_name_of_another_node(
    lab: Any,
    connect: Connect,
    tmp_path: Path,
    names: tuple[str, ...],
    served: tuple[str, ...],
) -> None:
    lab.run(fields=constants(*names, shape=(2,)))
    stream = connect()[-1].primary
    dataset = stream.read(list(stream))
    assert {"x", "y", "label", *served} <= set(dataset)
    for place, (name, shown) in enumerate(zip(names, served, strict=True)):
        assert dataset[shown].values.tolist() == [[place, place]] * 3
        assert stream[shown].metadata.get("field", shown) == name
    assert stream.base["internal"].read(["seq_num"])["seq_num"].tolist() == [1, 2, 3]
    stream.export(str(tmp_path / "stream.h5"))
    with h5py.File(tmp_path / "stream.h5") as file:
        assert set(file) == {"internal", *served}


def test_columns_keep_their_names_beside_arrays(lab: Any, connect: Connect) -> None:
    lab.run(fields={**constants("a/b", shape=(2,)), **constants("c", "a_b")})
    dataset = connect()[-1].primary.read()
    assert dataset["a_b"].values.tolist() == [1, 1, 1]
    assert dataset["a_b_"].values.tolist() == [[0, 0]] * 3


def test_columns_alike_but_for_a_slash_are_exported(
    lab: Any, connect: Connect, tmp_path: Path
) -> None:
    lab.run(fields=constants("a/b", "a_b", ".."))
    stream = connect()[-1].primary
    assert {"a/b", "a_b", ".."} <= set(stream.read())
    stream.export(str(tmp_path / "stream.h5"))
    with h5py.File(tmp_path / "stream.h5") as file:
        found = {name: file["internal"][name][0] for name in ("a_b_", "a_b", "__")}
    assert found == {"a_b_": 0, "a_b": 1, "__": 2}


def test_a_stream_with_a_slash_in_its_name(lab: Any, connect: Connect) -> None:
    lab.run(stream_name="a/b")
    run = connect()[-1]
    assert list(run) == ["a_b"]
    assert run["a_b"].read()["x"].values.tolist() == [0, 1, 2]


def test_json_says_what_tiled_would(
    lab: Any, path: Path, connect: Connect, tmp_path: Path, monkeypatch: Any
) -> None:
    from tiled.serialization.container import serialize_json

    from bluesky_beamtime.database.engine import Database
    from bluesky_beamtime.database.journaled import JournalIndex
    from bluesky_beamtime.serving.fields import EventTable
    from bluesky_beamtime.serving.run import RunNode
    from bluesky_beamtime.serving.run_rows import fetch_runs

    async def everything(node: Any) -> Any:
        return node

    lab.run(images=True, fields=constants("a/b", "_a", "time"))
    database = Database(path, mode="r")
    (row,) = fetch_runs(database, [], [])
    node = RunNode(database, JournalIndex(database.journal), row)
    expected = json.loads(asyncio.run(serialize_json("", node, {}, everything)))
    database.close()

    def each_column_alone(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(EventTable, "__getitem__", each_column_alone)
    connect()[-1].export(str(tmp_path / "run.json"))
    assert json.loads((tmp_path / "run.json").read_text()) == expected
    connect()[-1].primary.export(str(tmp_path / "stream.json"))
    found = json.loads((tmp_path / "stream.json").read_text())
    assert found == expected["contents"]["primary"]


def test_one_column_is_read_without_the_others(
    lab: Any, connect: Connect, monkeypatch: Any
) -> None:
    from bluesky_beamtime.serving.fields import EventTable

    lab.run()
    columns = connect()[-1].primary
    x, label = columns["x"], columns["label"]
    monkeypatch.setattr(EventTable, "_arrow", None)
    assert x.read().tolist() == [0, 1, 2]
    assert label.read().tolist() == ["point 0", "point 1", "point 2"]
