"""PVs over PVAccess: found, read, set and followed, with errors that say what to do."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, cast

from bluesky_beamtime.errors import (
    DeviceError,
    DeviceTimeoutError,
    MissingExtraError,
)


class PvaClient:
    """One device's connection to its PVs, through p4p.

    Parameters
    ----------
    pv
        Name of the device's main PV, for messages.
    conf
        Configuration for the client, beside the environment's.
    timeout
        Seconds within which a PV answers.

    Attributes
    ----------
    queue
        Where the updates of subscriptions are handled, one after another.
    """

    def __init__(self, pv: str, conf: Mapping[str, str] | None, timeout: float) -> None:
        self.pv = pv
        self.timeout = timeout
        self.queue: Any = None
        self._conf = dict(conf or {})
        self._context: Any = None

    def open(self) -> None:
        """Begin to look for PVs; nothing happens if it has begun."""
        if self._context is not None:
            return
        try:
            from p4p.client.thread import Context
            from p4p.util import ThreadedWorkQueue
        except ImportError as error:
            raise MissingExtraError("a PVAccess camera", "p4p", "epics") from error
        # Images come as they are sent: p4p's own unpacking knows no codec, no colour.
        self._context = Context(
            "pva", conf=self._conf, nt={"epics:nt/NTNDArray:1.0": _AsSent}
        )
        # A thread of its own: a disk that holds it back holds back no other camera.
        self.queue = ThreadedWorkQueue(
            name=f"pva {self.pv}", workers=1, daemon=True, maxsize=0
        ).start()

    def close(self) -> None:
        """Disconnect; it may be opened again."""
        if self._context is not None:
            self._context.close()
            self.queue.stop()
            self._context = self.queue = None

    @property
    def is_open(self) -> bool:
        """Whether it is connected, or tries to be."""
        return self._context is not None

    @property
    def context(self) -> Any:
        """p4p's context.

        Raises
        ------
        DeviceError
            It is closed.
        """
        if self._context is None:
            raise DeviceError(
                f"the camera of PV {self.pv!r} is not connected; create it inside "
                "init_devices(), or await its connect()"
            )
        return self._context

    # ------------------------------------------------------------- the event loop

    async def get(self, name: str, timeout: float | None = None) -> Any:
        """Return the value of a PV.

        Raises
        ------
        DeviceTimeoutError
            It does not answer; the message says what to check.
        """
        return await asyncio.to_thread(self.get_now, name, timeout)

    async def put(self, name: str, value: Any, *, wait: bool = True) -> None:
        """Set a PV.

        Parameters
        ----------
        name, value
            The PV, and what it becomes.
        wait
            Whether to wait until the IOC has done what this makes it do.

        Raises
        ------
        DeviceTimeoutError
            It does not answer.
        DeviceError
            The IOC refuses the value.
        """
        await asyncio.to_thread(self.put_now, name, value, wait=wait)

    async def present(self, names: Iterable[str], timeout: float) -> set[str]:
        """Return which of some PVs answer within a time."""

        async def there(name: str) -> str | None:
            try:
                await self.get(name, timeout)
            except DeviceTimeoutError:
                return None
            return name

        found = await asyncio.gather(*cast("list[Awaitable[Any]]", map(there, names)))
        return {name for name in found if name is not None}

    # ----------------------------------------------------------------- any thread

    def get_now(self, name: str, timeout: float | None = None) -> Any:
        """Return the value of a PV; blocks."""
        patience = timeout or self.timeout
        try:
            return self.context.get(name, timeout=patience)
        except TimeoutError as error:
            raise self.silent(name, patience) from error

    def put_now(self, name: str, value: Any, *, wait: bool = True) -> None:
        """Set a PV; blocks."""
        context = self.context
        try:
            context.put(name, value, timeout=self.timeout, wait=wait or None)
        except TimeoutError as error:
            raise self.silent(name, self.timeout) from error
        except Exception as error:
            if type(error).__name__ == "RemoteError":
                raise DeviceError(
                    f"PV {name!r} refused {value!r}: {error}; see what its IOC accepts"
                ) from error
            raise

    def silent(self, name: str, patience: float) -> DeviceTimeoutError:
        """Return the error for a PV that does not answer."""
        return DeviceTimeoutError(
            f"PV {name!r} did not answer within {patience:g} s; check that its IOC "
            f"runs, that 'pvget {name}' answers on this computer, and where PVs are "
            f"looked for: {self._places()}"
        )

    def _places(self) -> str:
        found: list[str] = []
        for variable in ("EPICS_PVA_ADDR_LIST", "EPICS_PVA_NAME_SERVERS"):
            value = self._conf.get(variable) or os.environ.get(variable)
            found.append(f"{variable}={value!r}" if value else f"{variable} is not set")
        automatic = self._conf.get("EPICS_PVA_AUTO_ADDR_LIST") or os.environ.get(
            "EPICS_PVA_AUTO_ADDR_LIST", "YES"
        )
        where = "is" if automatic.upper() != "NO" else "is not"
        return f"{', '.join(found)}; the local network {where} searched too"


class PvaSubscription:
    """The updates of one PV, one after another in the thread of the client's queue.

    p4p's own subscription loses the wake-up of an update that comes before it is all
    set up, and is silent from then on; it happens under load.

    Parameters
    ----------
    client
        The connection.
    name
        The PV.
    update
        Is called with each value, and with an exception when the connection is lost.
    request
        What is asked for, in pvData's words.
    """

    def __init__(
        self,
        client: PvaClient,
        name: str,
        update: Callable[[Any], None],
        request: str | None = None,
    ) -> None:
        self._queue = client.queue
        self._update = update
        self._closed = False
        self._ready = threading.Event()
        # p4p has no types.
        raw: Any = import_module("p4p.client.raw")
        self._monitor = raw.Context.monitor(client.context, name, self._wake, request)
        self._ready.set()

    def close(self) -> None:
        """End it; an update that is being handled may go on."""
        self._closed = True
        self._monitor.close()

    def _wake(self) -> None:
        self._queue.push(self._drain)

    def _drain(self) -> None:
        self._ready.wait()
        while not self._closed:
            value = self._monitor.pop()
            if value is None:
                return
            self._update(value)


class _AsSent:
    """Tells p4p to leave a structure as it is."""

    @staticmethod
    def wrap(value: Any) -> Any:
        return value

    @staticmethod
    def unwrap(value: Any) -> Any:
        return value

    @staticmethod
    def assign(value: Any, new: Any) -> None:
        value[None] = new
