"""The devices of an example beamline: a powder in an X-ray beam.

Copy this file and put your own devices in. ``beamtime profile new`` makes an IPython
profile of it; a script loads it like this::

    from bluesky import RunEngine
    from bluesky_beamtime import Beamtime
    from devices.beamline import make_devices

    RE = RunEngine()
    beamtime = Beamtime("2026-11-LaB6.db", sample="LaB6")
    beamtime.attach(RE)
    bl = make_devices(beamtime.frames)

The RunEngine comes first: devices live in its event loop.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from ophyd_async.core import NotConnectedError, PathProvider, init_devices

from bluesky_beamtime.demo import SimMotor
from bluesky_beamtime.demo.iocs import find_iocs
from bluesky_beamtime.devices import PvaCamera, SimCamera, SimCounter
from bluesky_beamtime.errors import DeviceTimeoutError
from bluesky_beamtime.storage import FrameStore


@dataclass(frozen=True)
class Beamline:
    """What there is at this beamline."""

    x: Any
    """Motor that moves the sample across the beam; at 0 it is in the beam."""
    y: Any
    """Motor that moves the sample up."""
    near: SimCamera
    """Simulated camera of 512 × 512 pixels."""
    far: SimCamera
    """Simulated camera of 256 × 256 pixels."""
    diode: SimCounter
    """Photons behind the sample."""
    pilatus: PvaCamera | None = None
    """Camera that is received over PVAccess from its IOC."""
    blob: Any = None
    """A detector of ophyd-async that writes HDF5 files itself."""

    @property
    def by_name(self) -> dict[str, Any]:
        """Each device that there is, by its name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: device for name, device in found.items() if device is not None}

    @property
    def cameras(self) -> list[SimCamera | PvaCamera]:
        """All cameras; they share a store."""
        found: list[SimCamera | PvaCamera] = [self.near, self.far]
        return found if self.pilatus is None else [*found, self.pilatus]


def make_devices(
    frames: FrameStore,
    path_provider: PathProvider | None = None,
    *,
    devices: Literal["simulated", "epics"] = "simulated",
    prefix: str = "BL:",
    folder: Path | None = None,
) -> Beamline:
    """Connect the devices.

    Parameters
    ----------
    frames
        Where the cameras put their frames: ``beamtime.frames``.
    path_provider
        Where detectors that write files put them: ``beamtime.path_provider``.
    devices
        ``"simulated"``: motors and cameras in this process. ``"epics"``: motors and a
        camera over PVAccess as well.
    prefix
        Prefix of the PVs.
    folder
        Folder in whose name ``beamtime profile ioc`` runs IOCs; where none do, the
        network is asked, as ``EPICS_PVA_ADDR_LIST`` and its like say.

    Raises
    ------
    DeviceTimeoutError
        The motors or the camera do not answer.
    ValueError
        There are no such devices.
    """
    if devices == "epics":
        x, y, pilatus = _over_pvaccess(frames, prefix, folder)
    elif devices == "simulated":
        with init_devices():
            x, y = SimMotor(), SimMotor()
        pilatus = None
    else:
        raise ValueError(f"devices are 'simulated' or 'epics', not {devices!r}")
    with init_devices():
        near = SimCamera(frames, seed=1, motor=(x, y))
        far = SimCamera(frames, seed=2, motor=(x, y), shape=(256, 256))
        diode = SimCounter((x, y), seed=3)
    blob = None
    if path_provider is not None and find_spec("h5py") is not None:
        from ophyd_async.sim import SimBlobDetector

        with init_devices():
            blob = SimBlobDetector(path_provider)
    return Beamline(x, y, near, far, diode, pilatus, blob)


def _over_pvaccess(
    frames: FrameStore, prefix: str, folder: Path | None
) -> tuple[Any, Any, PvaCamera]:
    from ophyd_async.epics.motor import Motor

    iocs = find_iocs(folder) if folder is not None else None
    # Before the first PV is looked for: then the client has read it.
    os.environ.update(iocs or {})
    try:
        with init_devices():
            x = Motor(f"pva://{prefix}x")
            y = Motor(f"pva://{prefix}y")
            pilatus = PvaCamera(
                frames, f"{prefix}Pva1:Image", detector=f"{prefix}cam1:"
            )
    except NotConnectedError as error:
        where = "the simulated IOCs" if iocs else "the network"
        profile = "DIR" if folder is None else quote(str(folder))
        raise DeviceTimeoutError(
            f"{where} did not answer for {prefix}x, {prefix}y and {prefix}cam1; start "
            f"IOCs with 'beamtime profile ioc {profile}' in another terminal, or "
            'write devices = "simulated" into beamline.toml'
        ) from error
    return x, y, pilatus
