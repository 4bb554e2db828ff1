"""Sinks that are slow, fail or hang behind a RunEngine: the plan does not notice.

What is promised: no document waits for the sink but the stop of a run, and that no
longer than ``end_timeout``; whatever a sink does, the plan goes on; what it did not
take is in ``failed``, and :meth:`SinkSubscriber.close` raises.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynSignal

from bluesky_beamtime.errors import SinkError, SinkWriteError
from bluesky_beamtime.sinks import (
    CsvSink,
    DocumentRecords,
    InMemorySink,
    SinkSubscriber,
    SqliteSink,
)

LONG = 100.0


@pytest.fixture
def count_up() -> Any:
    # It is asked once when it is made.
    numbers = itertools.count(-1)
    return SynSignal(name="det", func=lambda: next(numbers))


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Give an event that lets a held sink go on; at the end it is set anyway."""
    event = threading.Event()
    yield event
    event.set()


class Held(InMemorySink):
    """A sink that waits in one of its calls, as for a server that does not answer."""

    def __init__(self, gate: threading.Event, call: str) -> None:
        super().__init__()
        self._gate, self._call = gate, call
        self.reached = threading.Event()

    async def _hold(self, call: str) -> None:
        if call == self._call:
            self.reached.set()
            assert await asyncio.to_thread(self._gate.wait, LONG)

    async def open(self) -> None:
        await self._hold("open")
        await super().open()

    async def write_many(self, items: Any) -> None:
        await self._hold("write_many")
        await super().write_many(items)

    async def close(self) -> None:
        await self._hold("close")
        await super().close()


@pytest.mark.parametrize("call", ["open", "write_many"])
def test_D_80_a_sink_that_hangs_holds_up_no_document(
    RE: Any, count_up: Any, gate: threading.Event, call: str
) -> None:
    """D-80: all runs end while it hangs; afterwards it has every reading."""
    sink = Held(gate, call)
    feeding = SinkSubscriber(sink, end_timeout=0.01)
    RE.subscribe(feeding)
    for _ in range(2):
        RE(bp.count([count_up], 3))
    assert sink.reached.wait(LONG)
    assert sink.readings == []
    with pytest.raises(SinkWriteError, match=r"not through after 0.01 s.*close\(\)"):
        feeding.close(timeout=0.01)
    gate.set()
    feeding.close()
    assert [r.values["det"] for r in sink.readings] == [0, 1, 2, 3, 4, 5]


def test_a_sink_that_hangs_for_hours_does_not_fill_the_memory(
    RE: Any,
    count_up: Any,
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What finds too many before it is counted, said once, and no run is torn."""
    sink = Held(gate, "write_many")
    feeding = SinkSubscriber(sink, end_timeout=0.01, max_kept=3)
    RE.subscribe(feeding)
    RE(bp.count([count_up], 10))
    assert feeding.not_taken == 7
    told = [r for r in caplog.records if r.message == "sinks.subscriber.failed"]
    assert len(told) == 1
    assert "3 documents wait" in told[0].reason
    gate.set()
    assert feeding.wait(LONG)
    RE(bp.count([count_up], 2))
    assert feeding.wait(LONG)
    with pytest.raises(SinkWriteError, match="hangs") as caught:
        feeding.close()
    assert "7 more were not kept" in caught.value.__notes__[0]
    assert [r.values["det"] for r in sink.readings] == [0, 1, 2, 10, 11]
    assert feeding.not_taken == 0


def test_of_a_sink_that_fails_for_hours_the_first_records_are_kept(
    RE: Any, count_up: Any
) -> None:
    class Away(InMemorySink):
        async def write_many(self, items: Any) -> None:
            raise OSError("no route to the server")

    feeding = SinkSubscriber(Away(), end_timeout=LONG, max_kept=3)
    RE.subscribe(feeding)
    for _ in range(4):
        RE(bp.count([count_up], 2))
    assert feeding.not_taken == 8
    with pytest.raises(SinkError, match="no route") as caught:
        feeding.close()
    assert [r.values["det"] for r in caught.value.records] == [0, 1, 2]
    assert "5 more were not kept" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="max_kept=0"):
        SinkSubscriber(InMemorySink(), max_kept=0)


def test_D_03_a_sink_that_hangs_at_close_can_be_left(
    RE: Any, count_up: Any, gate: threading.Event
) -> None:
    """D-03, D-66: close gives up in time, and a run after it is not lost."""
    sink = Held(gate, "close")
    feeding = SinkSubscriber(sink, end_timeout=0.01)
    RE.subscribe(feeding)
    RE(bp.count([count_up], 2))
    for _ in range(2):
        with pytest.raises(SinkWriteError, match="not through"):
            feeding.close(timeout=0.01)
    RE(bp.count([count_up], 2))
    gate.set()
    feeding.close()
    assert [r.values["det"] for r in sink.readings] == [0, 1, 2, 3]
    assert not sink.is_open


def test_D_18_whatever_a_sink_raises_the_plan_goes_on(
    RE: Any, count_up: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """D-18: also what is no Exception, as some clients let out when they give up."""

    class Wild(InMemorySink):
        raises: BaseException | None = None

        async def write_many(self, items: Any) -> None:
            if self.raises is not None:
                raise self.raises
            await super().write_many(items)

    sink = Wild()
    feeding = SinkSubscriber(sink, end_timeout=LONG)
    RE.subscribe(feeding)
    kinds = [asyncio.CancelledError, KeyboardInterrupt, SystemExit, OSError]
    for kind in kinds:
        sink.raises = kind("gone")
        RE(bp.count([count_up], 1))
        assert RE.state == "idle"
    sink.raises = None
    RE(bp.count([count_up], 1))
    assert [r.values["det"] for r in sink.readings] == [4]
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 4
    with pytest.raises(SinkWriteError, match="CancelledError") as caught:
        feeding.close()
    assert [r.values["det"] for r in caught.value.records] == [0, 1, 2, 3]


def test_D_83_of_a_failure_that_goes_on_there_is_one_traceback(
    RE: Any, count_up: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """D-83: a file in the way is no flood, and every line says what was not taken."""
    path = tmp_path / "x.csv"
    path.write_text("somebody's")
    feeding = SinkSubscriber(CsvSink(path), end_timeout=LONG)
    RE.subscribe(feeding)
    for _ in range(3):
        RE(bp.count([count_up], 1))
    told = [r for r in caplog.records if r.message == "sinks.subscriber.failed"]
    assert [r.exc_info is not None for r in told] == [True, False, False]
    assert all("x.csv" in r.__dict__["reason"] for r in told)
    assert sum(r.__dict__["records_not_taken"] for r in told) == 3
    with pytest.raises(SinkError) as caught:
        feeding.close()
    assert len(caught.value.records) == 3
    assert path.read_text() == "somebody's"


def test_D_18_a_close_that_fails_is_raised_once(RE: Any, count_up: Any) -> None:
    """D-18, D-66: by close; and the next run finds a sink that can be opened again."""

    class Stuck(InMemorySink):
        closes = 0

        async def close(self) -> None:
            self.closes += 1
            await super().close()
            if self.closes == 1:
                raise OSError("the server went away")

    sink = Stuck()
    feeding = SinkSubscriber(sink, end_timeout=LONG)
    RE.subscribe(feeding)
    RE(bp.count([count_up], 1))
    with pytest.raises(SinkWriteError, match="the server went away"):
        feeding.close()
    feeding.close()
    RE(bp.count([count_up], 1))
    feeding.close()
    assert len(sink.readings) == 2


@pytest.mark.parametrize("end", ["abort", "stop", "halt"])
def test_D_02_a_run_that_is_ended_early_has_its_events_in_the_sink(
    RE: Any, count_up: Any, tmp_path: Path, end: str
) -> None:
    """D-02, D-16: paused, then aborted, stopped or halted; and then another run."""
    feeding = SinkSubscriber(CsvSink(tmp_path / "x.csv"), end_timeout=LONG)
    RE.subscribe(feeding)

    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([count_up])
        yield from bps.trigger_and_read([count_up])
        yield from bps.pause()

    with pytest.raises(RunEngineInterrupted):
        RE(plan())
    getattr(RE, end)()
    feeding.wait(LONG)
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 3
    RE(bp.count([count_up], 1))
    feeding.close()
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 4
    assert feeding._records.give_up() == []


def test_D_05_runs_inside_of_runs_keep_their_readings_apart(
    RE: Any, count_up: Any
) -> None:
    """D-05: two open runs, whose events come in turns."""
    sink = InMemorySink()
    feeding = SinkSubscriber(sink, end_timeout=LONG)
    RE.subscribe(feeding)

    @bpp.set_run_key_decorator("inner")
    @bpp.run_decorator(md={"plan_name": "inner"})
    def inner() -> Any:
        yield from bps.trigger_and_read([count_up])

    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator(md={"plan_name": "outer"})
    def outer() -> Any:
        yield from bps.trigger_and_read([count_up])
        yield from inner()
        yield from bps.trigger_and_read([count_up])

    uids = RE(outer())
    feeding.close()
    assert [(r.task, r.values["det"]) for r in sink.readings] == [
        ("outer", 0),
        ("inner", 1),
        ("outer", 2),
    ]
    assert {r.metadata["run_uid"] for r in sink.readings} == set(uids)


def test_D_80_two_subscribers_do_not_know_of_each_other(
    RE: Any, count_up: Any, gate: threading.Event, tmp_path: Path
) -> None:
    """D-80: one hangs, the other has its rows when the run ends."""
    slow, fast = Held(gate, "write_many"), SqliteSink(tmp_path / "x.db")
    feeding = [
        SinkSubscriber(slow, end_timeout=0.01),
        SinkSubscriber(fast, end_timeout=LONG),
    ]
    for each in feeding:
        RE.subscribe(each)
    RE(bp.count([count_up], 5))
    assert fast._rows_written == 5
    assert slow.readings == []
    gate.set()
    for each in feeding:
        each.close()
    assert len(slow.readings) == 5


def test_D_02_closed_during_a_run_says_so(
    RE: Any, count_up: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """D-02: later events of that run are not recorded, which is not silent."""
    sink = InMemorySink()
    feeding = SinkSubscriber(sink, end_timeout=LONG)
    RE.subscribe(feeding)

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([count_up])
        feeding.close()
        yield from bps.trigger_and_read([count_up])
        yield from bps.close_run()

    (uid,) = RE(plan())
    (record,) = [r for r in caplog.records if "closed_during_run" in r.message]
    assert record.__dict__["runs"] == [uid]
    assert len(sink.readings) == 1
    RE(bp.count([count_up], 1))
    feeding.close()
    assert len(sink.readings) == 2


def test_D_16_close_beside_a_run_never_reaches_the_plan(RE: Any, count_up: Any) -> None:
    """D-16: another thread closes again and again; no document meets a dead loop."""
    sink = InMemorySink()
    feeding = SinkSubscriber(sink, end_timeout=LONG)
    RE.subscribe(feeding)
    done = threading.Event()

    def close_often() -> None:
        while not done.is_set():
            feeding.close()

    closing = threading.Thread(target=close_often)
    closing.start()
    try:
        for _ in range(10):
            RE(bp.count([count_up], 5))
    finally:
        done.set()
        closing.join()
    assert RE.state == "idle"
    feeding.close()
    numbers = [r.values["det"] for r in sink.readings]
    assert numbers == sorted(set(numbers))


def test_D_05_a_device_may_use_its_array_again(RE: Any, gate: threading.Event) -> None:
    """D-05, D-06: what an event had when it was emitted is what the sink gets."""
    buffer = np.zeros(2)

    def read() -> Any:
        buffer[:] += 1
        return buffer

    sink = Held(gate, "open")
    feeding = SinkSubscriber(sink, end_timeout=0.01)
    RE.subscribe(feeding)
    RE(bp.count([SynSignal(name="wave", func=read)], 3))
    wanted = buffer[0]
    gate.set()
    feeding.close()
    waves = [r.values["wave"] for r in sink.readings]
    assert waves == [f"[{wanted - n}, {wanted - n}]" for n in (2, 1, 0)]


def test_D_05_keys_that_no_object_claims_are_readings_too() -> None:
    """D-05: object_keys may be there and not name all of them."""
    records = DocumentRecords()
    keys = {k: {"source": "s", "dtype": "number", "shape": []} for k in ("a", "b")}
    descriptor = {"uid": "d", "run_start": "r", "name": "primary", "data_keys": keys}
    descriptor["object_keys"] = {"dev": ["a"]}
    event = {
        "uid": "e",
        "descriptor": "d",
        "time": 1.0,
        "seq_num": 1,
        "data": {"a": np.longdouble(1), "b": 2},
        "timestamps": {"a": 1.0, "b": 1.0},
    }
    list(records("start", {"uid": "r", "time": 0.0}))
    list(records("descriptor", descriptor))
    found: list[Any] = list(records("event", event))
    assert [(r.device, dict(r.values)) for r in found] == [
        ("dev", {"a": '"1.0"'}),
        ("primary", {"b": 2}),
    ]


def test_D_02_an_engine_in_another_thread(count_up: Any) -> None:
    """D-02, D-48: subscribed here, run there, closed here."""
    from bluesky import RunEngine

    sink = InMemorySink()
    feeding = SinkSubscriber(sink, end_timeout=LONG)
    failures: list[BaseException] = []

    def work() -> None:
        engine = RunEngine(context_managers=[])
        try:
            engine.subscribe(feeding)
            engine(bp.count([count_up], 3))
        except BaseException as error:
            failures.append(error)
        finally:
            engine.loop.call_soon_threadsafe(engine.loop.stop)
            engine._th.join()
            engine.loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    feeding.close()
    assert failures == []
    assert len(sink.readings) == 3


def test_D_18_a_raise_is_the_plans_end_not_the_engines(
    RE: Any, count_up: Any, tmp_path: Path
) -> None:
    """D-18: on_error="raise" fails the run; the engine is idle and takes the next."""
    path = tmp_path / "x.csv"
    path.write_text("somebody else's\n")
    feeding = SinkSubscriber(CsvSink(path), on_error="raise", end_timeout=LONG)
    token = RE.subscribe(feeding)

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([count_up])
        feeding.wait(LONG)
        yield from bps.trigger_and_read([count_up])
        yield from bps.close_run()

    with pytest.raises(SinkWriteError, match="append=True"):
        RE(plan())
    assert RE.state == "idle"
    with pytest.raises(SinkError):
        feeding.close()
    RE.unsubscribe(token)
    RE(bp.count([count_up], 1))


def test_D_81_what_is_raised_is_an_error_of_a_sink_and_nothing_is_dropped(
    RE: Any, count_up: Any, gate: threading.Event
) -> None:
    """D-18, D-81: whatever the sink raised, and what comes after it is taken still."""

    class Away(InMemorySink):
        away = True

        async def write_many(self, items: Any) -> None:
            # Not before the document has left the subscriber: it would raise for it.
            assert await asyncio.to_thread(gate.wait, LONG)
            if self.away:
                raise RuntimeError("the network is away")
            await super().write_many(items)

    sink = Away()
    feeding = SinkSubscriber(sink, on_error="raise", end_timeout=LONG)
    token = RE.subscribe(feeding)

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([count_up])
        gate.set()
        feeding.wait(LONG)
        sink.away = False
        yield from bps.trigger_and_read([count_up])
        yield from bps.close_run()

    with pytest.raises(SinkWriteError, match="the network is away") as caught:
        RE(plan())
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert [r.values["det"] for r in caught.value.records] == [0]
    RE.unsubscribe(token)
    with pytest.raises(SinkWriteError) as caught:
        feeding.close()
    assert [r.values["det"] for r in caught.value.records] == [0]
    assert [r.values["det"] for r in sink.readings] == [1]
