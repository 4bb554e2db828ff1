"""OME-NGFF metadata on request, and the space that frames take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bluesky_beamtime.storage import (
    ZarrWriter,
    check_space,
    frames_size,
    free_space,
    human_size,
    to_uri,
)


def test_a_store_describes_its_images_as_ome_ngff(tmp_path: Path) -> None:
    import zarr

    writer = ZarrWriter("ngff")
    writer.set_uri(str(tmp_path / "store"))
    first = writer.prepare(
        "cam",
        "cam",
        "u2",
        (4, 5),
        ome_ngff=True,
        pixel_size=(0.5, 0.25),
        pixel_unit="micrometer",
    )
    writer.kickoff()
    first.write(np.zeros((4, 5), "u2"))
    late = writer.prepare("vol", "vol", "u2", (3, 4, 5), ome_ngff=True)
    late.write(np.zeros((3, 4, 5), "u2"))
    first.close()
    late.close()
    group = zarr.open_group(tmp_path / "store", mode="r")
    images = {m["name"]: m for m in group.attrs["ome"]["multiscales"]}
    assert [axis["name"] for axis in images["cam"]["axes"]] == ["t", "y", "x"]
    assert [axis["name"] for axis in images["vol"]["axes"]] == ["t", "z", "y", "x"]
    assert images["cam"]["axes"][1]["unit"] == "micrometer"
    (dataset,) = images["cam"]["datasets"]
    assert group[dataset["path"]].shape == (1, 4, 5)
    (transform,) = dataset["coordinateTransformations"]
    assert transform == {"type": "scale", "scale": [1.0, 0.5, 0.25]}


def test_what_ome_ngff_cannot_describe_is_refused(tmp_path: Path) -> None:
    writer = ZarrWriter("ngff refused")
    with pytest.raises(ValueError, match="2 or 3 dimensions"):
        writer.prepare("s", "s", "u2", (4,), ome_ngff=True)
    with pytest.raises(ValueError, match="scales"):
        writer.prepare("s", "s", "u2", (4, 4), ome_ngff=True, pixel_size=(1,))
    with pytest.raises(TypeError, match="'compresion'"):
        writer.prepare("s", "s", "u2", (4, 4), compresion="lz4")
    assert writer.sources == {}


def test_the_estimate_is_what_the_disk_shows(tmp_path: Path) -> None:
    writer = ZarrWriter("size")
    writer.set_uri(str(tmp_path / "store"))
    sink = writer.prepare("cam", "cam", "u2", (64, 64))
    writer.kickoff()
    for _ in range(100):
        sink.write(np.ones((64, 64), "u2"))
    sink.close()
    shards = sum(p.stat().st_size for p in (tmp_path / "store" / "cam").glob("c.*"))
    assert frames_size(100, "u2", (64, 64)) == shards


def test_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    missing = tmp_path / "not" / "yet"
    assert free_space(missing) == pytest.approx(free_space(tmp_path), rel=0.05)
    report = check_space(to_uri(missing), 1 << 60)
    assert not report.ok
    assert "does not fit" in str(report)
    assert check_space(missing, 1).ok


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (3_200_000_000, "3.2 GB"), (2e18, "2000.0 PB")],
)
def test_sizes_as_people_read_them(count: float, text: str) -> None:
    assert human_size(count) == text
