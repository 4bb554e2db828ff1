"""Where an axis was at a given moment."""

from __future__ import annotations

import asyncio
import math
import time

import pytest
from ophyd_async.core import SignalR, soft_signal_r_and_setter, soft_signal_rw

from bluesky_beamtime.devices import AxisTrack
from bluesky_beamtime.devices import positions as module
from bluesky_beamtime.devices.positions import PendingPositions
from bluesky_beamtime.errors import DeviceError


def track_of(updates: list[tuple[float, float]]) -> AxisTrack:
    """Return the track of an axis that has told these positions by then."""
    track = AxisTrack("x", soft_signal_rw(float, name="x"))
    for stamp, value in updates:
        track._moved({"x": {"value": value, "timestamp": stamp}})
    return track


def test_between_updates_it_moves_straight() -> None:
    track = track_of([(10.0, 0.0), (10.2, 2.0), (10.6, 0.0)])
    assert track.at(10.1) == pytest.approx(1.0)
    assert track.at(10.5) == pytest.approx(0.5)
    assert track.at(10.2) == 2.0
    assert track.until == 10.6


def test_outside_of_them_nothing_is_made_up() -> None:
    track = track_of([(10.0, 1.0), (11.0, 2.0)])
    assert math.isnan(track.at(9.999))
    assert math.isnan(track.at(11.001))
    assert math.isnan(track_of([]).at(10.0))
    assert track_of([]).until == -math.inf


def test_a_rest_ends_where_it_is_noted() -> None:
    now = time.time()
    track = track_of([(now, 1.0)])
    track.note_rest()
    rested = track.until
    assert now <= rested <= time.time()
    assert track.at(rested) == 1.0
    track.note_rest()
    # The next movement begins there, and not at the update before it.
    track._moved({"x": {"value": 3.0, "timestamp": track.until + 1.0}})
    assert track.at(rested) == 1.0


def test_it_rests_until_shortly_before_it_moves() -> None:
    hour = 3600.0
    now = time.time()
    track = track_of([(now - hour, 1.0), (now, 3.0), (now + 0.1, 5.0)])
    assert track.at(now - hour / 2) == 1.0
    assert track.at(now - module.QUIET) == 1.0
    assert track.at(now) == 3.0
    assert track.at(now + 0.05) == pytest.approx(4.0)


def test_a_clock_that_is_set_back() -> None:
    track = track_of([(10.0, 0.0), (20.0, 1.0), (12.0, 4.0), (13.0, 5.0)])
    assert track.at(12.5) == pytest.approx(4.5)
    assert track.at(11.0) == pytest.approx(2.0)
    assert track.until == 13.0


def test_two_positions_at_one_time() -> None:
    track = track_of([(10.0, 0.0), (11.0, 1.0), (11.0, 5.0), (12.0, 6.0)])
    assert track.at(11.0) == 5.0
    assert track.at(11.5) == pytest.approx(5.5)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 100)
    track = track_of([(float(n), float(n)) for n in range(1000)])
    assert len(track._times) <= 101
    assert track.at(990.5) == pytest.approx(990.5)


def test_an_axis_needs_a_name() -> None:
    with pytest.raises(DeviceError, match="needs a name"):
        AxisTrack("", soft_signal_rw(float))


async def test_it_follows_a_signal() -> None:
    signal: SignalR[float]
    signal, move = soft_signal_r_and_setter(float, 1.0, name="x", units="mm")
    before = time.time()
    track = AxisTrack("x", signal)
    await track.start()
    await track.start()
    assert track.following
    assert track.units == "mm"
    assert track.source == signal.source
    assert track.at(before) == 1.0 or math.isnan(track.at(before))
    middle = time.time()
    await asyncio.sleep(0.02)
    move(2.0)
    track.stop()
    track.stop()
    assert not track.following
    assert 1.0 <= track.at(middle) < 2.0
    move(7.0)
    assert track.at(track.until) == 2.0
    assert track.until < time.time() + 1


async def test_an_axis_at_rest_is_known_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUIET", 0.05)
    signal, _ = soft_signal_r_and_setter(float, 4.0, name="x")
    track = AxisTrack("x", signal)
    await track.start()
    await asyncio.sleep(0.1)
    moment = time.time()
    assert track.until >= moment - 0.01
    assert track.at(track.until) == 4.0
    track.stop()


def test_frames_wait_for_the_next_update() -> None:
    track = track_of([(10.0, 0.0), (10.4, 1.0)])
    pending = PendingPositions(track)
    for moment in (10.1, 10.3, 10.6, 10.85):
        pending.add(moment)
    assert pending.take() == pytest.approx([0.25, 0.75])
    assert (pending.settled, len(pending)) == (2, 2)
    assert pending.take() == []
    track._moved({"x": {"value": 2.0, "timestamp": 10.8}})
    assert pending.take() == pytest.approx([1.5])
    # 10.85 is after the last update, and not long after it.
    assert pending.take(all_of_them=True) == [2.0]
    assert pending.settled == 4


def test_frames_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    track = track_of([(10.0, 0.0), (10.4, 1.0)])
    pending = PendingPositions(track)
    pending.add(9.0)
    pending.add(5000.0)
    pending.add(10.2)
    (before,) = pending.take()
    assert math.isnan(before)
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    never, known = pending.take()
    assert math.isnan(never)
    assert known == pytest.approx(0.5)
