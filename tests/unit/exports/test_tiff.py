"""TIFF files, read back by tifffile and Pillow."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.storage import ZarrWriter

from . import conftest as sent
from .test_tables import two_streams

STACKS = {"map": sent.MAPS, "cam1": sent.CAM1, "cam2": sent.CAM2}


@pytest.mark.parametrize(("to", "ending"), [("tiff", "tiff"), ("ome-tiff", "ome.tiff")])
def test_each_camera_comes_back_from_a_file_of_its_own(
    run: Run, tmp_path: Path, to: str, ending: str
) -> None:
    paths = run.export(tmp_path / f"run.{ending}", to)
    assert [path.name for path in paths] == [f"run-{k}.{ending}" for k in STACKS]
    for path, (key, expected) in zip(paths, STACKS.items(), strict=True):
        with tifffile.TiffFile(path) as file:
            got = file.asarray()
            assert file.is_ome == (to == "ome-tiff")
            if to == "tiff":
                told = json.loads(file.pages[0].description)
            else:
                image = ElementTree.fromstring(file.ome_metadata)[0]
                assert image.attrib["Name"] == key
                text = next(e.text for e in image if e.tag.endswith("Description"))
                told = json.loads(text)
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype
        assert told["units"] == sent.DATA_KEYS[key]["units"]
        assert (told["data_key"], told["run"]) == (key, run.uid)


def test_another_reader_sees_every_page(run: Run, tmp_path: Path) -> None:
    paths = run.export(tmp_path / "run.tiff", "tiff")
    with Image.open(paths[1]) as image:
        assert image.n_frames == 5
        for number, expected in enumerate(sent.CAM1):
            image.seek(number)
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_run_without_frames_says_what_takes_it(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        run = two_streams(beamtime)
        with pytest.raises(ExportError, match="has no frames"):
            run.export(tmp_path / "run.tiff", "tiff")


def test_folder_gets_the_ending_of_ome(tmp_path: Path) -> None:
    with Beamtime(tmp_path / "x.db") as beamtime:
        uid = sent.emit_run(beamtime, tmp_path / "frames", (ZarrWriter,))
        paths = beamtime[uid].export(tmp_path, "ome-tiff")
    assert [p.name for p in paths] == ["7_scan-map.ome.tiff", "7_scan-cam1.ome.tiff"]
