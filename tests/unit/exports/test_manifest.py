"""The list of hashes is what sha256sum takes, and nothing else passes for one."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from bluesky_beamtime.errors import ArchiveError
from bluesky_beamtime.exports.manifest import decode_manifest, encode_manifest

NAMES = ["x.db", "x.zarr/a b/ü", "back\\slash", "new\nline", "*star", " blank", "\\n"]


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def test_names_and_hashes_come_back() -> None:
    hashes = {name: digest(name) for name in NAMES}
    assert decode_manifest(encode_manifest(hashes)) == hashes


def test_names_of_any_bytes_come_back() -> None:
    hashes = {"\udcff\udc80": "0" * 64}
    data = encode_manifest(hashes)
    assert b"\xff\x80" in data
    assert decode_manifest(data) == hashes


def test_sha256sum_accepts_it_and_finds_what_changed(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "MANIFEST.sha256").write_bytes(
        encode_manifest({name: digest(name) for name in NAMES})
    )
    check = ["sha256sum", "--strict", "-c", "MANIFEST.sha256"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "x.db").write_bytes(b"other")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True).returncode == 1


def test_what_sha256sum_writes_can_be_read() -> None:
    assert decode_manifest(b"%s *a\n" % (b"0" * 64)) == {"a": "0" * 64}


@pytest.mark.parametrize(
    "data",
    [
        b"\0\1\2",
        b"abc  x.db\n",
        b"%s  \n" % (b"0" * 64),
        b"%s  a\n%s  a\n" % (b"0" * 64, b"1" * 64),
        b"%s  a\n\n%sb" % (b"0" * 64, b"1" * 64),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        decode_manifest(data)
