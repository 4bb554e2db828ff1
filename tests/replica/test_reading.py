"""The reading side, over a file and over a server that followed it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ReadOnlyError, RunNotFoundError
from bluesky_beamtime.testing import assert_documents_equal

from .conftest import Documents, caught_up, make_rich_run, make_run, record

Reopen = Callable[[], Beamtime]


@pytest.fixture(params=["file", "server"])
def kept(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Beamtime, Reopen]]:
    """Give a beamtime to record into, and what opens it for reading."""
    opened: list[Beamtime] = []
    if request.param == "file":
        beamtime = Beamtime(tmp_path / "x.db", sample="LaB6")

        def reopen() -> Beamtime:
            opened.append(Beamtime(tmp_path / "x.db", mode="r"))
            return opened[-1]

    else:
        url: str = request.getfixturevalue("url")
        beamtime = Beamtime(url, spool=tmp_path, sample="LaB6")

        def reopen() -> Beamtime:
            caught_up(beamtime)
            opened.append(Beamtime(url, mode="r"))
            return opened[-1]

    yield beamtime, reopen
    for each in opened:
        each.close()
    beamtime.close()


def keep(kept: tuple[Beamtime, Reopen], *runs: Documents) -> tuple[Beamtime, list[str]]:
    beamtime, reopen = kept
    uids = [record(beamtime, run) for run in runs]
    return reopen(), uids


def test_runs_are_found(kept) -> None:
    reader, uids = keep(kept, *(make_run(scan_id=n, number=n) for n in (1, 2, 2, 5)))
    assert len(reader) == 4
    assert [run.uid for run in reader] == uids[::-1]
    assert reader[-1].uid == uids[3]
    assert reader[-4].uid == uids[0]
    assert reader[2].uid == uids[2]
    assert reader[np.int64(5)].uid == uids[3]
    assert reader[uids[1]].uid == uids[1]
    assert reader[uids[1][:9]].uid == uids[1]
    assert uids[1] in reader
    assert "x" not in reader
    for key in (0, 3, 99, -5, "nobody"):
        with pytest.raises(RunNotFoundError):
            reader[key]
    assert [run.uid for run in reader.search(number=2)] == [uids[2], uids[1]]
    assert [run.uid for run in reader.search(plan_name="count")[1:3]] == uids[2:0:-1]


def test_uids_that_begin_alike(kept) -> None:
    runs = []
    for uid in ("aa-1", "aa-2", "aA-3", "ab-4", "é-5"):
        run = make_run(0)
        run[0][1]["uid"] = uid
        for _, doc in run[1:]:
            doc["run_start"] = uid
        runs.append(run)
    reader, _ = keep(kept, *runs)
    assert reader["aA"].uid == "aA-3"
    assert reader["ab"].uid == "ab-4"
    assert reader["é"].uid == "é-5"
    with pytest.raises(RunNotFoundError, match=r"aa-2.*aa-1|aa-1.*aa-2"):
        reader["aa"]


SEARCHES: list[tuple[dict[str, Any], list[int]]] = [
    ({"plan_name": "scan"}, [2]),
    ({"sample": "LaB6"}, [3, 1, 0]),
    ({"sample": "Si"}, [2]),
    ({"sample": "Au"}, []),
    ({"tags": "good"}, [1, 0]),
    ({"tags": ["good", "best"]}, [1]),
    ({"since": "2000-01-01"}, [3, 2, 1, 0]),
    ({"until": "2000-01-01"}, []),
    ({"text": "größe"}, [0]),
    ({"text": "100%"}, [0]),
    ({"text": "0_%"}, []),
    ({"text": 'say "yes"'}, [2]),
    ({"text": "back\\slash"}, [3]),
    ({"text": "ni"}, [1]),
    ({"text": "nickel", "plan_name": "count"}, [1]),
    ({"text": "si"}, [2]),
    ({"optics.energy": 12}, [1, 0]),
    ({"optics.energy": 12.5}, [2]),
    ({"optics": {"energy": 12.5}}, [2]),
    ({"flag": True}, [0]),
    ({"flag": 1}, [1]),
    ({"flag": "1"}, [2]),
    ({"flag": None}, [3]),
    ({"list": [1, 2]}, [1]),
    ({"a.b": "dotted"}, [2]),
    ({"huge": 2**70}, [3]),
    ({"missing": 1}, []),
    ({"exit_status": "success"}, [3, 2, 1, 0]),
    ({"starred": True}, [1]),
    ({"proposal": "P-1"}, [2]),
    ({"user": "Marie"}, [2]),
]


def test_searches(kept) -> None:
    beamtime, _ = kept
    runs = [
        make_run(
            1, purpose="Größe 100%", optics={"energy": 12.0}, flag=True, tags="good"
        ),
        make_run(
            1,
            material="Nickel",
            optics={"energy": 12},
            flag=1,
            list=[1, 2],
            tags=["good"],
        ),
        make_run(
            1,
            plan_name="scan",
            sample="Si",
            optics={"energy": 12.5},
            flag="1",
            proposal="P-1",
            users=["Marie"],
            remark='say "yes" or no',
            a={"b": "dotted"},
        ),
        make_run(1, flag=None, huge=2**70, remark="back\\slash", nul="a\0b"),
    ]
    uids = [record(beamtime, run) for run in runs]
    beamtime[uids[1]].tag("best")
    beamtime[uids[1]].star()
    _, reopen = kept
    reader = reopen()
    for query, expected in SEARCHES:
        found = reader.search(**query)
        assert [uids.index(run.uid) for run in found] == expected, query
        assert len(found) == len(expected), query
        assert bool(found) is bool(expected), query


def test_orders_pages_and_values(kept) -> None:
    runs = [
        make_run(n, scan_id=n, optics={"energy": e}, kind=kind)
        for n, e, kind in ((1, 3.5, "a"), (2, 1, "b"), (3, 2, "a"))
    ]
    reader, _ = keep(kept, *runs, make_run(0, scan_id=4))
    everything = reader.search()

    def numbers(runs) -> list[int]:
        return [run.scan_id for run in runs]

    assert numbers(everything.sorted_by("optics.energy")) == [2, 3, 1, 4]
    assert numbers(everything.sorted_by("-optics.energy")) == [1, 3, 2, 4]
    assert numbers(everything.sorted_by("kind", "-scan_id")) == [3, 1, 2, 4]
    assert numbers(everything.sorted_by("-num_events")) == [3, 2, 1, 4]
    assert numbers(everything.limit(2, skip=1)) == [3, 2]
    assert reader.distinct("kind") == {"a": 2, "b": 1}
    assert reader.distinct("plan_name") == {"count": 4}
    assert reader.distinct("optics.energy") == {3.5: 1, 1: 1, 2: 1}
    assert reader.distinct("optics") == {
        '{"energy":3.5}': 1,
        '{"energy":1}': 1,
        '{"energy":2}': 1,
    }


def test_documents_and_values(kept) -> None:
    docs = make_rich_run()
    reader, (uid,) = keep(kept, docs)
    run = reader[uid]
    assert_documents_equal(run.documents(), docs)
    assert_documents_equal(run.documents(original=True), docs)
    assert run.stream_names == ["primary", "baseline"]
    data = run.primary.read(["x", "word", "image"])
    assert data["x"].values[2] == np.inf
    assert data["word"].values[1] == "w\0001"
    assert np.asarray(data["image"])[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert run.baseline.read()["x"].values.tolist() == [3.0]
    assert len(run.primary) == 6
    assert run.primary.timestamps()["x"].values.tolist() == [1.0] * 6
    assert run.metadata["text"] == "a\0b ü 💎"


def test_long_runs_in_columns(kept) -> None:
    beamtime, reopen = kept
    uid = record(beamtime, make_run(5000))
    beamtime.pack()
    run = reopen()[uid]
    assert run.primary.read()["x"].values.tolist() == [float(n) for n in range(5000)]
    assert run.num_events == 5000
    assert len(run.primary.to_pandas()) == 5000


def test_what_a_run_says_of_itself(kept) -> None:
    reader, (uid,) = keep(kept, make_run(3, scan_id=12))
    run = reader[uid]
    assert "Run 12" in repr(run)
    assert "success" in run._repr_html_()
    assert run.summary()["num_events"] == 3
    assert [line["uid"] for line in reader.summaries()] == [uid]
    assert run.complete
    assert run == reader[uid]
    assert hash(run) == hash(reader[uid])
    assert "1 run, " in repr(reader)
    run.plot()


def test_it_can_only_be_read(kept, RE) -> None:
    docs = make_run()
    reader, (uid,) = keep(kept, docs)
    for attempt in (
        lambda: reader(*docs[0]),
        lambda: reader.attach(RE),
        lambda: reader.next_scan_id(),
        lambda: reader.frames,
        lambda: setattr(reader, "sample", "x"),
        lambda: reader.note("x"),
        lambda: reader[uid].tag("x"),
        lambda: reader[uid].note("x"),
        lambda: reader.pack(),
    ):
        with pytest.raises(ReadOnlyError, match="mode='a'"):
            attempt()


def test_sql(kept) -> None:
    pytest.importorskip("pandas")
    reader, (uid,) = keep(kept, make_run(3, scan_id=4, optics={"energy": 8}))
    found = reader.sql("SELECT uid, scan_id FROM runs")
    assert found.values.tolist() == [[uid, 4]]


def test_closed_is_closed(kept) -> None:
    reader, _ = keep(kept, make_run())
    reader.close()
    reader.close()
    assert repr(reader).endswith(" closed>")
    with pytest.raises(Exception, match="is closed"):
        len(reader)
