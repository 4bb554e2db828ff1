"""What an operator sees of a simulated areaDetector, and sets."""

from __future__ import annotations

from typing import Any

from bluesky_beamtime.devices import SimIoc

# Seconds; a client takes ten to find an IOC again that was restarted.
_PATIENCE = 60


class Panel:
    """A client of its own; the camera is left as it was found."""

    def __init__(self, ioc: SimIoc) -> None:
        from p4p.client.thread import Context

        self._context = Context("pva", conf=ioc.conf, useenv=False)
        self._prefix = ioc.detector

    def put(self, name: str, value: Any) -> None:
        self._context.put(self._prefix + name, value, timeout=_PATIENCE)

    def get(self, name: str) -> Any:
        return self._context.get(self._prefix + name, timeout=_PATIENCE)

    def disconnect(self) -> None:
        self._context.close()

    def close(self) -> None:
        self.put("Acquire", 0)
        self.put("AcquireTime", 0.01)
        self.put("AcquirePeriod", 0.0)
        self.put("SimDropEvery", 0)
        self.put("SimDropNext", 0)
        self._context.close()
