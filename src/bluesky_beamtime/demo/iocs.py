"""The IOCs of a simulated beamline, in processes of their own, and how to find them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from bluesky_beamtime.devices import SimIoc
from bluesky_beamtime.devices.ioc_process import IocProcess
from bluesky_beamtime.errors import DeviceError, MissingExtraError

SERVERS = "EPICS_PVA_NAME_SERVERS"
IOC_FILE = "ioc.json"
"""File in the folder of a profile that says where its IOCs are."""


class MotorIoc(IocProcess):
    """Starts motors in a soft IOC, and stops them again; a context manager.

    Parameters
    ----------
    names
        Names of the motors: ``BL:x`` for ``x``.
    prefix
        Prefix of the PVs.
    cameras
        Simulated IOCs that shall see how far the sample stands from the beam.

    Raises
    ------
    MissingExtraError
        softioc is not installed.
    DeviceTimeoutError
        It does not start.
    """

    def __init__(
        self,
        names: Sequence[str] = ("x", "y"),
        prefix: str = "BL:",
        *,
        cameras: Sequence[SimIoc] = (),
    ) -> None:
        if find_spec("softioc") is None:
            raise MissingExtraError("a soft IOC with motors", "softioc", "ioc")
        arguments = [*names, "--prefix", prefix]
        if cameras:
            servers = " ".join(camera.conf[SERVERS] for camera in cameras)
            arguments += ["--servers", servers]
        for camera in cameras:
            arguments += ["--tell", f"{camera.detector}SimPosition"]
        super().__init__(prefix, "bluesky_beamtime.demo.motor_ioc", arguments)


@contextmanager
def beamline_iocs(
    prefix: str = "BL:", shape: tuple[int, int] = (512, 512)
) -> Generator[dict[str, str]]:
    """Run a camera and two motors, ``x`` and ``y``; lends how clients find them.

    Parameters
    ----------
    prefix
        Prefix of the PVs.
    shape
        ``(height, width)`` of the camera's frames.
    """
    with (
        SimIoc(prefix, shape=shape) as camera,
        MotorIoc(prefix=prefix, cameras=[camera]) as motors,
    ):
        servers = f"{motors.conf[SERVERS]} {camera.conf[SERVERS]}"
        yield {**motors.conf, SERVERS: servers}


@contextmanager
def announced_in(folder: Path, conf: dict[str, str]) -> Generator[Path]:
    """Tell clients of a folder where the IOCs are, for as long as they run.

    Raises
    ------
    DeviceError
        Others run for this folder.
    """
    path = folder / IOC_FILE
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            # Held while this process lives, however it ends.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeviceError(
                f"IOCs run for {str(folder)!r} already; they end with Ctrl-C in their "
                "terminal"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, json.dumps(conf).encode())
        yield path
        with suppress(OSError):
            path.unlink()
    finally:
        os.close(fd)


def find_iocs(folder: Path) -> dict[str, str] | None:
    """Return how clients find the IOCs that run for a folder, None if none run."""
    try:
        with open(folder / IOC_FILE, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return json.load(file)
    except (OSError, ValueError):
        pass
    return None
