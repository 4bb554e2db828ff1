"""Runs as NeXus files: what was measured, on what, by whom, with a plot to open."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bluesky_beamtime._version import __version__
from bluesky_beamtime.database import encode
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import Field, StreamContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.hdf5_fields import (
    add_field,
    describe,
    plain,
    plain_texts,
)
from bluesky_beamtime.exports.hdf5_file import create_hdf5
from bluesky_beamtime.exports.names import nexus_name

_EPOCH = "1970-01-01T00:00:00+00:00"


def write_nexus(
    content: RunContent,
    files: ExportFiles,
    *,
    frames: Literal["embedded", "external"] = "embedded",
) -> None:
    """Write a run as one NeXus file.

    Parameters
    ----------
    content, files
        The run, and where to.
    frames
        ``"embedded"`` copies frames; ``"external"`` links those that detectors wrote
        into HDF5 files, by relative paths.
    """
    with create_hdf5(files.single(), files) as root:
        root.attrs["NX_class"] = "NXroot"
        root.attrs["creator"] = f"bluesky-beamtime {__version__}"
        root.attrs["file_name"] = files.written[0].name
        root.attrs["file_time"] = datetime.now(UTC).isoformat()
        root.attrs["default"] = "entry"
        _Entry(root, content, files, files.folder if frames == "external" else None)


class _Entry:
    """The entry of a run in an open file."""

    def __init__(
        self, root: Any, content: RunContent, files: ExportFiles, links: Path | None
    ) -> None:
        self._content, self._files, self._links = content, files, links
        self._run = content.run
        self._entry = _group(root, "entry", "NXentry")
        # Where the dataset of each field is.
        self._places: dict[tuple[str, str], str] = {}
        self._write_run()
        self._write_people()
        self._write_sample()
        instrument = _group(self._entry, "instrument", "NXinstrument")
        for stream in content.streams.values():
            self._write_devices(instrument, stream)
        plots = [self._write_plots(stream) for stream in content.streams.values()]
        names = list(content.streams)
        best = plots[names.index("primary")] if "primary" in names else None
        default = best or next(filter(None, plots), None)
        if default is not None:
            self._entry.attrs["default"] = default
        self._write_documents()

    # ------------------------------------------------------------- what is told of it

    def _write_run(self) -> None:
        run, entry = self._run, self._entry
        start, stop = run.start, run.stop or {}
        title = start.get("title") or f"{run.label}: {run.plan_name or 'no plan'}"
        _text(entry, "title", title)
        _text(entry, "entry_identifier", run.uid)
        if run.scan_id is not None:
            _text(entry, "collection_identifier", str(run.scan_id))
        if run.proposal is not None:
            _text(entry, "experiment_identifier", run.proposal)
        _text(entry, "program_name", "bluesky-beamtime")
        entry["program_name"].attrs["version"] = __version__
        if run.time is not None:
            _text(entry, "start_time", _iso(run.time))
        ended = stop.get("time")
        if isinstance(ended, (int, float)):
            _text(entry, "end_time", _iso(ended))
            if run.time is not None:
                entry["duration"] = ended - run.time
                entry["duration"].attrs["units"] = "s"
        for number, note in enumerate(run.notes, 1):
            group = _group(entry, f"note_{number}", "NXnote")
            _text(group, "type", "text/plain")
            _text(group, "data", note.text)
            _text(group, "date", _iso(note.time))
            if note.author is not None:
                _text(group, "author", note.author)

    def _write_people(self) -> None:
        for number, person in enumerate(self._run.people, 1):
            group = _group(self._entry, f"user_{number}", "NXuser")
            for name in ("name", "role", "email", "affiliation", "orcid"):
                value = getattr(person, name)
                if value is not None:
                    _text(group, "ORCID" if name == "orcid" else name, value)

    def _write_sample(self) -> None:
        sample = self._run.sample
        if sample is None:
            return
        group = _group(self._entry, "sample", "NXsample")
        _text(group, "name", sample.name)
        if sample.formula is not None:
            _text(group, "chemical_formula", sample.formula)
        if sample.serial is not None:
            _text(group, "serial", sample.serial)
        if sample.tags:
            _text(group, "tags", ", ".join(sample.tags))
        if sample.beamline_pos is not None:
            position = sample.beamline_pos
            text = position if isinstance(position, str) else encode(position)
            _text(group, "beamline_pos", text)
        _settings(group, sample.extra, {})

    def _write_documents(self) -> None:
        group = _group(self._entry, "bluesky", "NXcollection")
        _text(group, "start", encode(self._run.start))
        if self._run.stop is not None:
            _text(group, "stop", encode(self._run.stop))
        for name, stream in self._content.streams.items():
            text = encode(stream.stream.descriptors)
            _text(group, _unused(group, nexus_name(f"{name}_descriptors")), text)
        # In their order, which groups of HDF5 do not have.
        group["streams"] = plain_texts(self._content.streams)

    # ------------------------------------------------------------------- the devices

    def _write_devices(self, instrument: Any, stream: StreamContent) -> None:
        devices: dict[str, list[Field]] = {}
        for field in stream.fields.values():
            devices.setdefault(field.device, []).append(field)
        configuration = stream.stream.configuration
        units = stream.stream.configuration_units
        for device in dict.fromkeys([*devices, *configuration]):
            fields = devices.get(device, [])
            name = nexus_name(device)
            if name in instrument:
                name = f"{name}_{nexus_name(stream.name)}"
            name = _unused(instrument, name)
            group = _group(instrument, name, self._class_of(device, fields))
            group.attrs["bluesky_name"] = plain(device)
            group.attrs["stream"] = plain(stream.name)
            _text(group, "local_name", device)
            for field in fields:
                self._write_field(group, field, stream)
            self._name_best(group, fields)
            settings = configuration.get(device)
            if settings:
                below = _group(group, _unused(group, "configuration"), "NXcollection")
                _settings(below, settings, units.get(device, {}))

    def _class_of(self, device: str, fields: list[Field]) -> str:
        if device in self._run.start.get("motors", ()):
            return "NXpositioner"
        if device in self._run.start.get("detectors", ()):
            return "NXdetector"
        if any(len(field.shape) > 1 for field in fields):
            return "NXdetector"
        return "NXcollection"

    def _write_field(self, group: Any, field: Field, stream: StreamContent) -> None:
        name = _unused(group, nexus_name(field.key))
        dataset = add_field(group, name, field, self._files, self._links)
        dataset.attrs["bluesky_name"] = plain(field.key)
        dataset.attrs["long_name"] = plain(
            field.key if field.units is None else f"{field.key} ({field.units})"
        )
        dataset.attrs["target"] = dataset.name
        self._places[field.stream, field.key] = dataset.name
        if field.timestamps is not None:
            taken = _unused(group, f"{name}_timestamps")
            group[taken] = field.timestamps
            describe(group[taken], {"units": "s", "start": _EPOCH})
        if not np.array_equal(field.seq_nums, stream.seq_nums):
            group[_unused(group, f"{name}_seq_num")] = field.seq_nums

    def _name_best(self, group: Any, fields: list[Field]) -> None:
        """Link what readers look for: the data of a detector, a positioner's value."""
        h5py: Any = import_module("h5py")

        alias = {"NXdetector": "data", "NXpositioner": "value"}.get(
            group.attrs["NX_class"]
        )
        if alias is None or not fields or alias in group:
            return
        best = max(fields, key=lambda field: len(field.shape))
        group[alias] = h5py.SoftLink(self._places[best.stream, best.key])

    # --------------------------------------------------------------------- the plots

    def _write_plots(self, stream: StreamContent) -> str | None:
        """Write groups of data that can be plotted; return the best one's name."""
        axes = self._content.scan_axes(stream.name)
        curves = [
            field
            for field in stream.fields.values()
            if len(field.shape) == 1 and field.dtype.kind in "biuf"
        ]
        hinted = [key for key in stream.hinted if key not in axes]
        rank = {key: number for number, key in enumerate(hinted)}
        signals = [
            field for field in curves if field.key not in axes and not field.streamed
        ]
        detectors: list[Any] = list(self._run.start.get("detectors", ()))

        def place(field: Field) -> tuple[bool, int, int]:
            # Descriptors have devices in any order, the plan has the user's.
            told = field.device in detectors
            order = detectors.index(field.device) if told else len(detectors)
            return field.key not in rank, order, rank.get(field.key, 0)

        signals.sort(key=place)
        name = self._write_curves(stream, signals, curves, axes)
        images = [
            self._write_images(stream, field, curves, axes)
            for field in sorted(stream.images, key=place)
        ]
        # Hinted numbers say more than a stack of frames; others are there by chance.
        if signals and (signals[0].key in rank or not images):
            return name
        return images[0] if images else None

    def _write_curves(
        self,
        stream: StreamContent,
        signals: list[Field],
        curves: list[Field],
        axes: list[str],
    ) -> str:
        name = _unused(self._entry, nexus_name(stream.name))
        group = _group(self._entry, name, "NXdata")
        self._write_rows(group, stream.times, stream.seq_nums)
        whole = [f for f in curves if len(f.seq_nums) == len(stream.seq_nums)]
        names = {field.key: self._link(group, field) for field in whole}
        shown = [names[field.key] for field in signals if field.key in names]
        if shown:
            group.attrs["signal"] = shown[0]
            if shown[1:]:
                group.attrs["auxiliary_signals"] = shown[1:]
            known = [names[key] for key in axes if key in names]
            self._set_axes(group, known, ())
        group.attrs["title"] = plain(f"{self._run.label}, {stream.name}")
        group.attrs["bluesky_name"] = plain(stream.name)
        return name

    def _write_images(
        self, stream: StreamContent, field: Field, curves: list[Field], axes: list[str]
    ) -> str:
        """Write the frames of a camera with what belongs to each of them."""
        wanted = nexus_name(f"{stream.name}_{field.key}")
        name = _unused(self._entry, wanted)
        group = _group(self._entry, name, "NXdata")
        rows = np.searchsorted(stream.seq_nums, field.seq_nums)
        self._write_rows(group, stream.times[rows], field.seq_nums)
        group.attrs["signal"] = self._link(group, field)
        group.attrs["title"] = plain(f"{self._run.label}, {field.key}")
        along: list[str] = []
        for other in curves:
            mine = other.data_key.get("coordinate_of") == field.key
            same = np.array_equal(other.seq_nums, field.seq_nums)
            if (mine or other.key in axes) and same:
                along.append(self._link(group, other))
        self._set_axes(group, along, field.shape[1:])
        return name

    def _write_rows(self, group: Any, times: Any, seq_nums: Any) -> None:
        group["time"] = times
        describe(group["time"], {"units": "s", "start": _EPOCH})
        group["seq_num"] = seq_nums

    def _set_axes(self, group: Any, known: list[str], inner: tuple[int, ...]) -> None:
        """Name the axis of each dimension; the fastest motor is what is plotted."""
        finite = bool(np.isfinite(group["time"][...]).all())
        first = known[-1] if known else "time" if finite else "seq_num"
        group.attrs["axes"] = [first, *["."] * len(inner)]
        for name in dict.fromkeys([*known, "time", "seq_num"]):
            group.attrs[f"{name}_indices"] = 0

    def _link(self, group: Any, field: Field) -> str:
        h5py: Any = import_module("h5py")

        name = _unused(group, nexus_name(field.key))
        group[name] = h5py.SoftLink(self._places[field.stream, field.key])
        return name


def _settings(
    group: Any, settings: Mapping[str, Any], units: Mapping[str, Any]
) -> None:
    for key, value in settings.items():
        if value is None:
            continue
        name = _unused(group, nexus_name(key))
        group[name] = plain(value)
        describe(group[name], {"units": units.get(key), "bluesky_name": key})


def _group(parent: Any, name: str, kind: str) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _text(group: Any, name: str, text: str) -> None:
    group[name] = plain(str(text))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _unused(group: Any, name: str) -> str:
    number, free = 2, name
    while free in group:
        free, number = f"{name}_{number}", number + 1
    return free


nexus = ExportFormat("nexus", "nxs", write_nexus)
