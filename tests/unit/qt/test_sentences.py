"""What a window says of a scan storage (L-29)."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from bluesky_beamtime.qt.sentences import (
    as_tooltip,
    doing,
    next_file,
    trouble,
    troubles,
)
from bluesky_beamtime.storage import ScanStatus

IDLE = ScanStatus(
    base="/data",
    folder="LaB6",
    name="map",
    numbered=True,
    enabled=True,
    number=3,
    target=Path("/data/LaB6/map_3.zarr"),
    reserved=0,
    writing=0,
    failures=(),
)
FAILED = ((Path("/data/LaB6/map_1.zarr"), OSError("the disk is full")),)


@pytest.mark.parametrize(
    ("reserved", "writing", "failures", "text"),
    [
        (0, 0, (), "Nothing reserved, nothing being saved"),
        (1, 0, (), "1 scan reserved"),
        (0, 1, (), "1 scan being saved"),
        (1, 2, (), "1 scan reserved, 2 being saved"),
        (0, 12, (), "12 scans being saved"),
        (0, 0, FAILED, "1 scan not saved"),
        (1, 1, FAILED * 2, "1 scan reserved, 1 being saved, 2 not saved"),
    ],
)
def test_status_counts_scans_in_words(
    reserved: int, writing: int, failures: tuple[tuple[Path, Exception], ...], text: str
) -> None:
    assert (
        doing(replace(IDLE, reserved=reserved, writing=writing, failures=failures))
        == text
    )


def test_a_storage_that_is_off_says_so_unless_it_still_saves() -> None:
    off = replace(IDLE, enabled=False)
    assert doing(off) == "Switched off: scans are not saved"
    assert doing(replace(off, writing=1)) == "1 scan being saved"


def test_trouble_names_the_first_file_its_error_and_how_many_more() -> None:
    assert trouble(IDLE) == troubles(IDLE) == ""
    one = replace(IDLE, failures=FAILED)
    assert trouble(one).startswith("map_1.zarr was not saved: the disk is full\n")
    more = replace(
        IDLE, failures=(*FAILED, (Path("/data/LaB6/b_2.zarr"), OSError("gone")))
    )
    assert "and 1 more" in trouble(more)
    assert "/data/LaB6/b_2.zarr<br>gone" in troubles(more)


def test_a_tooltip_shows_names_as_they_are() -> None:
    assert as_tooltip("<b>&\n") == "<qt>&lt;b&gt;&amp;<br></qt>"
    assert as_tooltip("") == ""


def test_what_is_gone_is_not_told_to_be_kept() -> None:
    assert trouble(replace(IDLE, failures=FAILED)).endswith("are kept on disk.")
    gone = ((FAILED[0][0], FileNotFoundError(errno.ENOENT, "the folder is gone")),)
    assert "kept" not in trouble(replace(IDLE, failures=gone))


def test_number_is_left_open_while_somebody_types() -> None:
    assert next_file(IDLE, False) == ("next number: 3", "/data/LaB6/map_3.zarr")
    assert next_file(IDLE, True) == ("next number: …", "/data/LaB6/map_….zarr")
    bare = replace(IDLE, number=None, target=Path("/data/LaB6/map.zarr"))
    assert next_file(bare, True) == ("", "/data/LaB6/map.zarr")
    assert next_file(replace(IDLE, enabled=False), True)[1] == "none"
