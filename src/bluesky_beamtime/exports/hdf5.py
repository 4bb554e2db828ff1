"""Runs as plain HDF5: a group for each stream, a dataset for each field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bluesky_beamtime.database.descriptions import Descriptions
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import StreamContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.hdf5_fields import add_changes, add_field, describe, plain
from bluesky_beamtime.exports.hdf5_file import create_hdf5
from bluesky_beamtime.exports.names import level_name, unique_names


def write_hdf5(content: RunContent, files: ExportFiles) -> None:
    """Write a run as one HDF5 file.

    ``/streams/<stream>/data/<key>`` holds the values, ``timestamps/<key>`` beside it
    when each was taken, ``time`` and ``seq_num`` the rows; a field that lacks some rows
    has its own ``rows/<key>``. ``configuration/<device>/<setting>`` holds the settings;
    one that was changed within the run has all its values, and
    ``<setting>_seq_num`` beside it the first event that was taken with each. The groups
    ``/start``, ``/stop`` and ``/sample`` have what was said of the run; lists and
    mappings in them are JSON.
    """
    run = content.run
    content.warn_of_units()
    with create_hdf5(files.single(), files) as root:
        _document(root, "start", run.start)
        if run.stop is not None:
            _document(root, "stop", run.stop)
        if run.sample is not None:
            described = {
                name: getattr(run.sample, name)
                for name in ("name", "formula", "serial", "tags", "beamline_pos")
            }
            _document(root, "sample", described | run.sample.extra)
        names = unique_names(content.streams, level_name)
        for number, stream in enumerate(content.streams.values()):
            below = root.require_group(f"streams/{names[stream.name]}")
            describe(below, {"name": stream.name, "number": number})
            _write_stream(below, stream, files)


def _write_stream(group: Any, stream: StreamContent, files: ExportFiles) -> None:
    group["time"] = stream.times
    describe(group["time"], {"units": "s"})
    group["seq_num"] = stream.seq_nums
    data, stamps = group.create_group("data"), group.create_group("timestamps")
    names = unique_names(stream.fields, level_name)
    for key, field in stream.fields.items():
        name = names[key]
        dataset = add_field(data, name, field, files)
        describe(dataset, {"name": key, "device": field.device})
        if field.timestamps is not None:
            stamps[name] = field.timestamps
            describe(stamps[name], {"units": "s"})
        if not np.array_equal(field.seq_nums, stream.seq_nums):
            group.require_group("rows")[name] = field.seq_nums
    described = Descriptions(stream.stream)
    units = described.configuration_units()
    changes = described.configuration_changes()
    configuration = described.configuration()
    devices = unique_names(configuration, level_name)
    for device, settings in configuration.items():
        below = group.require_group(f"configuration/{devices[device]}")
        changed = changes.get(device, {})
        same = {key: settings[key] for key in settings if key not in changed}
        names = unique_names(settings, level_name)
        _values(below, same, units.get(device, {}), names)
        rows = {key: f"{names[key]}_seq_num" for key in changed}
        beside = unique_names(rows.values(), level_name, names.values())
        for key, held in changed.items():
            add_changes(below, names[key], beside[rows[key]], held)
            describe(below[names[key]], {"name": _renamed(key, names)})


def _document(root: Any, name: str, document: dict[str, Any]) -> None:
    names = unique_names(document, level_name)
    _values(root.create_group(name), document, {}, names)


def _values(
    group: Any,
    values: Mapping[str, Any],
    units: Mapping[str, str],
    names: Mapping[str, str],
) -> None:
    for key, value in values.items():
        if value is not None:
            group[names[key]] = plain(value)
            told = {"units": units.get(key), "name": _renamed(key, names)}
            describe(group[names[key]], told)


def _renamed(key: str, names: Mapping[str, str]) -> str | None:
    return key if names[key] != key else None


hdf5 = ExportFormat("hdf5", "h5", write_hdf5)
