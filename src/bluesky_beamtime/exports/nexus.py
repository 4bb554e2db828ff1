"""Runs as NeXus files: what was measured, on what, by whom, with a plot to open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bluesky_beamtime._version import __version__
from bluesky_beamtime.database import Setting, encode
from bluesky_beamtime.database.descriptions import Descriptions
from bluesky_beamtime.database.kinds import texts_in
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import Field, StreamContent
from bluesky_beamtime.exports.files import ExportFiles
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.hdf5_fields import (
    add_changes,
    add_field,
    describe,
    plain,
    plain_texts,
)
from bluesky_beamtime.exports.hdf5_file import create_hdf5
from bluesky_beamtime.exports.names import nexus_name
from bluesky_beamtime.exports.nexus_groups import (
    EPOCH,
    iso_time,
    new_group,
    new_text,
    unused,
)
from bluesky_beamtime.exports.nexus_plots import Plots


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
    content.warn_of_units()
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
        self._entry = new_group(root, "entry", "NXentry")
        # Where the dataset of each field is.
        self._places: dict[tuple[str, str], str] = {}
        self._write_run()
        self._write_people()
        self._write_sample()
        instrument = new_group(self._entry, "instrument", "NXinstrument")
        for stream in content.streams.values():
            self._write_devices(instrument, stream)
        # A stream may be called as this is.
        self._write_documents()
        plots = Plots(self._entry, content, self._places)
        found = [plots.write(stream) for stream in content.streams.values()]
        names = list(content.streams)
        best = found[names.index("primary")] if "primary" in names else None
        default = best or next(filter(None, found), None)
        if default is not None:
            self._entry.attrs["default"] = default

    # ------------------------------------------------------------- what is told of it

    def _write_run(self) -> None:
        run, entry = self._run, self._entry
        start, stop = run.start, run.stop or {}
        title = start.get("title") or f"{run.label}: {run.plan_name or 'no plan'}"
        new_text(entry, "title", title)
        new_text(entry, "entry_identifier", run.uid)
        if run.scan_id is not None:
            new_text(entry, "collection_identifier", str(run.scan_id))
        if run.proposal is not None:
            new_text(entry, "experiment_identifier", run.proposal)
        new_text(entry, "program_name", "bluesky-beamtime")
        entry["program_name"].attrs["version"] = __version__
        if run.time is not None:
            new_text(entry, "start_time", iso_time(run.time))
        ended = stop.get("time")
        if isinstance(ended, (int, float)):
            new_text(entry, "end_time", iso_time(ended))
            if run.time is not None:
                # Whole seconds by definition; the two times have the rest.
                entry["duration"] = round(ended - run.time)
                entry["duration"].attrs["units"] = "s"
        for number, note in enumerate(run.notes, 1):
            group = new_group(entry, f"note_{number}", "NXnote")
            new_text(group, "type", "text/plain")
            new_text(group, "data", note.text)
            new_text(group, "date", iso_time(note.time))
            if note.author is not None:
                new_text(group, "author", note.author)

    def _write_people(self) -> None:
        for number, person in enumerate(self._run.people, 1):
            group = new_group(self._entry, f"user_{number}", "NXuser")
            for name in ("name", "role", "email", "affiliation", "orcid"):
                value = getattr(person, name)
                if value is not None:
                    new_text(group, "ORCID" if name == "orcid" else name, value)

    def _write_sample(self) -> None:
        sample = self._run.sample
        if sample is None:
            return
        group = new_group(self._entry, "sample", "NXsample")
        new_text(group, "name", sample.name)
        if sample.formula is not None:
            new_text(group, "chemical_formula", sample.formula)
        if sample.serial is not None:
            new_text(group, "serial", sample.serial)
        if sample.tags:
            new_text(group, "tags", ", ".join(sample.tags))
        if sample.beamline_pos is not None:
            position = sample.beamline_pos
            text = position if isinstance(position, str) else encode(position)
            new_text(group, "beamline_pos", text)
        _settings(group, sample.extra, {})

    def _write_documents(self) -> None:
        group = new_group(self._entry, "bluesky", "NXcollection")
        new_text(group, "start", encode(self._run.start))
        if self._run.stop is not None:
            new_text(group, "stop", encode(self._run.stop))
        for name, stream in self._content.streams.items():
            text = encode(stream.stream.descriptors)
            new_text(group, unused(group, nexus_name(f"{name}_descriptors")), text)
        # In their order, which groups of HDF5 do not have.
        group["streams"] = plain_texts(self._content.streams)

    # ------------------------------------------------------------------- the devices

    def _write_devices(self, instrument: Any, stream: StreamContent) -> None:
        devices: dict[str, list[Field]] = {}
        for field in stream.fields.values():
            devices.setdefault(field.device, []).append(field)
        described = Descriptions(stream.stream)
        configuration = described.configuration()
        units = described.configuration_units()
        changes = described.configuration_changes()
        for device in dict.fromkeys([*devices, *configuration]):
            fields = devices.get(device, [])
            name = nexus_name(device)
            if name in instrument:
                name = f"{name}_{nexus_name(stream.name)}"
            name = unused(instrument, name)
            group = new_group(instrument, name, self._class_of(device, fields))
            group.attrs["bluesky_name"] = plain(device)
            group.attrs["stream"] = plain(stream.name)
            new_text(group, "local_name", device)
            for field in fields:
                self._write_field(group, field, stream)
            self._name_best(group, fields)
            settings = configuration.get(device)
            if settings:
                below = new_group(group, unused(group, "configuration"), "NXcollection")
                changed = changes.get(device, {})
                same = {k: v for k, v in settings.items() if k not in changed}
                _settings(below, same, units.get(device, {}))
                _changed_settings(below, changed)

    def _class_of(self, device: str, fields: list[Field]) -> str:
        if device in texts_in(self._run.start.get("motors")):
            return "NXpositioner"
        if device in texts_in(self._run.start.get("detectors")):
            return "NXdetector"
        if any(len(field.shape) > 1 for field in fields):
            return "NXdetector"
        return "NXcollection"

    def _write_field(self, group: Any, field: Field, stream: StreamContent) -> None:
        name = unused(group, nexus_name(field.key))
        dataset = add_field(group, name, field, self._files, self._links)
        dataset.attrs["bluesky_name"] = plain(field.key)
        dataset.attrs["long_name"] = plain(
            field.key if field.units is None else f"{field.key} ({field.units})"
        )
        dataset.attrs["target"] = dataset.name
        self._places[field.stream, field.key] = dataset.name
        if field.timestamps is not None:
            taken = unused(group, f"{name}_timestamps")
            group[taken] = field.timestamps
            describe(group[taken], {"units": "s", "start": EPOCH})
        if not np.array_equal(field.seq_nums, stream.seq_nums):
            group[unused(group, f"{name}_seq_num")] = field.seq_nums

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


def _settings(
    group: Any, settings: Mapping[str, Any], units: Mapping[str, Any]
) -> None:
    for key, value in settings.items():
        if value is None:
            continue
        name = unused(group, nexus_name(key))
        group[name] = plain(value)
        describe(group[name], {"units": units.get(key), "bluesky_name": key})


def _changed_settings(group: Any, changed: Mapping[str, Sequence[Setting]]) -> None:
    for key, held in changed.items():
        name = unused(group, nexus_name(key))
        add_changes(group, name, unused(group, f"{name}_seq_num"), held)
        describe(group[name], {"bluesky_name": key})


nexus = ExportFormat("nexus", "nxs", write_nexus)
