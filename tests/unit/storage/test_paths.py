"""Names, numbers and URIs: rows R-50 to R-66 and R-76."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from bluesky_beamtime.errors import PathError, StoreWriteError
from bluesky_beamtime.storage import (
    AcquisitionPathProvider,
    FilenameProvider,
    PathInfo,
    PathProvider,
    SessionPathProvider,
    from_uri,
    to_uri,
)
from bluesky_beamtime.storage.paths import child_uri, reserve_folder


def name_of(info: PathInfo) -> str:
    return os.path.basename(from_uri(info.store_uri))


def today(base: Path, session: str = "default") -> Path:
    return base / session / f"{date.today():%Y_%m_%d}"


class Clock:
    """Stands in for the class ``date``; its today can be set."""

    now = date(2026, 11, 20)

    @classmethod
    def today(cls) -> date:
        return cls.now


class TestPathInfo:
    def test_r50_defaults_and_an_extra_of_its_own(self):
        """R-50: the fields have the defaults of the row; two do not share extra."""
        info = PathInfo("file:///data/x", "cam")
        assert (info.store_uri, info.array_key) == ("file:///data/x", "cam")
        assert info.capacity == 0
        assert info.mimetype_hint == "application/x-zarr"
        assert info.extra == {}
        assert info.extra is not PathInfo("file:///data/x", "cam").extra

    def test_r50_is_frozen_and_validated(self):
        """R-50: what was mutable and unchecked is neither."""
        info = PathInfo("file:///data/x", "cam")
        with pytest.raises(AttributeError):
            info.store_uri = "file:///elsewhere"  # type: ignore[misc]
        with pytest.raises(PathError):
            PathInfo("", "cam")
        with pytest.raises(PathError):
            PathInfo("file:///data/x", "cam", capacity=-1)


class TestProtocols:
    def test_r52_filename_provider_is_checked_at_run_time(self):
        """R-52: any callable is one, an object that cannot be called is not."""
        assert isinstance(lambda key=None, group=None: "stem", FilenameProvider)
        assert not isinstance("stem", FilenameProvider)

    def test_r53_path_provider_is_checked_at_run_time(self):
        """R-53: our providers and custom ones are accepted."""
        assert isinstance(AcquisitionPathProvider("/data"), PathProvider)
        assert isinstance(lambda key=None, group=None: None, PathProvider)
        assert not isinstance(3, PathProvider)


class TestSessionPathProvider:
    def test_r54_layout(self, tmp_path: Path):
        """R-54: file:///<base>/<session>/<YYYY_MM_DD>/<key>[_<group>]_<counter>."""
        provider = SessionPathProvider(tmp_path, session="night")
        uri = provider("snap", "cam").store_uri
        assert uri == f"file://{today(tmp_path, 'night')}/snap_cam_00000"

    def test_r54_relative_base_becomes_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """R-54: a relative base does not end up as the host of the URI."""
        monkeypatch.chdir(tmp_path)
        uri = SessionPathProvider("rel")("snap").store_uri
        assert uri == f"file://{today(tmp_path / 'rel')}/snap_00000"

    @pytest.mark.parametrize("base", ["a b", "a#b", "a?b", "a%20b", "ä/ö", "x&y=z"])
    def test_r54_r51_uri_leads_to_the_folder(self, tmp_path: Path, base: str):
        """R-54, R-51: whatever the base is called, its URI opens the right folder."""
        info = SessionPathProvider(tmp_path / base)("snap")
        assert Path(from_uri(info.store_uri)) == today(tmp_path / base) / "snap_00000"
        assert Path(from_uri(info.store_uri)).is_dir()
        assert not set("#? ") & set(info.store_uri)

    def test_r55_defaults(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """R-55: the defaults, under the base that DESIGN.md chose."""
        monkeypatch.setenv("HOME", str(tmp_path))
        provider = SessionPathProvider()
        assert provider.base_dir == tmp_path / "bluesky-beamtime"
        assert provider.session == "default"
        assert provider.max_digits == 5
        assert provider.mimetype_hint == "application/x-zarr"
        assert provider.capacity == 0

    @pytest.mark.parametrize("digits", [0, -1])
    def test_r55_max_digits_is_validated(self, tmp_path: Path, digits: int):
        """R-55: a width of no digits is refused."""
        with pytest.raises(PathError):
            SessionPathProvider(tmp_path, max_digits=digits)

    def test_r56_the_date_is_that_of_the_acquisition(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """R-56: a provider that lives past midnight does not keep the old date."""
        monkeypatch.setattr("bluesky_beamtime.storage.paths.date", Clock)
        monkeypatch.setattr(Clock, "now", date(2026, 11, 20))
        provider = SessionPathProvider(tmp_path)
        assert from_uri(provider("snap").store_uri).endswith("2026_11_20/snap_00000")
        monkeypatch.setattr(Clock, "now", date(2026, 11, 21))
        assert from_uri(provider("snap").store_uri).endswith("2026_11_21/snap_00000")

    def test_r57_counters_are_per_key(self, tmp_path: Path):
        """R-57: from 0, one more each call, each key on its own, None is 'default'."""
        provider = SessionPathProvider(tmp_path)
        names = [name_of(provider(key)) for key in ("snap", "snap", "live", None, None)]
        assert names == [
            "snap_00000",
            "snap_00001",
            "live_00000",
            "default_00000",
            "default_00001",
        ]

    def test_r58_group_has_its_own_counter(self, tmp_path: Path):
        """R-58: the group stands in the name; each (key, group) counts on its own."""
        provider = SessionPathProvider(tmp_path)
        names = [
            name_of(provider("snap", "cam")),
            name_of(provider("snap")),
            name_of(provider("snap", "cam")),
        ]
        assert names == ["snap_cam_00000", "snap_00000", "snap_cam_00001"]

    def test_r58_same_stem_never_gives_the_same_folder(self, tmp_path: Path):
        """R-58: ('a_b', None) and ('a', 'b') read alike but get different folders."""
        provider = SessionPathProvider(tmp_path)
        uris = {provider("a_b").store_uri, provider("a", "b").store_uri}
        assert len(uris) == 2

    def test_r59_array_key(self, tmp_path: Path):
        """R-59: what the path was asked for."""
        provider = SessionPathProvider(tmp_path)
        assert provider("camera").array_key == "camera"
        assert provider().array_key == "default"

    def test_r60_capacity_and_mimetype_are_forwarded(self, tmp_path: Path):
        """R-60: every PathInfo carries them."""
        info = SessionPathProvider(
            tmp_path, capacity=100, mimetype_hint="application/x-hdf5"
        )("x")
        assert info.capacity == 100
        assert info.mimetype_hint == "application/x-hdf5"

    def test_r61_numbers_widen_when_they_must(self, tmp_path: Path):
        """R-61: the eleventh number of one digit has two."""
        provider = SessionPathProvider(tmp_path, max_digits=1)
        names = [name_of(provider("x")) for _ in range(102)]
        assert names == [f"x_{number}" for number in range(102)]
        # A new process goes on after them.
        assert name_of(SessionPathProvider(tmp_path, max_digits=1)("x")) == "x_102"

    @pytest.mark.parametrize(
        "existing",
        ["snap_00002", "snap_00002.zarr", "snap_00002.h5", "snap_2"],
    )
    def test_r62_numbers_go_on_after_a_restart(self, tmp_path: Path, existing: str):
        """R-62: folders count with and without a format suffix."""
        (today(tmp_path) / existing).mkdir(parents=True)
        assert name_of(SessionPathProvider(tmp_path)("snap")) == "snap_00003"

    @pytest.mark.parametrize(
        "existing", ["snap_x", "snap_", "snap_-1", "other_00009", "xsnap_00009"]
    )
    def test_r62_names_that_are_no_number_are_ignored(
        self, tmp_path: Path, existing: str
    ):
        """R-62: only <key>_<N> counts."""
        (today(tmp_path) / existing).mkdir(parents=True)
        assert name_of(SessionPathProvider(tmp_path)("snap")) == "snap_00000"

    def test_r62_files_are_ignored_but_never_in_the_way(self, tmp_path: Path):
        """R-62: a file does not count as a number, and is not overwritten."""
        today(tmp_path).mkdir(parents=True)
        (today(tmp_path) / "snap_00007").write_text("notes")
        (today(tmp_path) / "snap_00000").write_text("notes")
        provider = SessionPathProvider(tmp_path)
        assert name_of(provider("snap")) == "snap_00001"
        assert (today(tmp_path) / "snap_00000").read_text() == "notes"

    @pytest.mark.parametrize("odd", ["snap_20240101", "snap_²", "snap_٣", "snap_1e3"])
    def test_r63_odd_names_do_no_harm(self, tmp_path: Path, odd: str):
        """R-63: a date or a unicode digit is no number; the key stays usable."""
        (today(tmp_path) / odd).mkdir(parents=True)
        provider = SessionPathProvider(tmp_path)
        names = [name_of(provider("snap")) for _ in range(2)]
        assert names == ["snap_00000", "snap_00001"]

    def test_r64_setting_the_session_changes_folder_and_numbers(self, tmp_path: Path):
        """R-64: the folder is made at once, and numbering goes on in it."""
        (today(tmp_path, "late") / "snap_00004").mkdir(parents=True)
        provider = SessionPathProvider(tmp_path)
        assert (tmp_path / "default").is_dir()
        assert name_of(provider("snap")) == "snap_00000"
        provider.session = "late"
        assert name_of(provider("snap")) == "snap_00005"
        provider.session = "new"
        assert (tmp_path / "new").is_dir()
        assert provider.session == "new"

    def test_r65_setting_the_base_dir_does_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """R-65: as the session; a tilde is expanded."""
        provider = SessionPathProvider(tmp_path / "a", session="s")
        provider.base_dir = tmp_path / "b"
        assert provider.base_dir == tmp_path / "b"
        assert (tmp_path / "b" / "s").is_dir()
        monkeypatch.setenv("HOME", str(tmp_path))
        provider.base_dir = "~/home"
        assert provider.base_dir == tmp_path / "home"

    @pytest.mark.parametrize(
        "name",
        [
            *("../../etc/x", "..", ".", "", "/etc/x", "a/b", "a\\b", "a\0b", ".. "),
            *("\ud800", "x" * 201, "zarr.json"),
        ],
    )
    def test_r66_traversal_is_refused(self, tmp_path: Path, name: str):
        """R-66: a name that would leave the base, or that no disk takes, is refused."""
        base = tmp_path / "base"
        provider = SessionPathProvider(base)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(PathError):
            provider(name)
        with pytest.raises(PathError):
            provider("key", name)
        with pytest.raises(PathError):
            provider.session = name
        with pytest.raises(PathError):
            SessionPathProvider(base, session=name)
        with pytest.raises(PathError):
            AcquisitionPathProvider(base)(name)
        assert sorted(tmp_path.rglob("*")) == before
        assert provider.session == "default"

    def test_a_file_in_the_way_is_a_named_error(self, tmp_path: Path):
        (tmp_path / "base").write_text("a file")
        with pytest.raises(StoreWriteError) as caught:
            SessionPathProvider(tmp_path / "base")
        assert caught.value.errno is not None


RESERVE = """
import sys
from bluesky_beamtime.storage import AcquisitionPathProvider, SessionPathProvider
session, named = SessionPathProvider(sys.argv[1]), AcquisitionPathProvider(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(60):
    print(session("snap").store_uri)
    print(named("scan_00001").store_uri)
"""


def test_r57_processes_never_get_the_same_folder(tmp_path: Path):
    """R-57: numbers are reserved on disk, whoever asks at the same time."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RESERVE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    uris = [uri for p in processes for uri in p.communicate(timeout=60)[0].split()]
    assert len(uris) == 3 * 120
    assert len(set(uris)) == len(uris)


class TestAcquisitionPathProvider:
    def test_names_people_can_read(self, tmp_path: Path):
        provider = AcquisitionPathProvider(tmp_path)
        names = [name_of(provider(key)) for key in ("en_scan_00214",) * 3]
        assert names == ["en_scan_00214", "en_scan_00214_2", "en_scan_00214_3"]

    def test_without_a_name_it_counts(self, tmp_path: Path):
        provider = AcquisitionPathProvider(tmp_path)
        assert not list(tmp_path.iterdir())
        assert name_of(provider()) == "acquisition_00000"
        assert name_of(AcquisitionPathProvider(tmp_path)()) == "acquisition_00001"


def test_reserving_in_a_file_is_a_named_error(tmp_path: Path):
    (tmp_path / "day").write_text("a file")
    with pytest.raises(StoreWriteError):
        reserve_folder(tmp_path / "day", str, 0)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/x", "/data/x"),
        ("file://localhost/data/x", "/data/x"),
        ("FILE://LOCALHOST/data/x", "/data/x"),
        ("file:/data/x", "/data/x"),
        ("file:///a%20b", "/a b"),
        ("file:///a%23b%3Fc", "/a#b?c"),
        ("file:///a#b?c", "/a#b?c"),
        ("file:///a%2520b", "/a%20b"),
        ("file:///%C3%A4", "/ä"),
        ("file:///%FF", os.fsdecode(b"/\xff")),
        ("file:///a+b", "/a+b"),
        ("file://C:/x", "C:/x"),
        ("/plain/path", "/plain/path"),
        ("/plain/a%20b", "/plain/a%20b"),
        ("relative/path", "relative/path"),
        ("s3://bucket/key%20x", "s3://bucket/key%20x"),
        ("https://host/x", "https://host/x"),
        ("", ""),
    ],
)
def test_r76_from_uri(uri: str, path: str):
    """R-76: file: URIs become paths, percent-decoded; everything else stays."""
    assert from_uri(uri) == path


@pytest.mark.parametrize("uri", ["file://host/share/x", "file://127.0.0.2/x"])
def test_r76_another_host_is_refused(uri: str):
    """R-76: the host is not dropped in silence."""
    with pytest.raises(PathError, match="host"):
        from_uri(uri)


def test_r76_to_uri_is_absolute_and_has_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """R-76: the other way round, as ophyd-async writes it."""
    monkeypatch.chdir(tmp_path)
    assert to_uri("x y") == f"file://localhost{tmp_path}/x%20y"
    assert to_uri("/x", host="") == "file:///x"
    with pytest.raises(PathError):
        to_uri("/\ud800")


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("file:///data/x", "file:///data/x/cam%2F1"),
        ("file://localhost/data/x/", "file://localhost/data/x/cam%2F1"),
        ("/data/x y", "file://localhost/data/x%20y/cam%2F1"),
        ("s3://bucket/x", "s3://bucket/x/cam%2F1"),
        ("file:///a#b?c", "file:///a%23b%3Fc/cam%2F1"),
    ],
)
def test_r12_uri_of_an_array(store: str, expected: str):
    """R-12: the URI of an array is that of its store and its escaped name."""
    assert child_uri(store, "cam/1") == expected
