"""Several beamtimes, and those that an index knows, from one server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from bluesky_beamtime import Beamtime, Index
from bluesky_beamtime.database import schema
from bluesky_beamtime.errors import BeamtimeFileError
from bluesky_beamtime.serving.shelf import Shelf
from tests.served import client_of, served
from tests.unit.serving.conftest import Lab

pytestmark = pytest.mark.filterwarnings("default")


def make(path: Path, *plans: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    with Beamtime(path) as beamtime:
        lab = Lab(beamtime)
        for plan in plans:
            lab.run(plan_name=plan)
    return path


def page_of(address: str, path: str) -> httpx.Response:
    bare, _, key = address.partition("/api/v1?api_key=")
    headers = {"Authorization": f"Apikey {key}"}
    return httpx.get(f"{bare}/beamtime/{path}", headers=headers, timeout=60)


def test_several_files_are_catalogues_under_their_names(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a.db", "scan", "count"), make(tmp_path / "b.db", "fly")
    with served(a, b) as address, client_of(address) as client:
        assert sorted(client) == ["a", "b"]
        assert [run.start["plan_name"] for run in client["a"].values()] == [
            "scan",
            "count",
        ]
        assert client["b"][-1].start["plan_name"] == "fly"
        assert client["b"][-1].primary.read()["x"].values.tolist() == [0, 1, 2]
        assert client["b"].metadata["beamtime"]["name"] == "b"
        assert len(list(client["a"][1].documents())) == 6
        overview = page_of(address, "").text
        assert 'href="a/"' in overview
        assert 'href="b/"' in overview
        assert page_of(address, "b/").status_code == 200


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    a, b = make(tmp_path / "1" / "x.db"), make(tmp_path / "2" / "x.db")
    with pytest.raises(BeamtimeFileError, match="two beamtimes are called 'x'"):
        Shelf([a, b])


def test_nothing_to_serve_is_refused() -> None:
    with pytest.raises(BeamtimeFileError, match=r"\.db"):
        Shelf([])


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Give an index over two beamtimes on disks of their own, and two of one name."""
    for disk, plans in (("one", ["scan"]), ("two", ["count", "fly"])):
        make(tmp_path / disk / f"{disk}.db", *plans)
    file = tmp_path / "all.index"
    for disk in ("one", "two"):
        Index(file).refresh(tmp_path / disk)
    return file


def test_an_index_is_its_beamtimes_also_those_absent(
    index: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "two"
    with served(index) as address, client_of(address) as client:
        assert list(client) == ["one", "two"]
        assert client["two"][-1].start["plan_name"] == "fly"
        disk.rename(tmp_path / "unplugged")
        assert list(client) == ["one", "two"]
        about = client["two"].metadata["beamtime"]
        assert about["available"] is False
        assert about["runs"] == 2
        assert "connect its disk" in about["reason"]
        assert len(client["two"]) == 0
        assert client["one"][-1].start["plan_name"] == "scan"
        answer = page_of(address, "two/")
        assert answer.status_code == 410
        assert "connect its disk" in answer.text
        assert "connect its disk" in page_of(address, "").text
        (tmp_path / "unplugged").rename(disk)
        assert client["two"][-1].start["plan_name"] == "fly"
        assert client["two"].metadata["beamtime"]["available"] is True


def test_a_file_that_takes_the_place_of_another_is_served(
    index: Path, tmp_path: Path
) -> None:
    one = tmp_path / "one" / "one.db"
    shelf = Shelf([index])
    before = shelf.contents().available["one"]
    assert shelf.contents().available["one"] is before
    (tmp_path / "two" / "two.db").replace(one)
    contents = shelf.contents()
    with contents.available["one"].reading() as connection:
        query = select(schema.runs.c.plan_name).order_by(schema.runs.c.id)
        assert list(connection.execute(query).scalars()) == ["count", "fly"]
    assert before.closed
    assert list(contents.absent) == ["two"]
    shelf.close()


def test_a_file_that_is_damaged_does_not_hide_the_others(
    index: Path, tmp_path: Path
) -> None:
    (tmp_path / "one" / "one.db").write_bytes(b"no beamtime" * 100)
    shelf = Shelf([index])
    contents: Any = shelf.contents()
    assert list(contents.available) == ["two"]
    assert list(contents.absent) == ["one"]
    shelf.close()


def test_labels_that_are_alike_stay_apart(tmp_path: Path) -> None:
    file = tmp_path / "all.index"
    for disk in ("one", "two"):
        make(tmp_path / disk / "x.db", disk)
        Index(file).refresh(tmp_path / disk / "x.db", label="a/../b")
    shelf = Shelf([file, tmp_path / "one" / "x.db"])
    contents = shelf.contents()
    # One of the two was named by its path besides.
    assert len(contents.available) == 2
    assert not [name for name in contents.available if "/" in name]
    shelf.close()
