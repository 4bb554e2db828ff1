"""URIs that follow the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bluesky_beamtime.database.uris import from_stored, stored_path, to_stored
from bluesky_beamtime.storage import to_uri


@pytest.mark.parametrize("host", ["localhost", ""])
@pytest.mark.parametrize("inside", ["x.zarr/frames/a", "x.zarr/ü %20#?/a b"])
def test_what_is_inside_is_relative_and_follows(
    tmp_path: Path, inside: str, host: str
) -> None:
    uri = to_uri(tmp_path / inside, host=host)
    stored = to_stored(uri, tmp_path)
    assert not stored.startswith("file:")
    assert str(tmp_path) not in stored
    assert from_stored(stored, uri, tmp_path) == uri
    moved = tmp_path / "moved" / "here"
    assert from_stored(stored, uri, moved) == to_uri(moved / inside, host=host)


@pytest.mark.parametrize(
    "uri",
    [
        "file://localhost/elsewhere/a",
        "file://server/share/a",
        "s3://bucket/a",
        "http://example.org/a",
        "not a uri",
        "",
    ],
)
def test_what_is_outside_stays(tmp_path: Path, uri: str) -> None:
    stored = to_stored(uri, tmp_path)
    assert stored == uri
    assert from_stored(stored, uri, tmp_path / "moved") == uri


def test_a_path_that_only_seems_to_be_inside_stays(tmp_path: Path) -> None:
    for uri in (
        f"file://localhost{tmp_path}/../a",
        f"file://localhost{tmp_path}x/a",
        f"file://localhost{tmp_path}",
        f"file://localhost{tmp_path}/a%00b",
    ):
        assert to_stored(uri, tmp_path) == uri


def test_a_link_to_the_folder_is_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    uri = to_uri(tmp_path / "link" / "x.zarr" / "a")
    stored = to_stored(uri, folder)
    assert stored == "x.zarr/a"
    # As it was emitted, for as long as it leads there.
    assert from_stored(stored, uri, folder) == uri


def test_only_what_is_inside_has_a_path(tmp_path: Path) -> None:
    assert stored_path("x.zarr/a%20b", tmp_path) == tmp_path / "x.zarr" / "a b"
    for stored in ("s3://bucket/a", "file:///a", "../a", "a/../../b", "/etc", "%2Fetc"):
        assert stored_path(stored, tmp_path) is None
