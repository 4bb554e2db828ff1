"""Readings from an instrument, and from runs, into tables."""

# [stream]
import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from bluesky_beamtime.sinks import CsvSink, DaqReading, pipe


async def thermometer() -> AsyncIterator[DaqReading]:
    """Stands for an instrument that is asked again and again."""
    begin = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
    for number in range(130):
        yield DaqReading(
            device="cryostat",
            task="cooldown",
            values={"sample": 300.0 - number, "shield": 290.0},
            units={"sample": "K", "shield": "K"},
            t_mono_ns=number * 10**9,
            t_utc=begin + timedelta(seconds=number),
        )


async def record() -> None:
    async with CsvSink("cooldown.csv") as sink:
        print(await pipe(thermometer(), sink), "readings")


asyncio.run(record())
with open("cooldown.csv") as file:
    print(*file.read().splitlines()[:2], sep="\n")

# [live]
from bluesky import RunEngine
from bluesky.plans import scan
from ophyd_async.core import init_devices
from ophyd_async.sim import PatternGenerator, SimMotor, SimPointDetector

from bluesky_beamtime import Beamtime
from bluesky_beamtime.sinks import SinkSubscriber, SqliteSink

RE = RunEngine()
beamtime = Beamtime("cryo.db")
beamtime.attach(RE)
with init_devices():
    motor = SimMotor(instant=True)
    det = SimPointDetector(PatternGenerator(), num_channels=1)
with SinkSubscriber(SqliteSink("live.sqlite")) as live:
    RE.subscribe(live)
    RE(scan([det], motor, -1, 1, 5))

# [export]
from bluesky_beamtime.sinks import InMemorySink

run = beamtime[-1]


async def export() -> int:
    async with InMemorySink() as sink:
        await pipe(run.readings(), sink)
    for reading in sink.readings[:2]:
        print(reading.device, reading.task, dict(reading.values))
    return len(sink.readings)


print(asyncio.run(export()), "readings of", run.label)
beamtime.close()
