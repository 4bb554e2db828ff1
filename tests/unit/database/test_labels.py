"""Tags, stars and notes that people add to a run."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import DocumentError, ReadOnlyError

START = {"uid": "a", "time": 1.0, "tags": ["from start"]}


@pytest.fixture
def beamtime(tmp_path):
    with Beamtime(tmp_path / "x.db") as beamtime:
        beamtime("start", START)
        yield beamtime


def test_tags_come_and_go(beamtime) -> None:
    run = beamtime["a"]
    run.tag("good", "for paper")
    run.tag("good")
    assert run.tags == ["for paper", "from start", "good"]
    assert list(beamtime.search(tags=["good", "from start"])) == [run]
    run.untag("good", "never there")
    run.untag("from start")
    assert run.tags == ["for paper"]
    assert not beamtime.search(tags="good")
    assert run.start["tags"] == ["from start"]


@pytest.mark.parametrize("tags", [(), ("",), ("  ",), (3,), ("good", None), (["x"],)])
def test_what_is_no_tag_is_refused_and_nothing_stored(beamtime, tags) -> None:
    for change in (beamtime["a"].tag, beamtime["a"].untag):
        with pytest.raises(DocumentError, match="tag"):
            change(*tags)
    assert beamtime["a"].tags == ["from start"]


def test_a_star_comes_and_goes(beamtime) -> None:
    run = beamtime["a"]
    assert run.starred is False
    run.star()
    run.star()
    assert run.starred is True
    assert list(beamtime.search(starred=True)) == [run]
    assert not beamtime.search(starred=False)
    run.unstar()
    assert run.starred is False
    assert not beamtime.search(starred=True)


def test_a_run_that_is_over_can_still_be_starred(beamtime) -> None:
    stop = {"uid": "s", "run_start": "a", "time": 2.0, "exit_status": "success"}
    beamtime("stop", stop)
    run = beamtime["a"]
    assert run.stop == stop
    run.star()
    assert run.starred
    assert run.stop == stop


def test_notes_say_who_and_when(beamtime) -> None:
    run = beamtime["a"]
    before = time.time()
    note = run.note("the shutter was closed", author="Zoë")
    run.note('with "quotes"\nand two lines')
    assert before <= note.time <= time.time()
    assert run.notes[0] == note
    assert (note.text, note.author, note.run_uid) == (
        "the shutter was closed",
        "Zoë",
        "a",
    )
    assert str(note) == "the shutter was closed (Zoë)"
    assert [each.text for each in run.notes][1] == 'with "quotes"\nand two lines'
    assert run.notes[1].author is None
    assert list(beamtime.search(text="SHUTTER was")) == [run]
    assert beamtime.notes == []


def test_notes_of_the_beamtime(beamtime) -> None:
    note = beamtime.note("beam back at 14:20", author="Ada")
    assert beamtime.notes == [note]
    assert beamtime["a"].notes == []
    for text in ("", " ", None, 3):
        with pytest.raises(DocumentError, match="a note needs a text"):
            beamtime.note(text)
        with pytest.raises(DocumentError, match="a note needs a text"):
            beamtime["a"].note(text)


def test_reading_adds_nothing(beamtime) -> None:
    with Beamtime(beamtime.path, mode="r") as reader:
        run = reader["a"]
        for change in (
            lambda: run.tag("x"),
            lambda: run.untag("x"),
            run.star,
            run.unstar,
            lambda: run.note("x"),
            lambda: reader.note("x"),
        ):
            with pytest.raises(ReadOnlyError, match="mode='a'"):
                change()
        assert (run.tags, run.starred, run.notes) == (["from start"], False, [])


def test_streams_with_such_names_are_items(beamtime) -> None:
    for name in ("notes", "tag"):
        beamtime(
            "descriptor",
            {
                "uid": f"d-{name}",
                "run_start": "a",
                "name": name,
                "time": 1.0,
                "data_keys": {},
            },
        )
    run = beamtime["a"]
    assert run.notes == []
    assert run["notes"].name == "notes"
    assert run["tag"].name == "tag"


WRITER = """
import sys
from bluesky_beamtime import Beamtime
name = sys.argv[2]
with Beamtime(sys.argv[1]) as beamtime:
    run = beamtime["a"]
    for number in range(20):
        run.tag(f"{name}-{number}")
        run.note(f"note {number} of {name}", author=name)
        run.star()
"""


def test_several_processes_add_at_once(beamtime) -> None:
    """Each adds while the others do, and this process keeps the file open."""
    names = ["one", "two", "three"]
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(beamtime.path), name])
        for name in names
    ]
    for process in processes:
        assert process.wait(timeout=100) == 0
    run = beamtime["a"]
    assert len(run.tags) == 61
    assert len(run.notes) == 60
    assert run.starred
    for name in names:
        assert list(beamtime.search(text=f"{name}-19", tags=f"{name}-0")) == [run]
        assert list(beamtime.search(text=f"note 19 of {name} ({name})")) == [run]
