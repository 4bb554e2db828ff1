"""Which backend opens a URL, and what is said when none does."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bluesky_beamtime.errors import (
    MissingExtraError,
    PathError,
    StorageError,
    UnsupportedFormatError,
)
from bluesky_beamtime.storage.backends import (
    LocalBackend,
    MemoryBackend,
    get_available_backends,
    open_backend,
    register_backend,
    registry,
)


@pytest.fixture(autouse=True)
def leave_the_table_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))


def test_the_scheme_chooses(tmp_path: Path) -> None:
    assert isinstance(open_backend("MEMORY://"), MemoryBackend)
    assert isinstance(open_backend(tmp_path), LocalBackend)
    assert isinstance(open_backend(str(tmp_path)), LocalBackend)
    assert isinstance(open_backend("FILE:///tmp"), LocalBackend)


def test_an_unknown_scheme_is_named_with_those_known() -> None:
    with pytest.raises(UnsupportedFormatError, match="'ftp'") as caught:
        open_backend("ftp://host/path")
    assert isinstance(caught.value, StorageError)
    for known in ("'file'", "'memory'", "'s3'", "'gs'", "'az'"):
        assert known in str(caught.value)


def test_a_decorator_registers() -> None:
    @register_backend("mine", "my+own")
    class Mine(MemoryBackend):
        def __init__(self, url: str, *, colour: str = "red") -> None:
            super().__init__()
            self.given = (url, colour)

    opened = open_backend("Mine://x/y?z", colour="blue")
    assert isinstance(opened, Mine)
    assert opened.given == ("Mine://x/y?z", "blue")
    assert isinstance(open_backend("my+own://x"), Mine)
    assert get_available_backends()["mine"].endswith("Mine")


def test_an_entry_point_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(
        "elsewhere",
        "bluesky_beamtime.storage.backends:MemoryBackend",
        registry.ENTRY_POINT_GROUP,
    )
    asked: list[str] = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [point]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert "elsewhere" in get_available_backends()
    assert isinstance(open_backend("memory://", backend="elsewhere"), MemoryBackend)
    assert set(asked) == {"bluesky_beamtime.backends"}


def test_argument_wins_over_environment_over_scheme(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    for name in ("one", "two"):

        @register_backend(name)
        def factory(url: str, name: str = name) -> MemoryBackend:
            opened.append(name)
            return MemoryBackend()

    monkeypatch.setenv("BLUESKY_BEAMTIME_BACKEND_S3", "one")
    open_backend("s3://bucket")
    open_backend("s3://bucket", backend="two")
    assert opened == ["one", "two"]
    # Other schemes are not touched by it.
    assert isinstance(open_backend(tmp_path), LocalBackend)
    monkeypatch.setenv("BLUESKY_BEAMTIME_BACKEND_S3", "three")
    with pytest.raises(UnsupportedFormatError, match="'three'"):
        open_backend("s3://bucket")


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_without_obstore_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(MissingExtraError) as caught:
        open_backend(f"{scheme}://bucket/prefix")
    assert "pip install 'bluesky-beamtime[s3]'" in str(caught.value)
    assert (caught.value.package, caught.value.extra) == ("obstore", "s3")


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3:bucket",
        "s3://bucket/a/../b",
        "s3://key:hidden@bucket/prefix",
        "s3://bucket/prefix?secret=hidden",
        "gs://bucket#hidden",
        "az://container//a",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(PathError) as caught:
        open_backend(url)
    assert "hidden" not in str(caught.value)


_WHAT_IS_LOADED = """
import sys
import bluesky_beamtime.storage.backends as backends
backends.open_backend("memory://").put_bytes("a", b"")
print([name for name in ("obstore", "zarr", "moto", "pytest") if name in sys.modules])
"""


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _WHAT_IS_LOADED], capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]", found.stderr
