"""Where the files of legacy Resources are, whatever their documents say."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.replica.places import Places
from bluesky_beamtime.database.resource_places import follow, to_stored
from bluesky_beamtime.database.rows import resource_row

parts = st.sampled_from(["/", "..", ".", "", "a", "raw", "\0", "\udcff", "\ud83d", "~"])
texts = st.lists(parts, max_size=5).map("/".join) | st.text() | st.none()


def document(root: Any, path: Any) -> dict[str, Any]:
    return {
        "uid": "u",
        "root": root,
        "resource_path": path,
        "resource_kwargs": {},
        "spec": "S",
    }


def stored(emitted: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """Return the columns of its row."""
    row = resource_row(emitted, "run", 1, folder)
    return row[3], row[4]


@given(texts, texts, st.booleans(), st.booleans())
@example("\udcff", "", False, True)
def test_any_place_can_be_stored_and_comes_back(
    root: Any, path: Any, root_inside: bool, path_inside: bool
) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        if root is not None and root_inside:
            root = f"{folder}/{root}"
        if path is not None and path_inside:
            path = f"{folder}/{path}"
        emitted = document(root, path)
        row = stored(emitted, folder)
        for column in row:
            assert column is None or isinstance(column.encode(), bytes)
        given = dict(emitted)
        follow(given, row, folder)
    assert given == emitted


@pytest.mark.parametrize(
    ("emitted", "columns", "moved"),
    [
        (("{0}/raw", "a"), ("raw", "a"), ("{1}/raw", "a")),
        (("{0}", "raw/a"), (".", "raw/a"), ("{1}", "raw/a")),
        (("", "{0}/raw/a"), (".", "raw/a"), ("{1}", "raw/a")),
        (("/x", "{0}/raw/"), (".", "raw/"), ("{1}", "raw/")),
        ((None, "{0}/raw/a"), (".", "raw/a"), ("{1}", "raw/a")),
        (("{0}/raw", None), ("raw", None), ("{1}/raw", None)),
        (("{0}/raw", "/a"), ("raw", "/a"), ("{1}/raw", "/a")),
        (("/x", "/{0}/../a"), ("/x", "/{0}/../a"), ("/x", "/{0}/../a")),
        (("", "raw/a"), ("", "raw/a"), ("", "raw/a")),
    ],
)
def test_what_lies_inside_follows_the_folder(
    tmp_path: Path, emitted: Any, columns: Any, moved: Any
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()

    def fill(place: Any) -> tuple[Any, ...]:
        return tuple(text and text.format(before, after) for text in place)

    row = stored(document(*fill(emitted)), before)
    assert row == fill(columns)
    before.rename(after)
    given = document(*fill(emitted))
    follow(given, row, after)
    assert (given["root"], given["resource_path"]) == fill(moved)


def test_links_to_the_same_place_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "disk" / "raw").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    folder = (tmp_path / "disk").resolve()
    emitted = document("", f"{tmp_path}/link/raw/a")
    row = stored(emitted, folder)
    assert row == (".", "raw/a")
    given = dict(emitted)
    follow(given, row, folder)
    assert given == emitted


def test_links_in_a_circle_are_no_places_inside(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "one")
    folder = tmp_path / "home"
    place = f"{tmp_path}/one/raw", f"{tmp_path}/other/a"
    assert to_stored(place, folder) == place


def test_relative_places_are_looked_for_beside_a_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the folder of this process, as for what a server has."""
    (tmp_path / "a_1").write_text("")
    monkeypatch.chdir(tmp_path)
    for folder, root in ((Path(), ""), (tmp_path, str(tmp_path))):
        given = document("", "a_")
        follow(given, ("", "a_"), folder)
        assert (given["root"], given["resource_path"]) == (root, "a_")


@pytest.mark.parametrize(
    ("emitted", "columns", "root"),
    [
        (("", "/home/raw/a"), (".", "raw/a"), "/home"),
        ((".", "/home/raw/a"), (".", "raw/a"), "/home"),
        (("/disk", "a"), ("x_outside/disk", "a"), "/home/x_outside/disk"),
        (("/disk", "a"), ("/disk", "a"), "/disk"),
        (("raw", "a"), ("raw", "a"), "raw"),
    ],
)
def test_readers_of_a_server_get_whole_places(
    emitted: Any, columns: Any, root: str
) -> None:
    places = Places(Path("/home/x.db"), Path("/home/x.zarr"), "source")
    row = {
        "root": columns[0],
        "resource_path": columns[1],
        "document": encode(document(*emitted)),
    }
    assert places.resource(row) == {**row, "root": root}
    assert os.path.isabs(root) or columns == emitted
