"""The list of runs: found, sorted, paged."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bluesky_tiled_plugins.queries import PartialUID, ScanID, ScanIDRange, TimeRange
from tiled.queries import (
    Comparison,
    Contains,
    Eq,
    FullText,
    In,
    Key,
    KeyPresent,
    Like,
    NotEq,
    NotIn,
    Regex,
)

from bluesky_beamtime import Beamtime
from tests.unit.serving.conftest import Lab

pytestmark = pytest.mark.filterwarnings("default")

Connect = Callable[[], Any]


# Not among the floating-point numbers.
LARGE = 1732230000000000001


def fill(lab: Lab) -> None:
    lab.run(operator="Ada", optics={"energy": 12.0}, elements=["La", "B"], flag=True)
    lab.run(plan_name="count", operator="Grace", optics={"energy": 8}, num=1)
    lab.run(plan_name="fly", exit_status="fail", quote='a "word" 100%', num="1")
    lab.beamtime.sample = "Si"
    lab.run(plan_name="count", elements=["Si"], flag=False, nothing=None, ns=LARGE)


@pytest.fixture
def runs(lab: Lab) -> Lab:
    fill(lab)
    return lab


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give a client that all queries share: each takes a second to make."""
    path = tmp_path_factory.mktemp("catalog") / "x.db"
    with Beamtime(path, sample="LaB6") as beamtime:
        fill(Lab(beamtime))
        client = beamtime.tiled()
        yield client
        client.context.close()


def found(client: Any, *queries: Any) -> list[int]:
    for query in queries:
        client = client.search(query)
    numbers = [run.start["scan_id"] for run in client.values()]
    assert len(client) == len(numbers)
    return numbers


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (Eq("plan_name", "count"), [2, 4]),
        (Key("plan_name") == "count", [2, 4]),
        (Eq("scan_id", 3), [3]),
        (Eq("scan_id", "3"), []),
        (Eq("optics.energy", 12), [1]),
        (Eq("optics.energy", 8.0), [2]),
        (Eq("num", 1), [2]),
        (Eq("num", "1"), [3]),
        (Eq("flag", True), [1]),
        (Eq("flag", 1), []),
        (Eq("nothing", None), [4]),
        (Eq("elements", ["La", "B"]), [1]),
        (Eq("stop.exit_status", "fail"), [3]),
        (NotEq("operator", "Ada"), [2]),
        (NotEq("plan_name", "count"), [1, 3]),
        (Key("optics.energy") > 8, [1]),
        (Key("optics.energy") >= 8, [1, 2]),
        (Key("optics.energy") < 12.0, [2]),
        (Comparison("le", "operator", "Ada"), [1]),
        (Comparison("gt", "scan_id", 2), [3, 4]),
        (Key("ns") == LARGE, [4]),
        (Key("ns") > LARGE, []),
        (Key("ns") >= LARGE, [4]),
        (Key("ns") >= LARGE + 1, []),
        (Key("ns") < LARGE + 1, [4]),
        (Key("ns") < LARGE, []),
        (Key("ns") < 1e30, [4]),
        (Key("ns") < 10**30, [4]),
        (Key("ns") > 10**400, []),
        (Key("ns") > -(10**400), [4]),
        (Key("scan_id") < 10**400, [1, 2, 3, 4]),
        (Contains("elements", 2**70), []),
        (Contains("elements", "Si"), [4]),
        (Contains("operator", "rac"), [2]),
        (Contains("nowhere", "x"), []),
        (In("operator", ["Ada", "Grace", "Eve"]), [1, 2]),
        (In("scan_id", [1, 4]), [1, 4]),
        (In("scan_id", []), []),
        (NotIn("plan_name", ["scan", "fly"]), [2, 4]),
        (KeyPresent("operator"), [1, 2]),
        (KeyPresent("operator", False), [3, 4]),
        (Regex("operator", "^[AG]"), [1, 2]),
        (Regex("operator", "^ada$", case_sensitive=False), [1]),
        (Regex("operator", "^ada$"), []),
        (Like("plan_name", "%oun%"), [2, 4]),
        (FullText("ada"), [1]),
        (FullText("LaB6 grace"), [2]),
        (FullText('"word" 100%'), [3]),
        (ScanID(2), [2]),
        (ScanIDRange(2, 4), [2, 3]),
        (TimeRange(since="2014", timezone="UTC"), [1, 2, 3, 4]),
        (TimeRange(until="2014", timezone="UTC"), []),
    ],
)
def test_every_query_finds_its_runs(
    catalog: Any, query: Any, numbers: list[int]
) -> None:
    assert found(catalog, query) == numbers


def test_queries_narrow_each_other(catalog: Any) -> None:
    assert found(catalog, Eq("plan_name", "count"), KeyPresent("operator")) == [2]


def test_full_text_is_sorted_paged_and_counted(catalog: Any) -> None:
    some = catalog.search(FullText("LaB6"))
    assert found(some) == [1, 2, 3]
    assert found(some, Eq("plan_name", "count")) == [2]
    assert found(some, FullText("grace"), FullText("")) == [2]
    backwards = some.sort(("_", -1))
    assert found(backwards) == [3, 2, 1]
    assert list(backwards.keys().page_size(2)) == list(some)[::-1]
    assert [run.start["scan_id"] for run in backwards.values()[1:]] == [2, 1]
    assert found(some.sort(("plan_name", 1), ("scan_id", -1))) == [2, 3, 1]
    assert some[-1].start["scan_id"] == 3
    assert some[2].start["scan_id"] == 2
    counted = some.distinct("start.plan_name", counts=True, specs=True)
    assert {
        each["value"]: each["count"] for each in counted["metadata"]["start.plan_name"]
    } == {"scan": 1, "count": 1, "fly": 1}
    assert counted["specs"][0]["count"] == 3


async def test_pages_of_one_search_are_counted_once(lab: Lab) -> None:
    from itertools import count

    from tiled.server.core import len_or_approx

    from bluesky_beamtime.serving.catalog import RunCatalog
    from bluesky_beamtime.serving.recent_counts import RecentCounts

    for energy in (8, 9, 10):
        lab.run(optics={"energy": energy})
    # Each look at this clock takes a second, so that a count takes one.
    ticks = count()
    counts = RecentCounts(lambda: next(ticks))
    catalog = RunCatalog(lab.beamtime._database, counts=counts)

    async def of_page(query: Any, direction: int) -> int:
        found = catalog.search(query).sort([("_", direction)])
        return await len_or_approx(found, exact=False, threshold=1)

    above = Eq("optics.energy", 9)
    assert await of_page(Comparison("gt", "optics.energy", 8), 1) == 2
    assert await of_page(above, 1) == 1
    lab.run(optics={"energy": 9})
    lab.run(optics={"energy": 10})
    # What is there for a page and not more is known exactly, the rest from before.
    assert await of_page(above, 1) == 2
    assert await of_page(Comparison("gt", "optics.energy", 8), -1) == 2
    assert await of_page(Comparison("gt", "optics.energy", 9), -1) == 2
    assert await catalog.search(Comparison("gt", "optics.energy", 8)).exact_len() == 4


@pytest.mark.parametrize("direction", [1, -1])
def test_full_text_comes_sorted_out_of_its_index(lab: Lab, direction: int) -> None:
    from sqlalchemy import text
    from sqlalchemy.dialects import sqlite

    from bluesky_beamtime.database.fulltext import matching
    from bluesky_beamtime.serving.catalog import RunCatalog

    lab.run()
    database = lab.beamtime._database
    catalog = RunCatalog(database).search(FullText("scan")).sort([("_", direction)])
    query = matching(catalog._conditions, catalog._number).order_by(*catalog._order())
    written = query.compile(
        dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}
    )
    with database.reading() as connection:
        plan = str(connection.execute(text(f"EXPLAIN QUERY PLAN {written}")).all())
    assert "VIRTUAL TABLE" in plan
    assert "TEMP B-TREE" not in plan


def test_what_makes_no_sense_says_so(catalog: Any) -> None:
    from tiled.client.container import Container

    for query in (
        Eq("beamtime.sample", "LaB6"),
        Regex("start.plan_name", "(("),
        Eq('start.a"b', 1),
    ):
        with pytest.raises(Exception, match=r"400|searched|regular"):
            len(Container.search(catalog, query))


def test_a_regular_expression_has_its_time(
    lab: Lab, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiled.client.utils import ClientError

    for name in ("_SECONDS", "_SECONDS_ALONE"):
        monkeypatch.setattr(f"bluesky_beamtime.serving.searching.{name}", 0.1)
    long = "a" * 64 + "!"
    lab.run(loop=long, configured=long)
    client = connect()
    endless = client.search(Regex("loop", "^(a|aa)+$"))
    for ask in (len, list, lambda found: found.values()[0]):
        with pytest.raises(ClientError, match="takes too long"):
            ask(endless)
    assert len(client.search(Regex("loop", "^a+!$"))) == 1
    streams = client[-1]
    assert list(streams.search(Regex("configuration.motor.data.text", "^a+!$")))
    with pytest.raises(ClientError, match="takes too long"):
        list(streams.search(Regex("configuration.motor.data.text", "^(a|aa)+$")))


def test_runs_are_found_as_bluesky_finds_them(runs: Any, connect: Connect) -> None:
    client = connect()
    uids = list(runs.emitted)
    assert list(client) == uids
    assert client[-1].start["scan_id"] == 4
    assert client[-4].start["scan_id"] == 1
    assert client[2].start["uid"] == uids[1]
    assert client[uids[2]].start["scan_id"] == 3
    assert client[uids[2][:9]].start["scan_id"] == 3
    assert found(client, PartialUID(uids[0][:7])) == [1]
    for missing in (99, "nosuchrun", -5):
        with pytest.raises((KeyError, IndexError)):
            client[missing]


def test_the_newest_of_two_with_one_number(lab: Any, connect: Connect) -> None:
    lab.run(scan_id=7)
    newer = lab.run(scan_id=7)
    assert connect()[7].start["uid"] == newer


def test_sorted_by_any_key(runs: Any, connect: Connect) -> None:
    client = connect()

    def order(*sorting: Any) -> list[int]:
        return [run.start["scan_id"] for run in client.sort(*sorting).values()]

    assert order(("_", -1)) == [4, 3, 2, 1]
    assert order(("scan_id", -1)) == [4, 3, 2, 1]
    assert order(("plan_name", 1), ("scan_id", -1)) == [4, 2, 3, 1]
    assert order(("start.optics.energy", -1))[:2] == [1, 2]


def test_pages_hold_every_run_once(lab: Any, connect: Connect) -> None:
    for _ in range(23):
        lab.run(0)
    client = connect()
    everything = list(range(1, 24))
    assert [run.start["scan_id"] for run in client.values()] == everything
    assert list(client.keys()) == list(lab.emitted)
    assert list(client.keys().page_size(5)) == list(lab.emitted)
    assert [r.start["scan_id"] for r in client.values()[5:9]] == everything[5:9]
    assert [r.start["scan_id"] for r in client.values().tail(3)] == everything[-3:]
    by_plan = client.sort(("plan_name", 1))
    assert [r.start["scan_id"] for r in by_plan.values()[20:]] == everything[20:]


def test_distinct_values_are_counted(runs: Any, connect: Connect) -> None:
    answer = connect().distinct("start.plan_name", "stop.exit_status", counts=True)
    plans = {
        row["value"]: row["count"] for row in answer["metadata"]["start.plan_name"]
    }
    assert plans == {"scan": 1, "count": 2, "fly": 1}
    ends = {
        row["value"]: row["count"] for row in answer["metadata"]["stop.exit_status"]
    }
    assert ends == {"success": 3, "fail": 1}


def test_metadata_are_the_documents(runs: Any, connect: Connect) -> None:
    client = connect()
    for uid, documents in runs.emitted.items():
        metadata = dict(client[uid].metadata)
        assert metadata["start"] == documents[0][1]
        assert metadata["stop"] == documents[-1][1]
    about = client[-1].metadata["beamtime"]
    assert about["sample"] == "Si"
    assert about["status"] == "success"
    assert about["began"]


def test_a_time_that_no_calendar_has_hides_no_run(lab: Any, connect: Connect) -> None:
    lab.run()
    lab.beamtime("start", {"uid": "odd-time", "time": 1.8e18})
    client = connect()
    assert client["odd-time"].metadata["beamtime"]["began"] == "–"
    assert len(list(client.values())) == 2


def test_what_is_added_to_a_run_is_there(runs: Any, connect: Connect) -> None:
    run = runs.beamtime[1]
    run.tag("good")
    run.star()
    run.note("look at peak 3", author="Ada")
    about = connect()[1].metadata["beamtime"]
    assert about["tags"] == ["good"]
    assert about["starred"] is True
    assert [note["text"] for note in about["notes"]] == ["look at peak 3"]


def test_runs_that_go_on_are_there_and_grow(lab: Any, connect: Connect) -> None:
    client = connect()
    assert len(client) == 0
    uid = lab.run(stop=False)
    run = client[uid]
    assert run.stop is None
    assert run.metadata["beamtime"]["status"] == "running"
    assert run.primary.read()["x"].values.tolist() == [0, 1, 2]
    lab.run()
    deadline = time.monotonic() + 10
    while len(client.new_variation()) < 2:
        assert time.monotonic() < deadline
    assert [name for name, _ in run.documents()] == ["start", "descriptor"] + 3 * [
        "event"
    ]


def test_a_run_outlives_the_catalogue(lab: Lab) -> None:
    """In one expression nobody holds the client that everything comes from."""
    lab.run(plan_name="count")
    run = lab.beamtime.tiled()[-1]
    gc.collect()
    assert next(name for name, _ in run.documents()) == "start"
    assert lab.beamtime.tiled()[-1].start["plan_name"] == "count"
    context = weakref.ref(run.context)
    del run
    gc.collect()
    assert context() is None
