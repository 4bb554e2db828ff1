"""Hostile names: none leads out of its folder, all come back from their URIs."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluesky_beamtime.errors import BeamtimeError, PathError
from bluesky_beamtime.storage import (
    FrameStore,
    SessionPathProvider,
    from_uri,
    quote_name,
    to_uri,
)
from bluesky_beamtime.storage.paths import child_uri

QUICK = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# 1 in the daily run; 20 and more for the gate's 50 000 names.
SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))

NASTY = st.sampled_from(
    [
        *("..", ".", "../..", "/etc/passwd", "a/../../b", "..\\..\\b", "~", "~root"),
        *("\0", "a\0b", "%2e%2e%2f", "%2E%2E", "%00", "zarr.json", ".zarr.json"),
        *("c.0.0.0", "__proto__", "CON", "nul", "a" * 300, "ä" * 120, "🎇" * 60),
        *("con:", "a\nb", "a\rb", "\x1b[2J", "-rf", "$(id)", "`id`", "; rm", "*", "?"),
        *("\ud800", "\udcff", "\u202e", "e\u0301", "\u00e9", "Cam", "cam", " ", ". ."),
        *("..%c0%af", "....//", "//", "./.", "a/", "/", ".writer.lock", ".reserve"),
        *("file:///etc", "http://x/y", "a#b", "a?b", "#", "?", "", ".hidden", "__x"),
    ]
)
RUNS = itertools.count(1)
PIECES = st.sampled_from([*"./\\%~#?: ab", "..", "../", "%2F", "\0", "\ud800", "ä"])
NAMES = st.one_of(
    NASTY,
    st.text(max_size=30),
    st.text(st.characters(codec=None), max_size=12),
    st.lists(PIECES, max_size=12).map("".join),
    st.tuples(NASTY, st.sampled_from(["/", "", "\\", "\0"]), NASTY).map("".join),
)
# Every path that a POSIX disk can hold, bytes that are no UTF-8 included.
PATHS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=12).map(
            lambda raw: os.fsdecode(raw.replace(b"\0", b"x").replace(b"/", b"y"))
        ),
        st.sampled_from(
            ["a b", "a#b", "a?b", "a%20b", "ä", "%", "%2", "+", "&=;", "~"]
        ),
    ),
    max_size=5,
).map(lambda parts: os.path.abspath("/" + "/".join(parts)))


@QUICK
@given(PATHS, st.sampled_from(["localhost", ""]))
def test_r76_every_path_comes_back_from_its_uri(path: str, host: str):
    """R-76: percent-encoding is a round trip, whatever bytes the name holds."""
    uri = to_uri(path, host=host)
    assert from_uri(uri) == path
    assert uri.isascii()
    assert not set(' #?"<>\\^`{|}') & set(uri)


@QUICK
@given(PATHS, st.text(min_size=1, max_size=20))
def test_r12_every_array_is_inside_its_store(path: str, name: str):
    """R-12: the URI of an array is one name below that of its store."""
    found = from_uri(child_uri(to_uri(path), quote_name(name)))
    assert os.path.dirname(found).rstrip("/") == path.rstrip("/")


@settings(QUICK, max_examples=400 * SCALE)
@given(NAMES)
def test_r10_quoted_names_stand_as_one_folder(name: str):
    """Gate R10: what quote_name returns is one harmless name, of bounded length."""
    quoted = quote_name(name)
    assert quoted
    assert "/" not in quoted and "\\" not in quoted and quoted.isascii()
    assert quoted.isprintable()
    assert not quoted.startswith((".", "__"))
    assert quoted != "zarr.json"
    assert len(quoted) <= 120


@settings(QUICK, max_examples=200 * SCALE)
@given(NAMES, NAMES)
def test_r17_different_names_stay_different(one: str, other: str):
    """R-17: quoting never merges two sources; NUL and the empty name are no sources."""
    if one != other and {one, other} != {"", "\0"}:
        assert quote_name(one) != quote_name(other)


@QUICK
@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789_- ()[]", min_size=1, max_size=40))
def test_readable_names_stay_readable(name: str):
    if not name.startswith("__"):
        assert quote_name(name) == name


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where there is one: thousands of stores are synced."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def outside(root: Path) -> set[str]:
    """List everything below ``root`` but its folder ``base``."""
    found = set()
    for folder, names, files in os.walk(root):
        if folder == str(root):
            names.remove("base")
        found |= {os.path.join(folder, name) for name in (*names, *files)}
    return found


@settings(QUICK, max_examples=80 * SCALE)
@given(st.lists(NAMES, min_size=10, max_size=20))
def test_r10_hostile_sources_write_nothing_outside_the_base(
    quick_path: Path, names: list[str]
):
    """Gate R10: FrameStore.attach creates nothing outside its base."""
    base = quick_path / "base"
    base.mkdir(exist_ok=True)
    before = outside(quick_path)
    # Names of its own, so that no example has to look for the next free number.
    run = f"run {next(RUNS)}"
    store = FrameStore(base, name=lambda: run, frames_per_shard=2)
    sinks = []
    for number, name in enumerate(names):
        # A key of its own, so that equal names are about paths alone.
        sink = store.attach(name, dtype="u1", shape=(), data_key=f"key {number}")
        sink.write(np.array(number, "u1"))
        sinks.append(sink)
        where = from_uri(sink.uri)
        assert os.path.dirname(where) == from_uri(store.uri or "")
        assert where.startswith(f"{base}/")
    for sink in sinks:
        store.detach(sink)
    assert len({sink.uri for sink in sinks}) == len(names)
    for sink in sinks:
        assert sorted(os.listdir(from_uri(sink.uri)))[-2:] == ["c.0", "zarr.json"]
    assert outside(quick_path) == before


@settings(QUICK, max_examples=100 * SCALE)
@given(NAMES)
def test_r10_hostile_acquisitions_write_nothing_outside_the_base(
    quick_path: Path, name: str
):
    """Gate R10: a hostile acquisition name is refused or stays inside the base."""
    base = quick_path / "base"
    base.mkdir(exist_ok=True)
    before = outside(quick_path)
    store = FrameStore(base, name=lambda: name)
    try:
        sink = store.attach("cam", dtype="u1", shape=())
    except PathError:
        pass
    else:
        assert from_uri(sink.uri).startswith(f"{base}/")
        store.detach(sink)
    assert outside(quick_path) == before


@settings(QUICK, max_examples=120 * SCALE)
@given(NAMES, NAMES, NAMES)
def test_r66_hostile_keys_write_nothing_outside_the_base(
    quick_path: Path, session: str, key: str, group: str
):
    """R-66: hostile sessions, keys and groups are refused or stay inside the base."""
    base = quick_path / "base"
    base.mkdir(exist_ok=True)
    before = outside(quick_path)
    try:
        info = SessionPathProvider(base, session=session)(key, group)
    except BeamtimeError:
        pass
    else:
        where = from_uri(info.store_uri)
        assert os.path.realpath(where) == where
        assert where.startswith(f"{base}/")
        assert len(Path(where).relative_to(base).parts) == 3
    assert outside(quick_path) == before


def test_a_link_in_the_base_is_the_users_own(tmp_path: Path):
    """A base that is a link is followed once, when the store is made."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "base").symlink_to(tmp_path / "disk")
    store = FrameStore(tmp_path / "base", name=lambda: "run")
    sink = store.attach("cam", dtype="u1", shape=())
    store.detach(sink)
    assert from_uri(sink.uri).startswith(f"{tmp_path}/disk/")


@pytest.mark.parametrize("name", ["", "\0"])
def test_r10_the_two_names_that_read_alike_get_two_folders(tmp_path: Path, name: str):
    store = FrameStore(tmp_path, name=lambda: "run")
    first = store.attach("\0", dtype="u1", shape=(), data_key="a")
    second = store.attach(name, dtype="u1", shape=(), data_key="b")
    assert first.uri != second.uri
    for sink in (first, second):
        store.detach(sink)
