"""A simulated areaDetector IOC: powder rings as NTNDArrays over PVAccess.

Run it with ``python -m bluesky_beamtime.devices.ioc --prefix SIM:``. It listens on the
loopback interface only, prints one line of JSON when it is ready, and stops on SIGTERM
or Ctrl-C.

==========================  ============================================================
PV                          meaning
==========================  ============================================================
``Pva1:Image``              the frames, an NTNDArray
``cam1:Acquire``            1 starts; 0 stops, and is done when the camera rests
``cam1:AcquireTime``        exposure in seconds, used from the next frame on
``cam1:AcquirePeriod``      from one exposure to the next, in seconds, if longer
``cam1:ImageMode``          Single, Multiple or Continuous
``cam1:NumImages``          frames of Multiple
``cam1:TriggerMode``        Internal, or External: a frame for each pulse
``cam1:SimTrigger``         a pulse; its exposure begins at once
``cam1:SizeX``, ``SizeY``   region that is read out, from the corner
``cam1:ArrayCounter_RBV``   frames taken, which is the ``uniqueId`` of the last
``cam1:SizeX_RBV`` …        width; ``SizeY_RBV`` height
``cam1:SimPosition``        where the sample stands; at 0 it is in the beam
``cam1:SimDropNext``        so many of the next frames are taken and not published
``cam1:SimDropEvery``       every n-th frame is taken and not published, 0 for none
``cam1:SimDropped_RBV``     frames that were not published
==========================  ============================================================

The frame with ``uniqueId`` n is ``PowderRings(shape, seed).frame(n, exposure,
(position,))``, or a corner of it. Its ``dataTimeStamp`` is the beginning of the
exposure, its ``timeStamp`` the moment of publication.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.devices.pace import Pace
from bluesky_beamtime.devices.rings import PowderRings
from bluesky_beamtime.errors import MissingExtraError

LOOPBACK = "127.0.0.1"
_MODES = ["Single", "Multiple", "Continuous"]
_TRIGGERS = ["Internal", "External"]

# Where an attribute has its value from, as areaDetector numbers it.
_DRIVER, _CONSTANT, _PARAMETER = 0, 1, 2


class SimDetector:
    """An areaDetector that sees powder rings, as a set of PVs.

    Parameters
    ----------
    prefix
        Prefix of the PVs.
    rings
        What it sees.
    exposure
        Exposure to begin with, in seconds.
    publish_first
        Publish an empty frame 0 at once, as an IOC that has acquired before; without
        it the image has no shape until the first frame.
    attributes
        Send attributes with the frames: ``Model``, which stays the same, and
        ``SamplePosition`` and ``Number``, which do not.
    """

    def __init__(
        self,
        prefix: str,
        rings: PowderRings,
        exposure: float = 0.1,
        *,
        publish_first: bool = True,
        attributes: bool = False,
    ) -> None:
        nt, shared_pv = _p4p()
        self._nt = nt
        self._shared_pv = shared_pv
        self._rings = rings
        self._ndarray = nt.NTNDArray()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._with_attributes = attributes
        self._pulses = threading.Semaphore(0)
        self._counter = 0
        self._dropped = 0
        self._drop_next = 0
        self.pvs: dict[str, Any] = {}
        self._cam = f"{prefix}cam1:"
        blank = np.zeros(rings.shape, np.uint16) if publish_first else None
        self.image = shared_pv(initial=self._value(blank, 0, time.time()))
        self.pvs[f"{prefix}Pva1:Image"] = self.image
        self._enum("Acquire", ["Done", "Acquire"], 0, self._acquire)
        self._enum("ImageMode", _MODES, 2)
        self._enum("TriggerMode", _TRIGGERS, 0)
        self._scalar("SimTrigger", "i", 0, lambda _: self._pulses.release())
        self._scalar("AcquireTime", "d", exposure, _positive)
        self._scalar("AcquirePeriod", "d", 0.0)
        self._scalar("SizeX", "i", rings.shape[1], _positive)
        self._scalar("SizeY", "i", rings.shape[0], _positive)
        self._scalar("NumImages", "i", 1, _positive)
        self._scalar("SimPosition", "d", 0.0)
        self._scalar("SimDropEvery", "i", 0)
        self._scalar("SimDropNext", "i", 0, self._set_drop_next)
        for name, value in (
            ("ArrayCounter_RBV", 0),
            ("SimDropped_RBV", 0),
            ("SizeX_RBV", rings.shape[1]),
            ("SizeY_RBV", rings.shape[0]),
        ):
            self._show(name, value)

    # ----------------------------------------------------------------------- PVs

    def _scalar(
        self,
        name: str,
        code: str,
        initial: Any,
        check: Callable[[Any], None] | None = None,
    ) -> None:
        pv = self._shared_pv(nt=self._nt.NTScalar(code), initial=initial)
        self._puttable(pv, check)
        self.pvs[self._cam + name] = pv

    def _enum(
        self,
        name: str,
        choices: list[str],
        initial: int,
        check: Callable[[Any], None] | None = None,
    ) -> None:
        value = {"index": initial, "choices": choices}
        pv = self._shared_pv(nt=self._nt.NTEnum(), initial=value)
        self._puttable(pv, check)
        self.pvs[self._cam + name] = pv

    @staticmethod
    def _puttable(pv: Any, check: Callable[[Any], None] | None) -> None:
        def put(pv: Any, operation: Any) -> None:
            try:
                value = operation.value()
                if check is not None:
                    check(value)
                pv.post(value)
            except Exception as error:
                operation.done(error=str(error))
            else:
                operation.done()

        pv.put(put)

    def _show(self, name: str, value: int) -> None:
        """Make or update a read-only PV."""
        pv = self.pvs.get(self._cam + name)
        if pv is None:
            self.pvs[self._cam + name] = self._shared_pv(
                nt=self._nt.NTScalar("i"), initial=value
            )
        else:
            pv.post(value)

    def _read(self, name: str) -> Any:
        return self.pvs[self._cam + name].current()

    def _set_drop_next(self, value: Any) -> None:
        self._drop_next = int(value)

    # --------------------------------------------------------------- acquisition

    def _acquire(self, value: Any) -> None:
        """Start or stop; returns when that is done."""
        if int(value):
            if self._thread is None or not self._thread.is_alive():
                self.stop()
                self._stopping.clear()
                self._thread = threading.Thread(target=self._run, name="camera")
                self._thread.start()
        else:
            self.stop()

    def stop(self) -> None:
        """Stop acquiring and wait until the camera rests."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        mode = _MODES[int(self._read("ImageMode"))]
        number = {"Single": 1, "Multiple": int(self._read("NumImages"))}.get(mode, 0)
        triggered = _TRIGGERS[int(self._read("TriggerMode"))] == "External"
        pace = Pace(float(self._read("AcquireTime")))
        taken = 0
        while not (number and taken == number):
            exposure = float(self._read("AcquireTime"))
            pace.exposure = max(exposure, float(self._read("AcquirePeriod")))
            if triggered:
                pace = Pace(exposure)
                if not self._pulsed():
                    return
            began = pace.begin()
            position = float(self._read("SimPosition"))
            frame = self._rings.frame(self._counter + 1, exposure, (position,))
            if self._stopping.wait(pace.remaining()):
                return
            taken += 1
            self._counter += 1
            height, width = int(self._read("SizeY")), int(self._read("SizeX"))
            self._publish(np.ascontiguousarray(frame[:height, :width]), began, position)
        # The record goes back by itself, as a busy record does.
        self.pvs[f"{self._cam}Acquire"].post(0)

    def _pulsed(self) -> bool:
        """Wait for a pulse; false if the camera is stopped first."""
        while not self._stopping.is_set():
            if self._pulses.acquire(timeout=0.02):
                return True
        return False

    def _publish(
        self, frame: NDArray[np.uint16], began: float, position: float
    ) -> None:
        every = int(self._read("SimDropEvery"))
        if self._drop_next > 0:
            self._drop_next -= 1
            drop = True
        else:
            drop = every > 0 and self._counter % every == 0
        if drop:
            self._dropped += 1
            self._show("SimDropped_RBV", self._dropped)
        else:
            self.image.post(self._value(frame, self._counter, began, position))
        self._show("ArrayCounter_RBV", self._counter)

    def _value(
        self,
        frame: NDArray[Any] | None,
        number: int,
        began: float,
        position: float = 0.0,
    ) -> Any:
        if frame is None:
            return self._nt.NTNDArray.buildType()()
        value = self._ndarray.wrap(frame, timestamp=time.time())
        value["uniqueId"] = number
        seconds = int(began)
        value["dataTimeStamp"] = {
            "secondsPastEpoch": seconds,
            "nanoseconds": int((began - seconds) * 1e9),
        }
        if self._with_attributes:
            found = (
                ("ColorMode", 0, _DRIVER),
                ("Model", "powder rings", _CONSTANT),
                ("SamplePosition", position, _PARAMETER),
                ("Number", number, _PARAMETER),
            )
            value["attribute"] = [
                {"name": name, "value": one, "sourceType": kind, "source": name.upper()}
                for name, one, kind in found
            ]
        return value


def _positive(value: Any) -> None:
    if not value > 0:
        raise ValueError(f"{value} is not positive")


def _p4p() -> tuple[Any, Any]:
    try:
        from p4p import nt
        from p4p.server.thread import SharedPV
    except ImportError as error:
        raise MissingExtraError("the simulated IOC", "p4p", "epics") from error
    return nt, SharedPV


def serve(
    detector: SimDetector, ready: Callable[[dict[str, Any]], None], port: int = 0
) -> None:
    """Serve a detector's PVs on the loopback interface until SIGTERM or Ctrl-C.

    Parameters
    ----------
    detector
        The detector.
    ready
        Called when clients can connect, with the configuration that they need.
    port
        TCP port to listen on; 0 lets the system choose. One that is restarted has to be
        where it was.
    """
    from p4p.server import Server

    done = threading.Event()

    def stop(*_: object) -> None:
        done.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    conf = {
        "EPICS_PVAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        # Ports that the system chooses: several may run beside a real IOC.
        "EPICS_PVAS_SERVER_PORT": str(port),
        "EPICS_PVAS_BROADCAST_PORT": "0",
    }
    with Server(providers=[detector.pvs], conf=conf, useenv=False) as server:
        used: str = server.conf()["EPICS_PVAS_SERVER_PORT"]  # type: ignore[reportUnknownMemberType]  # p4p has no types
        ready(
            {
                "EPICS_PVA_NAME_SERVERS": f"{LOOPBACK}:{used}",
                "EPICS_PVA_ADDR_LIST": "",
                "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            }
        )
        try:
            done.wait()
        finally:
            detector.stop()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the IOC from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bluesky_beamtime.devices.ioc",
        description="A simulated areaDetector: powder rings over PVAccess on loopback.",
    )
    parser.add_argument("--prefix", default="SIM:", help="prefix of the PVs")
    parser.add_argument(
        "--shape", nargs=2, type=int, default=(512, 512), metavar=("H", "W")
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--exposure", type=float, default=0.1, help="in seconds")
    parser.add_argument(
        "--no-first-frame",
        action="store_true",
        help="publish nothing before the first acquisition",
    )
    parser.add_argument(
        "--attributes", action="store_true", help="send attributes with the frames"
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port, 0 for any")
    parser.add_argument(
        "--until-eof",
        action="store_true",
        help="stop when standard input ends, so as not to outlive a parent process",
    )
    options = parser.parse_args(argv)
    height, width = options.shape
    detector = SimDetector(
        options.prefix,
        PowderRings((height, width), options.seed),
        options.exposure,
        publish_first=not options.no_first_frame,
        attributes=options.attributes,
    )
    if options.until_eof:
        threading.Thread(target=_wait_for_eof, daemon=True).start()

    def ready(conf: dict[str, Any]) -> None:
        line = {
            "ready": options.prefix,
            "image": f"{options.prefix}Pva1:Image",
            "detector": f"{options.prefix}cam1:",
            "pid": os.getpid(),
            "conf": conf,
        }
        print(json.dumps(line), flush=True)

    serve(detector, ready, options.port)


def _wait_for_eof() -> None:
    # Below Python's own buffers, whose lock this thread would hold at exit.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
