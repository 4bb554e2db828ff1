"""Archives in an object store, whose server fails in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ArchiveError
from bluesky_beamtime.exports import archive, prove, restore
from bluesky_beamtime.storage.backends import (
    RecordingBackend,
    StorageBackend,
    open_backend,
)
from bluesky_beamtime.storage.backends.s3_server import S3TestServer
from bluesky_beamtime.storage.remote_array import Retry
from tests.exported import emit_long_run

# A server that is away is given up at once, for the tests' sake.
IMPATIENT = {"retry_config": {"max_retries": 0}, "client_options": {"timeout": "20s"}}


@pytest.fixture
def beamtime(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "x.db"
    path.parent.mkdir()
    with Beamtime(path, sample="LaB6") as opened:
        emit_long_run(opened, path.parent / "x.zarr" / "run", events=10, frames=10)
    (path.parent / "x_files").mkdir()
    # More than one part of an upload in parts.
    (path.parent / "x_files" / "big.h5").write_bytes(bytes(range(256)) * 50_000)
    return path


def test_an_archive_in_a_bucket_is_proven_and_comes_back(
    beamtime: Path, s3: StorageBackend, tmp_path: Path
) -> None:
    first = archive(beamtime, s3)
    assert first.sent == first.files
    assert archive(beamtime, s3).up_to_date
    assert prove(s3).ok
    back = restore(s3, tmp_path / "back")
    with Beamtime(back.path, mode="r") as there:
        assert there.verify().ok


def test_two_beamtimes_in_one_bucket(
    beamtime: Path, bucket: str, s3_server: S3TestServer, tmp_path: Path
) -> None:
    archive(beamtime, f"{bucket}/x", **s3_server.options)
    other = tmp_path / "y.db"
    with Beamtime(other) as opened:
        emit_long_run(opened, tmp_path / "y.zarr" / "run", events=1, frames=1)
    archive(other, f"{bucket}/y", **s3_server.options)
    assert prove(f"{bucket}/x", **s3_server.options).ok
    with pytest.raises(ArchiveError, match="another beamtime"):
        archive(other, f"{bucket}/x", **s3_server.options)


def test_a_bucket_that_is_not_there_is_named(
    beamtime: Path, s3_server: S3TestServer
) -> None:
    with pytest.raises(ArchiveError, match="cannot find 'nowhere'"):
        archive(
            beamtime,
            "s3://nowhere/x",
            retry=Retry(attempts=1),
            **s3_server.options,
        )


@pytest.mark.parametrize("after", [2, 7])
def test_a_line_that_is_cut_in_the_middle(
    beamtime: Path,
    bucket: str,
    s3_server: S3TestServer,
    line: Any,
    tmp_path: Path,
    after: int,
) -> None:
    options = {**s3_server.options, "endpoint": line.endpoint, **IMPATIENT}
    calls = iter(range(10_000))

    def cut(call: tuple[Any, ...]) -> None:
        if call[0].startswith("put") and next(calls) == after:
            line.cut()

    with open_backend(bucket, **options) as inner, RecordingBackend(inner) as store:
        store.before = cut
        with pytest.raises(ArchiveError, match="archive again") as caught:
            archive(beamtime, store, retry=Retry(attempts=2, pause=0.01), threads=2)
        assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(ArchiveError, match="cannot look into"):
            prove(inner, retry=Retry(attempts=1))
        line.mend()
        store.before = None
        report = archive(beamtime, store)
        # Two files at a time: what came before those that were cut off had arrived.
        assert report.found + report.unchanged >= max(0, after - 4)
        assert prove(inner).ok

        def cut_reading(call: tuple[Any, ...]) -> None:
            if call[:2] == ("get_range", "x.db"):
                line.cut()

        store.before = cut_reading
        with pytest.raises(ArchiveError, match="restore again"):
            restore(store, tmp_path / "back", retry=Retry(attempts=1), threads=1)
        line.mend()
        store.before = None
        assert restore(store, tmp_path / "back").files == report.files


def test_a_line_that_comes_back_in_time_is_not_even_noticed(
    beamtime: Path,
    bucket: str,
    s3_server: S3TestServer,
    line: Any,
    until: Callable[..., None],
) -> None:
    options = {**s3_server.options, "endpoint": line.endpoint, **IMPATIENT}
    failures = iter(range(10_000))

    def cut_once(call: tuple[Any, ...]) -> None:
        if call[:2] == ("put_pieces", "x_files/big.h5"):
            line.cut() if next(failures) == 0 else line.mend()

    with open_backend(bucket, **options) as inner, RecordingBackend(inner) as store:
        store.before = cut_once
        # Other files that are under way have to wait until the line is mended too.
        retry = Retry(attempts=50, pause=0.05, longest=0.2)
        archive(beamtime, store, retry=retry, threads=2)
        assert prove(inner).ok
