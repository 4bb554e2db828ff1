"""Simulated IOCs in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from bluesky_beamtime.errors import DeviceTimeoutError


class IocProcess:
    """An IOC that prints one line of JSON when it is ready; a context manager.

    It ends with this process, however this one ends.

    Parameters
    ----------
    prefix
        Prefix of its PVs.
    module
        What ``python -m`` runs.
    arguments
        Its arguments.
    timeout
        Seconds within which it must be ready.

    Attributes
    ----------
    ready : dict
        What it printed.
    conf : dict
        Configuration with which a PVAccess client finds it.
    pid : int
        Its process id.

    Raises
    ------
    DeviceTimeoutError
        It does not start.
    """

    def __init__(
        self,
        prefix: str,
        module: str,
        arguments: Sequence[str],
        *,
        timeout: float = 60.0,
    ) -> None:
        command = [sys.executable, "-m", module, "--until-eof", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.ready = self._first_line(timeout)
        except BaseException:
            self.stop()
            raise
        self.prefix = prefix
        self.pid = self._process.pid
        self.conf: dict[str, str] = self.ready["conf"]

    def _first_line(self, timeout: float) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        lines: list[str] = []
        # A pipe cannot be read with a timeout; the thread ends with the process.
        reader = threading.Thread(target=lambda: lines.append(stdout.readline()))
        reader.start()
        reader.join(timeout)
        if not lines or not lines[0]:
            self._process.kill()
            reader.join()
            raise DeviceTimeoutError(
                f"the simulated IOC was not ready within {timeout:g} s; try "
                f"{' '.join(map(str, self._process.args))!r} in a terminal"  # type: ignore[arg-type]  # a list, see above
            )
        return json.loads(lines[0])

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the process and wait for it; may be called again."""
        process = self._process
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def kill(self) -> None:
        """Kill the process, as a crash of the IOC would."""
        self._process.kill()
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self._process.poll() is None else "stopped"
        return f"<{type(self).__name__} {self.prefix!r} {state}>"


class SimIoc(IocProcess):
    """Starts the simulated areaDetector IOC and stops it again; a context manager.

    The process serves PVAccess on the loopback interface, and ends with this one,
    however this one ends.

    Parameters
    ----------
    prefix
        Prefix of the PVs.
    shape
        ``(height, width)`` of the frames.
    seed
        Seed of the noise.
    exposure
        Exposure to begin with, in seconds.
    options
        More arguments of ``python -m bluesky_beamtime.devices.ioc``.
    timeout
        Seconds within which it must be ready.

    Attributes
    ----------
    image : str
        PV of the frames.
    detector : str
        Prefix of the camera's PVs, such as ``SIM:cam1:``.
    conf : dict
        Configuration with which a PVAccess client finds it, for
        :class:`~bluesky_beamtime.devices.PvaCamera` or the environment.
    pid : int
        Its process id.

    Raises
    ------
    DeviceTimeoutError
        It does not start.
    """

    def __init__(
        self,
        prefix: str = "SIM:",
        *,
        shape: tuple[int, int] = (512, 512),
        seed: int = 0,
        exposure: float = 0.1,
        options: tuple[str, ...] = (),
        timeout: float = 60.0,
    ) -> None:
        arguments = ["--prefix", prefix, "--seed", str(seed)]
        arguments += ["--exposure", str(exposure), "--shape", *map(str, shape)]
        module = "bluesky_beamtime.devices.ioc"
        super().__init__(prefix, module, [*arguments, *options], timeout=timeout)
        self.image: str = self.ready["image"]
        self.detector: str = self.ready["detector"]
