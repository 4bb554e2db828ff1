"""Runs to export, and a look at what came out of it that needs none of our code."""

from __future__ import annotations

import csv
import json
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest

from bluesky_beamtime.storage import ZarrWriter

FORMATS = {
    "csv": "csv",
    "hdf5": "h5",
    "jsonl": "jsonl",
    "msgpack": "msgpack",
    "netcdf": "nc",
    "nexus": "nxs",
    "ome-tiff": "ome.tiff",
    "parquet": "parquet",
    "spec": "spec",
    "tiff": "tiff",
    "xlsx": "xlsx",
    "zarr": "zarr",
}


@contextmanager
def small_disk(disk: Path, size: int) -> Iterator[Path]:
    """Give a file system of so many bytes."""
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted only by root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def emit_long_run(beamtime: Any, folder: Path, *, events: int, frames: int) -> str:
    """Emit a run of one stream with numbers in events and streamed frames of 64²."""
    composed = event_model.compose_run(
        metadata={"plan_name": "scan", "scan_id": 9, "detectors": ["cam"]}
    )
    uid = composed.start_doc["uid"]
    beamtime("start", composed.start_doc)
    keys = [f"x{number}" for number in range(4)]
    number_key = {"source": "sim", "dtype": "number", "shape": [], "units": "mm"}
    camera = {
        "source": "sim",
        "dtype": "array",
        "shape": [1, 64, 64],
        "dtype_numpy": "<u2",
        "external": "STREAM:",
    }
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={**dict.fromkeys(keys, number_key), "cam": camera},
        hints={},
        configuration={},
        object_keys={"x": keys, "cam": ["cam"]},
    )
    beamtime("descriptor", stream.descriptor_doc)
    random = np.random.default_rng(3)
    writer = ZarrWriter.get("export-cam")
    writer.set_uri(str(folder))
    sink = writer.prepare("cam", "cam", np.dtype("u2"), (64, 64))
    writer.kickoff()
    sink.write_many(random.integers(0, 65535, (frames, 64, 64), "uint16"))
    for kind, document in writer.collect_stream_docs("cam", frames):
        more: dict[str, Any] = {"run_start": uid}
        if kind == "stream_datum":
            numbers = {"start": 1, "stop": frames + 1}
            more = {"descriptor": stream.descriptor_doc["uid"], "seq_nums": numbers}
        beamtime(kind, {**document, **more})
    sink.close()
    ZarrWriter.release("export-cam")
    for row in random.random((events, len(keys))).tolist():
        data = dict(zip(keys, row, strict=True))
        stamps = dict.fromkeys(keys, 1.0)
        event = stream.compose_event(data=data, timestamps=stamps, validate=False)
        beamtime("event", event)
    beamtime("stop", composed.compose_stop())
    return uid


def emit_reconfigured(
    beamtime: Any, *settings: Mapping[str, Any], rows: int = 2
) -> str:
    """Emit a run in which a device was configured: a descriptor for each of them.

    Parameters
    ----------
    beamtime
        What takes documents.
    *settings
        What the descriptor says: ``exposure``, ``exposure_units`` and ``units``, those
        of the readings.
    rows
        Events of each.
    """
    composed = event_model.compose_run(metadata={"plan_name": "any", "scan_id": 4})
    beamtime("start", composed.start_doc)
    for place, told in enumerate(settings):
        described = {"source": "sim", "dtype": "number", "shape": []}
        setting = {**described, "units": told.get("exposure_units", "s")}
        mode = {"source": "sim", "dtype": "string", "shape": []}
        stream = composed.compose_descriptor(
            name="primary",
            data_keys={"det": {**described, "units": told.get("units", "V")}},
            hints={},
            configuration={
                "det": {
                    "data": {"exposure": told["exposure"], "mode": "a"},
                    "timestamps": {"exposure": 1.0, "mode": 1.0},
                    "data_keys": {"exposure": setting, "mode": mode},
                }
            },
            object_keys={"det": ["det"]},
        )
        beamtime("descriptor", stream.descriptor_doc)
        for number in range(place * rows + 1, (place + 1) * rows + 1):
            event = stream.compose_event(
                data={"det": float(number)}, timestamps={"det": 1.0}, seq_num=number
            )
            beamtime("event", event)
    beamtime("stop", composed.compose_stop())
    return composed.start_doc["uid"]


def seen_in(path: Path, to: str) -> Any:
    """Read a file to its end, and return what two whole ones have in common."""
    if to in ("nexus", "hdf5", "netcdf"):
        return _seen_in_hdf5(path)
    if to in ("tiff", "ome-tiff"):
        import tifffile

        return int(tifffile.imread(path).sum(dtype=np.uint64))
    if to == "csv":
        with path.open(newline="") as file:
            return list(csv.reader(file))
    if to == "spec":
        return [line for line in path.read_text().splitlines() if line[:2] != "#F"]
    if to == "jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if to == "parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path)
    if to == "msgpack":
        import msgpack

        with path.open("rb") as file:
            return list(msgpack.Unpacker(file))
    if to == "xlsx":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    import zarr

    group = zarr.open_group(path, mode="r")
    return {key: group[key][...].tolist() for key in sorted(group.array_keys())}


def _seen_in_hdf5(path: Path) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}

    def look(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            values = node[...]
            found[name] = np.asarray(values).tolist()

    with h5py.File(path) as root:
        root.visititems(look)
    return found
