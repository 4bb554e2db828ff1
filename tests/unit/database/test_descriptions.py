"""A stream that is described anew within its run, as by ``bps.configure``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import event_model
import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Setting
from bluesky_beamtime.database.descriptions import told_units
from bluesky_beamtime.errors import BeamtimeWarning
from bluesky_beamtime.storage import ZarrWriter
from tests.exported import emit_reconfigured
from tests.unit.exports.kinds import Emitter

SHORT = {"exposure": 0.1, "units": "V"}
LONG = {"exposure": 0.5, "units": "mV"}


@pytest.fixture
def beamtime(tmp_path: Path) -> Iterator[Beamtime]:
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


def test_units_that_changed_are_told_row_by_row(beamtime: Beamtime) -> None:
    stream = beamtime[emit_reconfigured(beamtime, SHORT, LONG)].primary
    assert stream.units_of_rows == {"det": [(1, "V"), (3, "mV")]}
    assert "units" not in stream.data_keys["det"]
    with pytest.warns(BeamtimeWarning, match="'det' .*: V from seq_num 1, mV from se"):
        found = stream.read()["det"]
    np.testing.assert_array_equal(found, [1.0, 2.0, 3.0, 4.0])
    assert found.attrs == {"source": "sim", "units_of_rows": '[[1,"V"],[3,"mV"]]'}
    with pytest.warns(BeamtimeWarning, match="mV from seq_num 3") as caught:
        stream.to_pandas()
    assert caught[0].filename == __file__


def test_settings_that_changed_are_told_with_their_events(beamtime: Beamtime) -> None:
    in_ms = {"exposure": 500, "exposure_units": "ms"}
    told = ({"exposure": 0.1}, {"exposure": 0.1}, in_ms, {"exposure": 0.1})
    stream = beamtime[emit_reconfigured(beamtime, *told)].primary
    held = [Setting(1, 0.1, "s"), Setting(5, 500, "ms"), Setting(7, 0.1, "s")]
    assert stream.configuration_changes == {"det": {"exposure": held}}
    assert stream.configuration == {"det": {"exposure": 0.1, "mode": "a"}}
    assert stream.configuration_units == {"det": {"exposure": "s"}}
    assert stream.units_of_rows == {}
    assert stream.read()["det"].attrs["units"] == "V"


def described_twice(beamtime: Beamtime) -> tuple[str, Callable[[str, int], None]]:
    """Return a run that goes on, and what emits an event of ``"V"`` or ``"mV"``."""
    told = beamtime[emit_reconfigured(beamtime, SHORT, LONG)].primary.descriptors
    composed = event_model.compose_run(metadata={"plan_name": "any"})
    run = composed.start_doc["uid"]
    beamtime("start", composed.start_doc)
    for units, descriptor in zip(("V", "mV"), told, strict=True):
        beamtime("descriptor", {**descriptor, "uid": units, "run_start": run})

    def emit(units: str, seq_num: int) -> None:
        event = {"uid": f"{units}{seq_num}", "time": 1.0, "filled": {}}
        values = {"data": {"det": 1.0}, "timestamps": {"det": 1.0}}
        more = {"descriptor": units, "seq_num": seq_num}
        beamtime("event", event | values | more)

    return run, emit


def test_what_no_event_was_taken_with_did_not_hold(beamtime: Beamtime) -> None:
    uid, emit = described_twice(beamtime)
    stream = beamtime[uid].primary
    # As long as there is no event, the last that was said.
    assert stream.configuration["det"]["exposure"] == 0.5
    assert stream.data_keys["det"]["units"] == "mV"
    emit("V", 1)
    assert stream.configuration["det"]["exposure"] == 0.1
    assert stream.configuration_changes == stream.units_of_rows == {}
    assert stream.data_keys["det"]["units"] == "V"
    assert stream.read()["det"].attrs["units"] == "V"


def test_an_event_that_was_repeated_counts_as_the_last(beamtime: Beamtime) -> None:
    """It was taken again after a pause, in which the device was configured."""
    uid, emit = described_twice(beamtime)
    for units, seq_num in (("V", 1), ("V", 2), ("mV", 2), ("mV", 3)):
        emit(units, seq_num)
    assert beamtime[uid].primary.units_of_rows == {"det": [(1, "V"), (2, "mV")]}


def test_frames_count_where_there_are_no_events(
    beamtime: Beamtime, tmp_path: Path
) -> None:
    frames = np.arange(24, dtype="u2").reshape(4, 2, 3)
    run = Emitter(beamtime, tmp_path)
    run.describe("primary", {"cam": {"units": "V"}}, {"cam": (frames, 1, ZarrWriter)})
    run.describe("primary", {"cam": {"units": "mV"}})
    stream = beamtime[run.stop().uid].primary
    assert stream.data_keys["cam"]["units"] == "V"


def test_many_changes_are_told_in_short() -> None:
    many = [(number, f"{number} V") for number in range(1, 9)]
    assert told_units([(1, None), (5, "V")]) == "none from seq_num 1, V from seq_num 5"
    assert told_units(many).endswith("3 V from seq_num 3, 5 more")
