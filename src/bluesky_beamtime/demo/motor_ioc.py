"""A soft IOC with motors, as the motor record shows them, over PVAccess.

Run it with ``python -m bluesky_beamtime.demo.motor_ioc --prefix BL: x y``. It listens
on the loopback interface only, prints one line of JSON when it is ready, and stops on
SIGTERM or Ctrl-C. ``ophyd_async.epics.motor.Motor("pva://BL:x")`` is a client.

EPICS base has no motor record. Each motor is a record ``BL:x`` that hands its value on
to the one that moves, and groups of QSRV that are named like the fields of a motor
record: a client cannot tell the difference.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from bluesky_beamtime.errors import MissingExtraError

LOOPBACK = "127.0.0.1"
LIMIT = 20.0
"""Soft limits of each motor, in mm, to both sides."""
SPEED = 20.0
"""In mm per second, to begin with."""
MAX_SPEED = 100.0
_PERIOD = 0.02

Told = Callable[[str, float], None]


class SoftMotor:
    """One motor: its records, and how it moves.

    Parameters
    ----------
    builder
        ``softioc.builder``, whose device name is the prefix of the beamline.
    prefix, name
        ``BL:`` and ``x``.
    told
        Called in a thread with name and position, before the motor says it is there.
    """

    def __init__(self, builder: Any, prefix: str, name: str, told: Told) -> None:
        self._builder, self._pv, self._name = builder, f"{prefix}{name}", name
        self._told = told
        self._stopping = False
        self._readback = self._number("RBV", 0.0)
        self._velocity = self._number("VELO", SPEED, "mm/s", write=True)
        self._done = self._integer("DMOV", 1)
        self._goal: Any = builder.aOut(
            f"{name}:VAL",
            initial_value=0.0,
            always_update=True,
            # A put with completion waits until the motor has arrived.
            blocking=True,
            on_update=self._move,
        )
        goal = f"{prefix}{name}:VAL PP"
        builder.records.dfanout(name, OUTA=goal, EGU="mm", PREC=4, PINI="YES")
        for field in ("MRES", "ERES", "RDBD"):
            self._number(field, 0.001)
        self._number("UREV", 1.0)
        self._number("VMAX", MAX_SPEED, "mm/s")
        self._number("ACCL", 0.05, "s", write=True)
        for field, value in (
            *(("LLM", -LIMIT), ("HLM", LIMIT), ("DLLM", -LIMIT), ("DHLM", LIMIT)),
            ("OFF", 0.0),
        ):
            self._number(field, value, write=True)
        for field, value in (("SREV", 1000), ("HLS", 0), ("LLS", 0)):
            self._integer(field, value)
        self._text("OUT", "a simulation", write=False)
        self._text("FOFF", "Variable", write=True)
        self._text("SET", "Use", write=True)
        stop = builder.longOut(
            f"{name}:STOP", initial_value=0, always_update=True, on_update=self._stop
        )
        self._group(stop, "STOP", write=True)

    # ----------------------------------------------------------------- records

    def _number(
        self, field: str, value: float, units: str = "mm", *, write: bool = False
    ) -> Any:
        make = self._builder.aOut if write else self._builder.aIn
        record = make(f"{self._name}:{field}", initial_value=value, EGU=units, PREC=4)
        display = {
            f"display.{what}": {"+type": "plain", "+channel": channel}
            for what, channel in (("units", "EGU"), ("precision", "PREC"))
        }
        self._group(record, field, write=write, **display)
        return record

    def _integer(self, field: str, value: int) -> Any:
        record = self._builder.longIn(f"{self._name}:{field}", initial_value=value)
        self._group(record, field)
        return record

    def _text(self, field: str, value: str, *, write: bool) -> None:
        make = self._builder.stringOut if write else self._builder.stringIn
        record = make(f"{self._name}:{field}", initial_value=value)
        self._group(record, field, write=write)

    def _group(
        self, record: Any, field: str, *, write: bool = False, **more: Any
    ) -> None:
        """Show a record as a field of the motor record."""
        # Without a place in the order a write to any part is warned of.
        order = {"+putorder": 0} if write else {}
        channel = {"+channel": "VAL", **order}
        group = {
            "+id": "epics:nt/NTScalar:1.0",
            "+atomic": False,
            "": {"+type": "meta", **channel},
            "value": {"+type": "plain", "+trigger": "*", **channel},
            **more,
        }
        record.add_info("Q:group", json.dumps({f"{self._pv}.{field}": group}))

    # ----------------------------------------------------------------- movement

    async def _move(self, goal: float) -> None:
        """Go there at constant speed; the record is busy until this returns."""
        self._stopping = False
        first: float = self._readback.get()
        speed: float = self._velocity.get()
        way = goal - first
        seconds = abs(way) / speed if speed > 0 else 0.0
        self._done.set(0)
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds and not self._stopping:
            self._readback.set(first + way * passed / seconds)
            await asyncio.sleep(_PERIOD)
        position = goal if not self._stopping else self._readback.get()
        await asyncio.to_thread(self._told, self._name, position)
        self._readback.set(position)
        self._done.set(1)

    def _stop(self, value: int) -> None:
        self._stopping = bool(value)


class Distance:
    """Tells simulated cameras how far the sample stands from the beam.

    Parameters
    ----------
    servers
        Where they are: ``host:port``, separated by spaces.
    pvs
        What is told.
    """

    def __init__(self, servers: str, pvs: Sequence[str]) -> None:
        self._pvs = list(pvs)
        self._positions: dict[str, float] = {}
        self._lock = threading.Lock()
        self._context: Any = None
        if pvs:
            from p4p.client.thread import Context

            conf = {"EPICS_PVA_NAME_SERVERS": servers, "EPICS_PVA_ADDR_LIST": ""}
            conf["EPICS_PVA_AUTO_ADDR_LIST"] = "NO"
            self._context = Context("pva", conf=conf, useenv=False)

    def __call__(self, name: str, position: float) -> None:
        """Take the position of a motor."""
        with self._lock:
            self._positions[name] = position
            if self._context is not None:
                distance = math.hypot(*self._positions.values())
                # A camera that is away sees the sample where it was.
                self._context.put(self._pvs, [distance] * len(self._pvs), throw=False)


def serve(prefix: str, names: Sequence[str], told: Told) -> dict[str, str]:
    """Serve motors on the loopback interface, from threads, until the process ends.

    Parameters
    ----------
    prefix
        Prefix of the PVs.
    names
        Names of the motors.
    told
        Called with name and position of a motor that has arrived.

    Returns
    -------
    dict
        Configuration with which a PVAccess client finds them.

    Raises
    ------
    MissingExtraError
        softioc is not installed.
    """
    pva, ca = _free_port(), _free_port()
    os.environ.update(
        EPICS_PVAS_INTF_ADDR_LIST=LOOPBACK,
        EPICS_PVAS_BEACON_ADDR_LIST=LOOPBACK,
        EPICS_PVAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_PVAS_SERVER_PORT=str(pva),
        EPICS_PVAS_BROADCAST_PORT=str(_free_port()),
        EPICS_CAS_INTF_ADDR_LIST=LOOPBACK,
        EPICS_CAS_BEACON_ADDR_LIST=LOOPBACK,
        EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_CA_SERVER_PORT=str(ca),
    )
    try:
        softioc: Any = import_module("softioc.softioc")
        builder: Any = import_module("softioc.builder")
        dispatchers: Any = import_module("softioc.asyncio_dispatcher")
    except ImportError as error:
        raise MissingExtraError("the simulated motors", "softioc", "ioc") from error
    dispatcher = dispatchers.AsyncioDispatcher()
    builder.SetDeviceName(prefix.removesuffix(":"))
    for name in names:
        SoftMotor(builder, prefix, name, told)
    builder.LoadDatabase()
    softioc.iocInit(dispatcher)
    return {
        "EPICS_PVA_NAME_SERVERS": f"{LOOPBACK}:{pva}",
        "EPICS_PVA_ADDR_LIST": "",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the IOC from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bluesky_beamtime.demo.motor_ioc",
        description="Simulated motors over PVAccess on loopback.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="names of the motors")
    parser.add_argument("--prefix", default="BL:", help="prefix of the PVs")
    parser.add_argument(
        "--servers", default="", help="host:port of cameras that see the sample"
    )
    parser.add_argument(
        "--tell", action="append", default=[], help="a PV that takes its distance"
    )
    parser.add_argument(
        "--until-eof",
        action="store_true",
        help="stop when standard input ends, so as not to outlive a parent process",
    )
    options = parser.parse_args(argv)
    done = threading.Event()

    def stop(*_: object) -> None:
        done.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # EPICS tells about itself; standard output is for one line of ours.
    ours, errors = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    distance = Distance(options.servers, options.tell)
    try:
        conf = serve(options.prefix, options.names, distance)
    finally:
        os.dup2(errors, 2)
    if options.until_eof:
        threading.Thread(target=_wait_for_eof, args=(done,), daemon=True).start()
    line = {"ready": options.prefix, "pid": os.getpid(), "conf": conf}
    os.write(ours, f"{json.dumps(line)}\n".encode())
    done.wait()
    # Its threads end with the process and not before; there is nothing to be kept.
    sys.stderr.flush()
    os._exit(0)


def _wait_for_eof(done: threading.Event) -> None:
    # Below Python's own buffers, whose lock this thread would hold at exit.
    while os.read(0, 4096):
        pass
    done.set()


if __name__ == "__main__":
    main()
