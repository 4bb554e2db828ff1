"""Files of stock detectors, in the beamtime's folder."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from ophyd_async.core import PathProvider, init_devices
from ophyd_async.sim import SimBlobDetector

from bluesky_beamtime.devices import OphydPathProvider
from bluesky_beamtime.errors import PathError


def today(base: Path) -> Path:
    return base / f"{date.today():%Y_%m_%d}"


def test_named_acquisitions(tmp_path: Path) -> None:
    names = iter(["count_00001", "count_00001", "scan_00002"])
    provider: PathProvider = OphydPathProvider(tmp_path, lambda: next(names))
    first, second, third = provider("det"), provider("other"), provider("det")
    assert first.directory_path == today(tmp_path) / "count_00001"
    assert (first.filename, second.filename) == ("det", "other")
    assert second.directory_path == first.directory_path
    assert third.directory_path == today(tmp_path) / "scan_00002"
    assert Path(first.directory_path).is_dir()


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    provider = OphydPathProvider(tmp_path, lambda: "count_00001")
    for expected in ("det", "det_2", "det_3"):
        info = provider("det")
        assert info.filename == expected
        (Path(info.directory_path) / f"{info.filename}.h5").touch()


def test_acquisitions_without_a_name_are_numbered(tmp_path: Path) -> None:
    provider = OphydPathProvider(tmp_path)
    folders = [provider(key).directory_path for key in ("a", "b", "a", "b", "b")]
    assert folders[0] == folders[1] != folders[2] == folders[3] != folders[4]
    assert [path.name for path in folders[::2]] == [
        "acquisition_00000",
        "acquisition_00001",
        "acquisition_00002",
    ]


def test_uri_is_encoded(tmp_path: Path) -> None:
    provider = OphydPathProvider(tmp_path / "a b#ü", lambda: "scan 1")
    info = provider("det")
    parsed = urlparse(info.directory_uri)
    assert parsed.netloc == "localhost"
    assert unquote(parsed.path) == f"{info.directory_path}/"
    assert " " not in info.directory_uri


@pytest.mark.parametrize("name", ["..", "a/b", "", "x\0y"])
def test_hostile_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(PathError):
        OphydPathProvider(tmp_path, lambda: name)("det")
    info = OphydPathProvider(tmp_path, lambda: "scan")(f"{name}../../x")
    inside = Path(info.directory_path, f"{info.filename}.h5").resolve()
    assert inside.is_relative_to(tmp_path.resolve())


def test_a_stock_detector_writes_there(RE: Any, tmp_path: Path) -> None:
    import h5py
    from bluesky import plans as bp

    provider = OphydPathProvider(tmp_path, lambda: "count_00007")
    with init_devices():
        blob = SimBlobDetector(provider)
    uris: list[str] = []
    RE.subscribe(lambda name, doc: uris.append(doc["uri"]) if "uri" in doc else None)
    RE(bp.count([blob], 2))
    path = today(tmp_path) / "count_00007" / "blob.h5"
    assert {unquote(urlparse(uri).path) for uri in uris} == {str(path)}
    with h5py.File(path) as file:
        assert file["/entry/data/data"].shape[0] == 2
