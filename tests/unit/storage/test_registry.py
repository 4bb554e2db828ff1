"""One writer for each name and format: rows R-03 to R-06, R-72 to R-75, R-77, R-78."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import (
    MissingExtraError,
    StoreStateError,
    UnsupportedFormatError,
)
from bluesky_beamtime.storage import (
    FrameSink,
    HasWriter,
    Writer,
    ZarrWriter,
    get_available_writers,
    make_writer,
    open_frames,
    register_writer,
    registry,
)


class Other(Writer):
    """A format that is not built in."""

    @classmethod
    def _class_mimetype(cls) -> str:
        return "application/x-test-other"

    def _on_prepare(self, name: str) -> None: ...

    def kickoff(self) -> None: ...

    def _write_frame(self, name: str, frame: Any) -> None: ...

    def _finalize(self) -> None: ...


class Rival(Other):
    """Another class for the same mimetype."""


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the formats that a test registers."""
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    yield


def test_r03_one_instance_for_each_name_and_format():
    """R-03: two groups of one format and one group of two formats are three."""
    three = {ZarrWriter.get("a"), ZarrWriter.get("b"), Other.get("a")}
    assert len(three) == 3
    assert ZarrWriter.get("a") in three


def test_r04_get_is_get():
    """R-04: the same object each time, 'default' without a name, no URI yet."""
    assert Other.get() is Other.get("default") is Other.get()
    assert Other.get().uri == ""


def test_r04_threads_get_one_instance(monkeypatch: pytest.MonkeyPatch):
    """R-04: 32 threads at once, one construction."""
    made: list[str] = []
    monkeypatch.setattr(
        Other,
        "__init__",
        lambda self, name: (made.append(name), Writer.__init__(self, name))[1],
    )
    start = threading.Barrier(32)
    found: list[Writer] = []

    def get() -> None:
        start.wait(30)
        found.append(Other.get("threads"))

    threads = [threading.Thread(target=get) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 32 and len(set(found)) == 1
    assert made == ["threads"]


@pytest.mark.parametrize("order", [(Other, Rival), (Rival, Other)])
def test_r05_another_class_is_refused_whatever_the_order(order: tuple[Any, Any]):
    """R-05: TypeError with the key and both class names; a subclass is no exception."""
    first, second = order
    first.get("group")
    with pytest.raises(TypeError) as caught:
        second.get("group")
    for word in ("group", "application/x-test-other", first.__name__, second.__name__):
        assert word in str(caught.value)


def test_r06_release():
    """R-06: twice is nothing; the next get() is a fresh writer."""
    before = Other.get("group")
    Other.release("group")
    Other.release("group")
    assert Other.get("group") is not before


def test_r06_release_refuses_a_writer_that_is_receiving(
    begin: Callable[..., tuple[ZarrWriter, list[FrameSink]]],
):
    """R-06: its files would leak, and another writer could open the same store."""
    writer, (sink,) = begin("cam")
    sink.write(np.zeros((4, 6), "<u2"))
    with pytest.raises(StoreStateError, match="cam"):
        ZarrWriter.release(writer.name)
    assert ZarrWriter.get(writer.name) is writer and writer.is_open
    sink.close()
    ZarrWriter.release(writer.name)
    assert ZarrWriter.get(writer.name) is not writer


def test_r06_release_closes_an_idle_writer(
    begin: Callable[..., tuple[ZarrWriter, list[FrameSink]]], tmp_path: Path
):
    """R-06: another writer can have the store at once."""
    writer, (sink,) = begin("cam")
    ZarrWriter.release(writer.name)
    assert not writer.is_open and sink.closed
    _, (again,) = begin("cam")
    again.write(np.ones((4, 6), "<u2"))
    again.close()
    assert len(open_frames(again.uri)) == 1


def test_two_writers_never_write_one_array(
    begin: Callable[..., tuple[ZarrWriter, list[FrameSink]]], tmp_path: Path
):
    """The second is refused while the first lives, and afterwards for its frames."""
    _, (sink,) = begin("cam")
    with pytest.raises(StoreStateError, match="live"):
        begin("cam")
    sink.write(np.ones((4, 6), "<u2"))
    sink.close()
    with pytest.raises(StoreStateError, match="holds frames"):
        begin("cam")
    assert len(open_frames(sink.uri)) == 1


def test_r72_make_writer_returns_the_singleton():
    """R-72: the same as get() of the class."""
    writer = make_writer("application/x-zarr", "made")
    assert writer is make_writer("application/x-zarr", "made")
    assert writer is ZarrWriter.get("made")
    assert type(writer) is ZarrWriter
    assert make_writer("application/x-zarr") is ZarrWriter.get()


def test_r72_options_are_those_of_the_constructor():
    """R-72: used when the writer is made; other ones later are refused, not ignored."""
    writer = make_writer("application/x-zarr", "o", compression="lz4", threads=3)
    assert isinstance(writer, ZarrWriter)
    assert (writer.compression, writer.threads) == ("lz4", 3)
    assert make_writer("application/x-zarr", "o") is writer
    assert make_writer("application/x-zarr", "o", compression="lz4") is writer
    with pytest.raises(StoreStateError, match="compression"):
        make_writer("application/x-zarr", "o", compression="zstd")


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"},
        {"frames_per_shard": 0},
        {"frames_per_shard": 2.5},
        {"durability": "none"},
        {"threads": 0},
    ],
)
def test_r72_wrong_options_are_refused(options: dict[str, Any]):
    """R-72: nothing is registered for a writer that cannot be made."""
    with pytest.raises(ValueError):
        make_writer("application/x-zarr", "wrong", **options)
    assert "wrong" not in get_available_writers().get("application/x-zarr", {})


def test_r73_unknown_format():
    """R-73: a ValueError that lists what is known."""
    with pytest.raises(ValueError, match="application/x-zarr") as caught:
        make_writer("application/x-nothing")
    assert isinstance(caught.value, UnsupportedFormatError)


@pytest.mark.usefixtures("unregistered")
def test_r74_missing_package(monkeypatch: pytest.MonkeyPatch):
    """R-74: the error of a format that lacks its package names the extra."""

    class Entry(EntryPoint):
        def load(self) -> type[Writer]:
            raise MissingExtraError("this format", "nopackage", "noextra")

    entry = Entry("application/x-test-lacking", "nowhere", "group")
    monkeypatch.setattr(registry, "entry_points", lambda **_: [entry])
    with pytest.raises(ImportError, match=r"bluesky-beamtime\[noextra\]"):
        make_writer("application/x-test-lacking")


def test_r75_available_writers_are_a_snapshot():
    """R-75: {mimetype: {name: writer}}; changing it changes nothing."""
    one, two = Other.get("one"), Other.get("two")
    found = get_available_writers()
    assert found["application/x-test-other"] == {"one": one, "two": two}
    found["application/x-test-other"].clear()
    found.clear()
    assert get_available_writers()["application/x-test-other"]["one"] is one


def test_r77_has_writer():
    """R-77: by the method's name."""

    class Device:
        def get_writer(self) -> Writer:
            return Other.get()

    assert isinstance(Device(), HasWriter)
    assert not isinstance(object(), HasWriter)


@pytest.mark.usefixtures("unregistered")
def test_r78_a_third_format_by_decorator():
    """R-78: registered by hand, it is made like the built-in ones."""
    with pytest.raises(UnsupportedFormatError):
        make_writer("application/x-test-other")
    assert register_writer(Other) is Other
    assert type(make_writer("application/x-test-other")) is Other


@pytest.mark.usefixtures("unregistered")
def test_r78_a_third_format_by_entry_point(monkeypatch: pytest.MonkeyPatch):
    """R-78: installed with another package; the entry's name is the mimetype."""
    entry = EntryPoint(
        "application/x-zarr-too",
        "bluesky_beamtime.storage.zarr:ZarrWriter",
        registry.ENTRY_POINT_GROUP,
    )
    monkeypatch.setattr(registry, "entry_points", lambda **_: [entry])
    assert type(make_writer("application/x-zarr-too", "third")) is ZarrWriter
