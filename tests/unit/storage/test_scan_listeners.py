"""Listeners of a ScanStorage that are wrong: they are told of, and no scan is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import MetadataError
from bluesky_beamtime.storage import ScanStorage
from tests.unit.storage.test_scan import read, take


@pytest.fixture
def storage(tmp_path: Path) -> ScanStorage:
    return ScanStorage(tmp_path, format="npz")


SIGNALS = ["numberChanged", "savingStateChanged", "changed", "tagRequest"]


def broken(*_: Any) -> None:
    raise RuntimeError("a lamp is broken")


@pytest.mark.parametrize("name", SIGNALS)
def test_listener_that_raises_costs_no_scan(
    storage: ScanStorage, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L-09 to L-12: every other signal comes, and who called is not told."""
    getattr(storage, name).connect(broken)
    told: set[str] = set()
    others = {*SIGNALS} - {name}
    for other in others:
        getattr(storage, other).connect(lambda *_, other=other: told.add(other))
    take(storage)
    assert storage.wait(60) and not storage.saving and storage.status.writing == 0
    assert read(tmp_path / "folder/data_0.npz")["data"][0] == 1
    assert told == others
    assert "storage.scan.listener" in caplog.text and "lamp is broken" in caplog.text


def test_listener_of_a_failure_that_raises_keeps_the_failure(
    storage: ScanStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """L-21."""
    storage.saveFailed.connect(broken)
    storage.reserve((2,))
    storage.update({(0,): 1})
    (tmp_path / "folder/data_0.npz").touch()
    storage.save()
    assert storage.wait(60) and len(storage.failed) == 1 and not storage.saving
    assert len(storage.status.failures) == 1 and "lamp is broken" in caplog.text


@pytest.mark.parametrize("kind", ["zarr", "npz", "hdf5"])
def test_tags_of_numpy_are_kept(kind: Any, tmp_path: Path) -> None:
    """L-11: as plain numbers and lists; NaN as in the records of a beamtime."""
    values = {
        "single": np.float32(4.5),
        "double": np.float64(np.nan),
        "count": np.int64(3),
        "on": np.bool_(True),
        "row": np.array([1.0, np.inf]),
        "deep": {"list": [np.uint8(1), (np.zeros(2),)]},
    }
    plain = {
        "single": 4.5,
        "double": {"$float": "nan"},
        "count": 3,
        "on": True,
        "row": [1.0, {"$float": "inf"}],
        "deep": {"list": [1, [[0.0, 0.0]]]},
    }
    storage = ScanStorage(tmp_path, format=kind)
    storage.tagRequest.connect(lambda tags: tags.update(asked=values))
    storage.reserve((2,), tags=values)
    storage.update({(0,): 1})
    storage.save(tags={"later": values})
    assert storage.wait(60) and storage.failed == []
    (path,) = (tmp_path / "folder").iterdir()
    assert read(path)["tags"] == {**plain, "asked": plain, "later": plain}


def test_tag_that_json_cannot_hold_is_left_out(
    storage: ScanStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """L-11, L-12: also one that comes when the scan is reserved; who calls is told."""
    circle: list[Any] = []
    circle.append(circle)
    dicts: list[dict[str, Any]] = []
    storage.tagRequest.connect(dicts.append)
    storage.tagRequest.connect(
        lambda tags: tags.update(bad=object(), circle=circle, good=1)
    )
    storage.reserve((2,))
    assert storage.reserved
    assert "without its tag 'bad'" in caplog.text
    assert "without its tag 'circle'" in caplog.text
    storage.update({(0,): 1})
    dicts[0].update(late=object(), sample="LaB6")
    with pytest.raises(MetadataError):
        storage.save(tags={"bad": object()})
    assert storage.reserved
    storage.save()
    assert storage.wait(60) and storage.failed == []
    assert "without its tag 'late'" in caplog.text
    tags = read(tmp_path / "folder/data_0.npz")["tags"]
    assert tags == {"good": 1, "sample": "LaB6"}


@pytest.mark.parametrize("name", SIGNALS)
def test_listener_that_waits_is_told_and_does_not_hang(
    storage: ScanStorage, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """L-10, L-22: on whichever thread; each waited for the other."""
    begun, told = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        begun.set()
        try:
            storage.wait()
        finally:
            told.set()

    getattr(storage, name).connect(wait)
    thread = threading.Thread(target=take, args=(storage,), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and begun.is_set() and told.is_set()
    assert storage.wait(60) and not storage.saving
    assert "a listener must not wait" in caplog.text
