"""Copying a prefix, and finding what did not arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from bluesky_beamtime.errors import BackendError
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    MemoryBackend,
    RecordingBackend,
    copy_prefix,
)
from bluesky_beamtime.storage.backends.contract import fill
from bluesky_beamtime.storage.backends.recording import Call

KEYS = ("zarr.json", "g/zarr.json", "g/a/zarr.json", "g/a/c.0", "g/b.txt", "ga/x")


def test_everything_below_a_prefix(tmp_path: Path) -> None:
    source, destination = LocalBackend(tmp_path), MemoryBackend()
    fill(source, KEYS)
    report = copy_prefix(source, destination)
    assert list(destination.list_prefix("", recursive=True)) == sorted(KEYS)
    assert (report.values, report.size) == (6, sum(map(len, KEYS)))
    copy_prefix(source, destination, "g", "elsewhere/h/")
    assert list(destination.list_prefix("elsewhere", recursive=True)) == [
        "elsewhere/h/a/c.0",
        "elsewhere/h/a/zarr.json",
        "elsewhere/h/b.txt",
        "elsewhere/h/zarr.json",
    ]
    assert destination.get_bytes("elsewhere/h/a/c.0") == b"g/a/c.0"


def test_metadata_comes_last_and_deepest_first() -> None:
    source, destination = MemoryBackend(), RecordingBackend(MemoryBackend())
    fill(source, KEYS)
    copy_prefix(source, destination, verify=False)
    assert [call[1] for call in destination.called("put_bytes")] == [
        "g/a/c.0",
        "g/b.txt",
        "ga/x",
        "g/a/zarr.json",
        "g/zarr.json",
        "zarr.json",
    ]


def test_some_can_be_left_out() -> None:
    source, destination = MemoryBackend(), MemoryBackend()
    fill(source, KEYS)
    report = copy_prefix(source, destination, include=lambda key: "zarr" not in key)
    assert list(destination.list_prefix("", True)) == ["g/a/c.0", "g/b.txt", "ga/x"]
    assert len(report.skipped) == 3


def test_what_vanishes_meanwhile_is_reported() -> None:
    inner = MemoryBackend()
    fill(inner, ("a", "b", "c"))

    def remove(call: Call) -> None:
        if call == ("get_bytes", "b"):
            inner.delete("b")

    report = copy_prefix(RecordingBackend(inner, remove), MemoryBackend())
    assert (report.values, report.skipped) == (2, ("b",))


class Rot(MemoryBackend):
    """Loses or turns over one byte of what it is given."""

    def __init__(self, place: int | None) -> None:
        super().__init__()
        self.place = place

    def put_bytes(self, key: str, data: bytes) -> None:  # type: ignore[override]
        spoiled = bytearray(data)
        if self.place is None:
            spoiled.pop()
        else:
            spoiled[self.place] ^= 1
        super().put_bytes(key, spoiled)


@pytest.mark.parametrize("place", [None, 0, 9 << 20, (10 << 20) - 1])
def test_what_arrives_otherwise_is_found(place: int | None) -> None:
    source = MemoryBackend()
    source.put_bytes("a/b", bytes(10 << 20))
    with pytest.raises(BackendError, match="'a/b' did not arrive whole"):
        copy_prefix(source, Rot(place))
    # Not asked for, it is not looked for.
    assert copy_prefix(source, Rot(place), verify=False).values == 1
