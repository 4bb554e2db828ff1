"""A sink that keeps records in memory: for tests, notebooks and small scans."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from bluesky_beamtime.errors import ErrorContext, SinkStateError
from bluesky_beamtime.sinks.misuse import AsyncOnly, check_block, checked_readings
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading


class InMemorySink(AsyncOnly):
    """Keeps readings and blocks in lists, in the order in which they came.

    They stay after ``close``, and opening again goes on after them. It costs the event
    loop nothing to speak of, so nothing runs in a thread.
    """

    def __init__(self) -> None:
        self._readings: list[DaqReading] = []
        self._blocks: list[DaqBlock] = []
        self._raw: list[DaqBlock] = []
        self._is_open = self._was_open = False

    @property
    def readings(self) -> list[DaqReading]:
        """The readings so far: a list of the caller's own."""
        return list(self._readings)

    @property
    def blocks(self) -> list[DaqBlock]:
        """The blocks so far: a list of the caller's own."""
        return list(self._blocks)

    @property
    def raw_blocks(self) -> list[DaqBlock]:
        """The blocks of :meth:`write_raw` so far."""
        return list(self._raw)

    @property
    def is_open(self) -> bool:
        """Whether it takes records."""
        return self._is_open

    async def open(self) -> None:
        """Open; nothing if it is open."""
        self._is_open = self._was_open = True

    async def close(self) -> None:
        """Close; what is there stays. Nothing if it is not open."""
        self._is_open = False

    async def flush(self) -> None:
        """Do nothing: memory has no device. Refused unless open."""
        self._check("flush", ())

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Keep readings.

        Raises
        ------
        SinkStateError
            It is not open.
        """
        items = checked_readings(self, items)
        self._check("write_many", items)
        self._readings.extend(items)

    async def write(self, block: DaqBlock) -> None:
        """Keep a block.

        Raises
        ------
        SinkStateError
            It is not open.
        """
        check_block(self, "write", block)
        self._check("write", [block])
        self._blocks.append(block)

    async def write_raw(self, block: DaqBlock) -> None:
        """Keep a block of raw codes, beside the others.

        Raises
        ------
        SinkStateError
            It is not open.
        """
        check_block(self, "write_raw", block)
        self._check("write_raw", [block])
        self._raw.append(block)

    def _check(self, operation: str, items: Sequence[DaqReading | DaqBlock]) -> None:
        if not self._is_open:
            when = "after close()" if self._was_open else "before open()"
            raise SinkStateError(
                f"InMemorySink: {operation} called {when}; nothing was kept. Use it as "
                "'async with InMemorySink() as sink', or call open()",
                context=ErrorContext(f"InMemorySink.{operation}", "memory"),
                records=items,
            )
