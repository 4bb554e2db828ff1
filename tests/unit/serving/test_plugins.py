"""What bluesky-tiled-plugins and databroker offer, on our tree: all of it.

Each test runs without a server, and against one in another process. What these clients
refuse of themselves, and what a beamtime does not offer, is tested too; the table in
``docs/how-to/share-with-tiled.md`` says why.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.testing import assert_documents_equal
from tests.served import client_of, served
from tests.unit.serving.conftest import Lab

pytestmark = pytest.mark.filterwarnings("default")

STREAMS = ["baseline", "primary"]


@dataclass
class Recorded:
    path: Path
    emitted: dict[int, list[tuple[str, dict[str, Any]]]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Record a scan with a baseline and a camera, runs of numbers, and one that is on.

    The scan is number 2, the others 1, 3, 5 (without an end) and again 1.
    """
    from bluesky import RunEngine
    from bluesky import plans as bp
    from bluesky import preprocessors as bpp
    from ophyd_async.core import init_devices
    from ophyd_async.sim import SimMotor

    from bluesky_beamtime.devices import SimCamera

    path = tmp_path_factory.mktemp("plugins") / "x.db"
    emitted: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    RE = RunEngine(context_managers=[])
    with Beamtime(path, sample="LaB6") as beamtime:
        lab = Lab(beamtime)
        lab.run(operator="Ada")
        with init_devices():
            cam = SimCamera(beamtime.frames, shape=(6, 8))
            motor = SimMotor(instant=True)
            temperature = SimMotor(instant=True)
        RE.scan_id_source = lambda _: 2
        RE.subscribe(beamtime)
        docs = emitted[2] = []
        RE.subscribe(lambda name, doc: docs.append((name, doc)))
        with_baseline = bpp.baseline_wrapper(
            bp.scan([cam], motor, 0, 3, 4, md={"operator": "Grace"}), [temperature]
        )
        RE(with_baseline)
        for number in (3, 5, 1):
            uid = lab.run(
                4,
                scan_id=number,
                stop=number != 5,
                images=number == 3,
                plan_name="count",
            )
            emitted[number] = lab.emitted[uid]
    RE.loop.call_soon_threadsafe(RE.loop.stop)
    RE._th.join()
    RE.loop.close()
    return Recorded(path, emitted)


@pytest.fixture(scope="module", params=["in process", "over HTTP"])
def c(recorded: Recorded, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give a client for the catalogue."""
    if request.param == "over HTTP":
        with served(recorded.path) as address, client_of(address) as client:
            yield client
        return
    with Beamtime(recorded.path, mode="r") as beamtime:
        client = beamtime.tiled()
        yield client
        client.context.close()


def scan_ids(runs: Any) -> list[int]:
    return [run.start["scan_id"] for run in runs]


# ------------------------------------------------------------------------ the catalogue


def test_a_catalogue_shows_scan_numbers(c: Any) -> None:
    assert type(c).__name__ == "CatalogOfBlueskyRuns"
    assert repr(c) == "<Catalog {1, 2, 3, 5, 1}>"
    assert len(c) == 5
    assert c.is_sql


def test_runs_by_age(c: Any) -> None:
    assert scan_ids([c[-1], c[-2], c[-5], c[0]]) == [1, 5, 1, 1]
    assert c[0].start["uid"] == c[-5].start["uid"] != c[-1].start["uid"]
    assert scan_ids(c[-1:-4:-1]) == [1, 5, 3]
    assert scan_ids(c.values()[1:3]) == [2, 3]
    assert scan_ids(c.values()[::-1]) == [1, 5, 3, 2, 1]
    assert scan_ids([c.values().first(), c.values().last()]) == [1, 1]
    assert scan_ids(c.values().head(2)) == [1, 2]
    assert scan_ids(c.values().tail(2)) == [5, 1]
    assert scan_ids(run for _, run in c.items().tail(2)) == [5, 1]
    assert list(c.keys()[::-1]) == list(c)[::-1]
    with pytest.raises(IndexError):
        c[-6]


def test_runs_by_scan_number(c: Any) -> None:
    assert c[2].start["plan_name"] == "scan"
    assert c.scan_id[3].start["scan_id"] == 3
    # Of several the newest.
    assert c[1].start["plan_name"] == "count"
    with pytest.raises(KeyError, match="99"):
        c[99]


def test_runs_by_uid(c: Any) -> None:
    uid = c[2].start["uid"]
    assert c[uid].start["scan_id"] == 2
    assert c[uid[:8]].start["scan_id"] == 2
    assert c.uid[uid[:7]].start["scan_id"] == 2
    assert uid in c
    with pytest.raises(KeyError, match="00000-none"):
        c["00000-none"]


def test_several_runs_at_once(c: Any) -> None:
    uid = c[3].start["uid"]
    assert scan_ids(c[[1, 2, -2, uid[:8]]]) == [1, 2, 5, 3]
    assert scan_ids(c[2, 3]) == [2, 3]


def test_a_dictionary_searches_the_start_documents(c: Any) -> None:
    assert scan_ids(c.search({"operator": "Grace"}).values()) == [2]
    assert scan_ids(c.search({"num_points": 4}).values()) == [2]


def test_what_the_plugins_refuse_of_themselves(c: Any) -> None:
    with pytest.raises(ValueError, match="too short"):
        c["abcd"]
    with pytest.raises(ValueError, match="limited to negative"):
        c[1:3]
    with pytest.raises(ValueError, match="must have step=-1"):
        c[-3:]


def test_distinct_values(c: Any) -> None:
    plans = c.distinct("start.plan_name", counts=True)["metadata"]["start.plan_name"]
    assert {p["value"]: p["count"] for p in plans} == {"scan": 2, "count": 3}


# ------------------------------------------------------------------------------- a run


def test_a_run_shows_what_it_is(c: Any) -> None:
    run = c[2]
    uid = run.start["uid"]
    assert repr(run).startswith("<BlueskyRun v3.0 streams: {")
    assert f"scan_id=2 uid={uid[:8]!r}" in repr(run)
    assert run.start is run.metadata["start"]
    assert run.stop is run.metadata["stop"]
    assert run.stop["exit_status"] == "success"
    assert {"primary", "baseline"} <= set(dir(run))
    with pytest.raises(NotImplementedError, match="entire run"):
        run.read()
    with pytest.raises(AttributeError):
        _ = run.nothing


def test_streams_forwards_and_backwards(c: Any) -> None:
    run = c[2]
    assert list(run) == list(run.keys()) == STREAMS
    assert list(run.keys()[::-1]) == STREAMS[::-1]
    assert [name for name, _ in run.items()[::-1]] == STREAMS[::-1]
    assert len(run) == len(run.values()) == 2
    assert list(run.base) == list(run.base.keys())
    assert set(run.base) == set(STREAMS)


@pytest.mark.parametrize(
    "key",
    [
        "primary/motor",
        ("primary", "motor"),
        "primary/internal/motor",
        "streams/primary",
    ],
)
def test_every_way_to_a_field(c: Any, key: Any) -> None:
    found = c[2][key]
    field = found["motor"] if key == "streams/primary" else found
    assert field.read().tolist() == [0, 1, 2, 3]


def test_keys_that_are_not_there(c: Any) -> None:
    for key in ("nothing", "primary/nothing"):
        with pytest.raises(KeyError):
            c[2][key]


def listed(name: str, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a document as JSON has it: without arrays."""
    if name != "event" or "image" not in document["data"]:
        return name, document
    data = {**document["data"], "image": document["data"]["image"].tolist()}
    return name, {**document, "data": data}


def test_documents_in_every_view(c: Any, recorded: Recorded) -> None:
    for number, emitted in recorded.emitted.items():
        run = c[number]
        for view in (run, run.v3, run.v2):
            documents = [(name, dict(doc)) for name, doc in view.documents()]
            assert_documents_equal(documents, [listed(*pair) for pair in emitted])
    with pytest.raises(NotImplementedError):
        list(c[2].documents(fill=True))


def test_descriptors_are_those_emitted(c: Any, recorded: Recorded) -> None:
    validator = event_model.schema_validators[event_model.DocumentNames.descriptor]
    for number, emitted in recorded.emitted.items():
        expected = {d["uid"]: d for name, d in emitted if name == "descriptor"}
        found = {d["uid"]: d for d in c[number].descriptors}
        assert set(found) == set(expected)
        for uid, descriptor in found.items():
            validator.validate(descriptor)
            for key in ("name", "run_start", "time", "object_keys", "hints"):
                assert descriptor[key] == expected[uid][key]
            for name, data_key in expected[uid]["data_keys"].items():
                assert data_key.items() <= descriptor["data_keys"][name].items()


def test_files_of_documents(c: Any, recorded: Recorded, tmp_path: Path) -> None:
    path = tmp_path / "run.json-seq"
    c[2].export(str(path), format="application/json-seq")
    lines = path.read_text(encoding="utf-8").split("\x1e")[1:]
    records = [json.loads(line) for line in lines]
    documents = [(record["name"], record["doc"]) for record in records]
    assert_documents_equal(documents, recorded.emitted[2])


def test_files_of_metadata(c: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    c[2].export(str(path))
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["metadata"]["start"]["scan_id"] == 2
    assert set(found["contents"]) == set(STREAMS)
    assert "cam" in found["contents"]["primary"]["contents"]


def test_hdf5_files_of_a_run(c: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    run = c[2]
    run.export(str(path))
    with h5py.File(path) as file:
        assert json.loads(file.attrs["start"])["uid"] == run.start["uid"]
        primary = file["primary"]
        assert primary["internal/motor"][:].tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(primary["cam"][:], run["primary/cam"].read())
        assert json.loads(primary.attrs["data_keys"])["motor"]["dtype"] == "number"
        assert file["baseline/internal/temperature"].shape == (2,)


def test_hdf5_files_of_a_stream(c: Any, tmp_path: Path) -> None:
    path = tmp_path / "stream.h5"
    c[3].primary.export(str(path))
    with h5py.File(path) as file:
        labels = file["internal/label"].asstr()[:].tolist()
        assert labels == [f"point {number}" for number in range(4)]
        assert file["image"].shape == (4, 4, 6)
        assert file["image"].attrs["dtype_numpy"] == "<u2"


def test_a_run_that_is_read_only(c: Any) -> None:
    run = c[2]
    for change in (run.delete, lambda: run.update_metadata({"a": 1})):
        with pytest.raises(Exception, match="405"):
            change()


def test_subscriptions_end_instead_of_waiting(c: Any) -> None:
    from bluesky_tiled_plugins import subscribe_to_streams

    ended = threading.Event()

    def end(_: Any) -> None:
        # Has a name, because the subscription does not keep what it calls.
        ended.set()

    subscription = c.subscribe()
    subscription.stream_closed.add_callback(end)
    subscription.start_in_thread()
    assert ended.wait(60)
    subscription.disconnect()
    subscribe_to_streams(c, lambda _: None, streams=None).disconnect()


# ---------------------------------------------------------------------------- a stream


def test_a_stream_shows_its_fields(c: Any) -> None:
    stream = c[2].primary
    assert type(stream).__name__ == "BlueskyEventStreamV3"
    assert repr(stream).startswith("<BlueskyEventStream {")
    assert {"motor", "cam", "time", "seq_num", "ts_motor"} <= set(stream)
    assert len(stream) == len(list(stream)) == len(list(stream.values()))
    assert "motor" in stream
    assert "nothing" not in stream
    assert {"internal", "cam"} <= set(stream.base)
    assert stream.descriptors[0]["hints"] == c[2].descriptors[1]["hints"]
    with pytest.raises(KeyError, match=r"\.base"):
        stream["internal"]


def test_a_stream_is_read_as_a_dataset(c: Any) -> None:
    from bluesky_tiled_plugins.clients.bluesky_event_stream import (
        DATAVALUES,
        TIMESTAMPS,
    )

    stream = c[2].primary
    dataset = stream.read()
    assert dataset["cam"].dims == ("time", "cam_y", "cam_x")
    assert dataset.sizes["time"] == 4
    assert not any(str(name).startswith("ts_") for name in dataset.variables)
    assert set(stream.read(["motor", "cam"]).data_vars) == {"motor", "cam"}
    assert stream.read(["motor"], dim0="point")["motor"].dims == ("point",)
    stamps = stream.read([TIMESTAMPS])
    assert "ts_motor" in stamps.data_vars
    assert set(stream.read([TIMESTAMPS, DATAVALUES]).variables) > set(stamps.variables)


def test_frames_are_read_in_parts(c: Any) -> None:
    frames = c[2]["primary/cam"]
    everything = frames.read()
    assert everything.shape == frames.shape == (4, 6, 8)
    assert frames.dtype == everything.dtype
    assert frames.dims == ("time", "cam_y", "cam_x")
    for part in (0, -1, slice(1, 3), (2, slice(None, None, 2), 5), (..., 0)):
        np.testing.assert_array_equal(frames[part], everything[part])


def test_tables_are_read_and_exported(c: Any, tmp_path: Path) -> None:
    table = c[2]["primary/internal"]
    assert table.read(["motor"])["motor"].tolist() == [0, 1, 2, 3]
    for name in ("table.csv", "table.parquet", "table.arrow", "table.html"):
        table.export(str(tmp_path / name))
        assert (tmp_path / name).stat().st_size
    import pandas as pd

    for read in (pd.read_csv, pd.read_parquet):
        found = read(tmp_path / f"table.{read.__name__[5:]}")
        assert found["motor"].tolist() == [0, 1, 2, 3]


# ------------------------------------------------------------------------ older views


def test_the_second_view_of_a_run(c: Any) -> None:
    run = c.v2[2]
    assert repr(run).startswith("<BlueskyRun v2.0")
    assert run.v2 is run
    assert type(run.v3).__name__ == "BlueskyRunV3"
    assert c[2].v2.start == run.start
    stream = run.primary
    assert set(stream) == {"data", "timestamps", "config", "config_timestamps"}
    dataset = stream.read()
    assert dataset["cam"].shape == (4, 6, 8)
    assert dataset["motor"].values.tolist() == [0, 1, 2, 3]
    assert set(stream.read(["motor"]).data_vars) == {"motor"}
    assert "ts_motor" in stream["timestamps"].read()
    data = stream["data"]
    assert data["motor"].read().tolist() == [0, 1, 2, 3]
    assert list(data.keys()[::-1]) == list(data.keys())[::-1]
    assert [name for name, _ in data.items()[::-1]] == list(data)[::-1]
    assert run["primary/data/motor"].read().tolist() == [0, 1, 2, 3]
    assert run["primary"]["data"]["cam"][0].shape == (6, 8)
    assert stream.metadata["stream_name"] == "primary"
    assert stream.descriptors[0]["name"] == "primary"


def test_configuration_in_the_second_view(c: Any) -> None:
    configuration = c.v2[3].primary["config"]["motor"]
    assert configuration.read()["velocity"].values.tolist() == [2.5]
    run = c.v2[3]
    assert run["primary/config/motor/velocity"].read().tolist() == [2.5]
    stamps = run.primary["config_timestamps"]["motor"].read()
    assert stamps["velocity"].values.tolist() == [1.0]


def test_the_broker_finds_runs(c: Any) -> None:
    pytest.importorskip("databroker.v1")
    db = c.v1
    uid = c[2].start["uid"]
    assert [header.start["scan_id"] for header in db[2, -1]] == [2, 1]
    assert db[uid[:8]].uid == uid
    assert scan_ids(db(plan_name="count")) == [3, 5, 1]
    assert scan_ids(db("grace")) == [2]
    assert scan_ids(db(operator="Ada", since="2015")) == [1]
    assert scan_ids(db(until="2015-01-01")) == []
    assert c[2].v1.start["scan_id"] == 2


def test_a_header(c: Any) -> None:
    pytest.importorskip("databroker.v1")
    header = c.v1[2]
    assert header == c.v1[-4]
    assert header["start"]["scan_id"] == 2
    assert header.stop["num_events"] == {"primary": 4, "baseline": 2}
    assert header.stream_names == STREAMS
    assert header.fields("baseline") >= {"temperature"}
    assert header.devices() == {"cam", "motor", "temperature"}
    assert header.devices("baseline") == {"temperature"}
    assert set(header.config_data("motor")) == {"primary"}
    assert c.v1[3].config_data("motor") == {"primary": [{"velocity": 2.5}]}
    assert set(dict(header.items())) == {"start", "descriptors", "stop", "ext"}
    assert header._repr_html_()


def test_tables_of_the_broker(c: Any) -> None:
    pytest.importorskip("databroker.v1")
    db = c.v1
    table = db[2].table()
    assert table["motor"].tolist() == [0, 1, 2, 3]
    assert table.index.tolist() == [1, 2, 3, 4]
    assert "cam" not in table
    assert len(db[2].table("baseline")) == 2
    assert set(db[3].table(fields=["x"])) == {"x", "time"}
    times = db[3].table(convert_times=False, localize_times=False)["time"]
    assert times.tolist() == [100, 101, 102, 103]
    assert [image.shape for image in db[3].table()["image"]] == [(4, 6)] * 4
    assert len(db.get_table([db[3], db[1]], fields=["y"])) == 8


def test_documents_of_the_broker(c: Any) -> None:
    pytest.importorskip("databroker.v1")
    db = c.v1
    header = db[2]
    names = [name for name, _ in header.documents()]
    assert names[0] == "start"
    assert names[-1] == "stop"
    assert len(list(header.events())) == 4
    assert len(list(header.events("baseline"))) == 2
    assert list(header.data("motor")) == [0, 1, 2, 3]
    assert [frame.shape for frame in header.data("cam")] == [(6, 8)] * 4
    assert header.xarray()["cam"].shape == (4, 6, 8)
    assert [event["data"] for event in db[3].events(fields=["x"])] == [
        {"x": float(point)} for point in range(4)
    ]
    assert len(list(db.restream(header))) == len(names)
    assert len(list(db.get_events([header]))) == 4
    seen: list[str] = []
    db.process(header, lambda name, _: seen.append(name))
    assert seen == names
    assert db.get_fields(header) == header.fields()


def test_a_run_that_goes_on(c: Any) -> None:
    pytest.importorskip("databroker.v1")
    run = c[5]
    assert run.stop is None
    assert run.metadata["beamtime"]["status"] == "interrupted"
    assert run.primary.read()["x"].values.tolist() == [0, 1, 2, 3]
    assert c.v1[5].table()["x"].tolist() == [0, 1, 2, 3]
    assert c.v2[5].primary.read()["x"].values.tolist() == [0, 1, 2, 3]


def test_a_plain_client_of_tiled(recorded: Recorded) -> None:
    """Without the plugins: containers, whose keys may be given as they are."""
    from tiled.client.container import Container
    from tiled.queries import Eq, Key, Like

    with Beamtime(recorded.path, mode="r") as beamtime:
        client = beamtime.tiled()
        plain = Container(
            client.context, item=client.item, structure_clients=client.structure_clients
        )
        for query in (
            Eq("start.scan_id", 2),
            Key("scan_id") == 2,
            Key("operator") == "Grace",
        ):
            assert scan_ids(Container.search(plain, query).values()) == [2]
        uid = client[2].start["uid"]
        assert list(Container.search(plain, Like("uid", f"{uid[:9]}%"))) == [uid]
        client.context.close()
