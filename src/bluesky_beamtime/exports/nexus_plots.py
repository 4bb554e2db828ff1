"""The plots of a NeXus file: what a reader draws when it opens the file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from bluesky_beamtime.database.kinds import texts_in
from bluesky_beamtime.exports.content import RunContent
from bluesky_beamtime.exports.fields import Field, StreamContent
from bluesky_beamtime.exports.hdf5_fields import describe, plain
from bluesky_beamtime.exports.names import nexus_name
from bluesky_beamtime.exports.nexus_groups import EPOCH, new_group, unused


class Plots:
    """Writes groups of class NXdata, which link the datasets of the devices.

    Parameters
    ----------
    entry
        Group of the run.
    content
        The run.
    places
        Path of the dataset of each field, by stream and data key.
    """

    def __init__(
        self, entry: Any, content: RunContent, places: Mapping[tuple[str, str], str]
    ) -> None:
        self._entry, self._content, self._places = entry, content, places
        self._run = content.run

    def write(self, stream: StreamContent) -> str | None:
        """Write groups of data that can be plotted; return the best one's name."""
        axes = self._content.scan_axes(stream.name)
        curves = [
            field
            for field in stream.fields.values()
            if len(field.shape) == 1 and field.dtype.kind in "biuf"
        ]
        hinted = [key for key in stream.hinted if key not in axes]
        rank = {key: number for number, key in enumerate(hinted)}
        rows = len(stream.seq_nums)
        signals = [
            field
            for field in curves
            if field.key not in axes
            and not field.streamed
            and len(field.seq_nums) == rows
        ]
        detectors = texts_in(self._run.start.get("detectors"))

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
        name = unused(self._entry, nexus_name(stream.name))
        # NXdata without a signal would be no plot, and no valid file.
        group = new_group(self._entry, name, "NXdata" if signals else "NXcollection")
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
        name = unused(self._entry, wanted)
        group = new_group(self._entry, name, "NXdata")
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
        describe(group["time"], {"units": "s", "start": EPOCH})
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

        name = unused(group, nexus_name(field.key))
        group[name] = h5py.SoftLink(self._places[field.stream, field.key])
        return name
