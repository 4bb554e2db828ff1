"""What a window can know of a ScanStorage: its status, and when to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.errors import PathError, StoreWriteError
from bluesky_beamtime.storage import ScanStorage, scan_names


@pytest.fixture
def storage(tmp_path: Path) -> ScanStorage:
    return ScanStorage(tmp_path, "LaB6", "map", format="npz")


def count(storage: ScanStorage) -> list[Any]:
    told: list[Any] = []
    storage.changed.connect(lambda: told.append(storage.status))
    return told


def test_status_is_what_the_storage_is_set_to(
    storage: ScanStorage, tmp_path: Path
) -> None:
    status = storage.status
    assert (status.base, status.folder, status.name) == (str(tmp_path), "LaB6", "map")
    assert status.numbered and status.enabled and status.number == 0
    assert status.target == tmp_path / "LaB6/map_0.npz"
    assert (status.reserved, status.writing, status.failures) == (0, 0, ())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("base", "elsewhere"),
        ("folder", "2026/LaB6"),
        ("name", "sum"),
        ("numbered", False),
        ("enabled", False),
    ],
)
def test_every_setting_tells_when_it_changes(
    storage: ScanStorage, setting: str, value: Any
) -> None:
    told = count(storage)
    setattr(storage, setting, value)
    assert [getattr(status, setting) for status in told] == [value]
    setattr(storage, setting, value)
    assert len(told) == 1


def test_reservations_and_saves_tell(storage: ScanStorage, tmp_path: Path) -> None:
    """Also where a scan is reserved while another is saved, and saving stays true."""
    told = count(storage)
    for value in range(2):
        storage.reserve((2,))
        storage.update({(0,): value})
    storage.save()
    assert storage.wait(60)
    assert {status.reserved for status in told} == {0, 1}
    assert any(status.writing for status in told)
    assert storage.status == told[-1]
    assert (storage.status.number, storage.status.writing) == (2, 0)


def test_failures_come_with_their_error(storage: ScanStorage, tmp_path: Path) -> None:
    storage.reserve((2,))
    storage.update({(0,): 1})
    blocker = tmp_path / "LaB6/map_0.npz"
    blocker.touch()
    storage.save()
    assert storage.wait(60)
    [(target, error)] = storage.status.failures
    assert target == blocker and isinstance(error, PathError)
    blocker.unlink()
    storage.retry()
    assert storage.wait(60) and storage.status.failures == ()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("base", "~nobody-of-that-name/x"),
        ("base", "a\0b"),
        ("folder", "../x"),
        ("name", "a/b"),
        ("name", ""),
    ],
)
def test_a_setting_that_leads_nowhere_changes_nothing(
    storage: ScanStorage, setting: str, value: str
) -> None:
    told, before = count(storage), storage.status
    with pytest.raises(PathError):
        setattr(storage, setting, value)
    assert storage.status == before and told == []
    assert getattr(storage, setting) == getattr(before, setting)


def test_a_folder_that_cannot_be_looked_into_is_refused(
    storage: ScanStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the end of a save is told, though the disk is gone meanwhile."""
    listdir = scan_names.os.listdir
    gone = {tmp_path / "closed/LaB6"}

    def broken(path: Path) -> list[str]:
        if path in gone:
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(scan_names.os, "listdir", broken)
    with pytest.raises(StoreWriteError, match="closed"):
        storage.base = tmp_path / "closed"
    assert storage.base == str(tmp_path)
    storage.reserve((2,))
    storage.update({(0,): 1})
    gone.add(tmp_path / "LaB6")
    storage.save()
    assert storage.wait(60) and not storage.saving
    assert (storage.status.reserved, storage.status.writing) == (0, 0)


def test_place_is_set_without_a_look_until_somebody_looks(
    storage: ScanStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-09: a reservation finds its own number all the same."""
    (tmp_path / "2026/Si").mkdir(parents=True)
    (tmp_path / "2026/Si/sum_6.npz").touch()
    told, numbers = count(storage), list[Any]()
    storage.numberChanged.connect(numbers.append)
    with monkeypatch.context() as patch:
        patch.setattr(scan_names.os, "listdir", lambda _: pytest.fail("looked"))
        storage.set_place(base=tmp_path / "2026", folder="Si", name="sum")
        assert len(told) == 1 and numbers == []
        for wrong in ({"folder": "../x"}, {"name": "a/b"}, {"base": "a\0b"}):
            with pytest.raises(PathError):
                storage.set_place(**wrong)  # type: ignore[arg-type]
        assert len(told) == 1
    assert (storage.base, storage.folder, storage.name) == (
        str(tmp_path / "2026"),
        "Si",
        "sum",
    )
    storage.look()
    assert numbers == [7]
    assert storage.status.target == tmp_path / "2026/Si/sum_7.npz"
    storage.look()
    assert numbers == [7] and len(told) == 2
    storage.set_place(folder="LaB6")
    storage.reserve((2,))
    assert storage.buffer == tmp_path / "2026/LaB6/sum_0.partial/scan.zarr"
    assert numbers == [7, 1]


def test_end_of_a_save_is_told_without_a_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-22: which a base that is relative needs."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    storage = ScanStorage(tmp_path)
    storage.reserve((2,))
    storage.update({(0,): 1})
    storage.base = "relative"
    (tmp_path / "gone").rmdir()
    storage.save()
    assert storage.wait(60) and storage.failed == [] and not storage.saving
    assert (storage.status.reserved, storage.status.writing) == (0, 0)
