"""A file on a network disk does without the write-ahead log."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import network
from bluesky_beamtime.errors import DatabaseWriteError


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes a folder lie on a kind of file system."""
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(network, "_MOUNTS", mounts)

    def mount(folder: Path, kind: str) -> None:
        name = str(folder).replace(" ", "\\040")
        lines = ["/dev/sda / ext4 rw 0 0", f"server:/x {name} {kind} rw 0 0", "broken"]
        mounts.write_text("\n".join(lines))

    return mount


def journal_mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]


@pytest.mark.parametrize(
    ("kind", "remote"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs")),
        *((kind, True) for kind in ("lustre", "gpfs", "beegfs", "ceph", "9p")),
        *((kind, False) for kind in ("ext4", "xfs", "tmpfs", "overlay", "fuse.ntfs")),
    ],
)
def test_kinds(tmp_path: Path, mount, kind: str, remote: bool) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    mount(folder, kind)
    assert network.file_system_of(folder / "x.db") == kind
    assert network.is_on_network(folder / "x.db") is remote
    assert not network.is_on_network(tmp_path / "x.db")


def test_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_MOUNTS", tmp_path / "none")
    assert network.file_system_of(tmp_path / "x.db") == ""
    assert network.journal_mode_for(tmp_path / "x.db") == "wal"


def record(beamtime: Beamtime) -> None:
    from event_model import compose_run

    bundle = compose_run()
    beamtime("start", bundle.start_doc)
    beamtime("stop", bundle.compose_stop())


def test_a_file_is_recorded_and_read_without_the_log(tmp_path: Path, mount) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    mount(folder, "nfs4")
    path = folder / "x.db"
    with Beamtime(path, on_error="raise") as beamtime:
        record(beamtime)
        with Beamtime(path, mode="r") as reader:
            assert len(reader) == 1
            record(beamtime)
            assert len(reader) == 2
        assert not path.with_name("x.db-wal").exists()
        assert beamtime.verify().ok
    assert journal_mode(path) != "wal"


def test_a_file_that_moved_there_lets_go_of_the_log(tmp_path: Path, mount) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    path = folder / "x.db"
    mount(tmp_path / "other", "nfs")
    with Beamtime(path) as beamtime:
        record(beamtime)
        mount(folder, "nfs")
        with pytest.raises(DatabaseWriteError, match=r"network disk \(nfs\).*close it"):
            Beamtime(path)
    assert journal_mode(path) == "wal"
    with Beamtime(path) as beamtime:
        record(beamtime)
        assert len(beamtime) == 2
    assert journal_mode(path) != "wal"
