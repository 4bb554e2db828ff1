"""Runs as plain HDF5: a group for each stream, a dataset for each field."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from bluesky_beamtime.exports.content import RunContent, StreamContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.hdf5_fields import add_field, describe, plain


def write_hdf5(content: RunContent, files: ExportFiles) -> None:
    """Write a run as one HDF5 file.

    ``/streams/<stream>/data/<key>`` holds the values, ``timestamps/<key>`` beside it
    when each was taken, ``time`` and ``seq_num`` the rows; a field that lacks some rows
    has its own ``rows/<key>``. ``configuration/<device>/<setting>`` holds the settings.
    The groups ``/start``, ``/stop`` and ``/sample`` have what was said of the run;
    lists and mappings in them are JSON.
    """
    h5py: Any = import_module("h5py")

    run = content.run
    with h5py.File(files.single(), "w", libver="v110") as root:
        _document(root, "start", run.start)
        if run.stop is not None:
            _document(root, "stop", run.stop)
        if run.sample is not None:
            described = {
                name: getattr(run.sample, name)
                for name in ("name", "formula", "serial", "tags", "beamline_pos")
            }
            _document(root, "sample", described | run.sample.extra)
        for name, stream in content.streams.items():
            below = root.require_group(f"streams/{_level(name)}")
            _write_stream(below, stream, files)


def _write_stream(group: Any, stream: StreamContent, files: ExportFiles) -> None:
    group.attrs["name"] = stream.name
    group["time"] = stream.times
    describe(group["time"], {"units": "s"})
    group["seq_num"] = stream.seq_nums
    data, stamps = group.create_group("data"), group.create_group("timestamps")
    for key, field in stream.fields.items():
        dataset = add_field(data, _level(key), field, files)
        describe(dataset, {"name": key, "device": field.device})
        if field.timestamps is not None:
            stamps[_level(key)] = field.timestamps
            describe(stamps[_level(key)], {"units": "s"})
        if not np.array_equal(field.seq_nums, stream.seq_nums):
            group.require_group("rows")[_level(key)] = field.seq_nums
    units = stream.stream.configuration_units
    for device, settings in stream.stream.configuration.items():
        below = group.require_group(f"configuration/{_level(device)}")
        for key, value in settings.items():
            if value is not None:
                below[_level(key)] = plain(value)
                unit = units.get(device, {}).get(key)
                describe(below[_level(key)], {"units": unit})


def _document(root: Any, name: str, document: dict[str, Any]) -> None:
    group = root.create_group(name)
    for key, value in document.items():
        if value is not None:
            group[_level(key)] = plain(value)


def _level(name: str) -> str:
    """Return a name of one level: a slash would begin another one."""
    safe = name.replace("/", "_").replace("\0", "_")
    return f"{safe}_" if safe in ("", ".") else safe


hdf5 = ExportFormat("hdf5", "h5", write_hdf5)
