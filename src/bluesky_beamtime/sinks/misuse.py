"""What is said to whoever hands a sink something that it does not take."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, NoReturn

from bluesky_beamtime.sinks.records import DaqBlock, DaqReading


class AsyncOnly:
    """A class for ``async with``, which says so to ``with``."""

    def __enter__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"{name} is opened by 'async with {name}(…) as sink', inside of an async "
            "function that asyncio.run() runs; IPython and Jupyter take it as it is"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Is never reached."""


def checked_readings(taker: Any, items: Iterable[Any]) -> list[DaqReading]:
    """Return readings as a list.

    Raises
    ------
    TypeError
        It is something else; nothing of it is written.
    """
    name = f"{type(taker).__name__}.write_many"
    if isinstance(items, (DaqReading, DaqBlock)):
        one = "write_many([reading])"
        raise TypeError(
            f"{name} takes a list of readings, not one {type(items).__name__}: "
            f"{one if isinstance(items, DaqReading) else 'write(block)'}"
        )
    readings: list[Any] = list(items)
    if not set(map(type, readings)) <= {DaqReading}:
        for each in readings:
            if not isinstance(each, DaqReading):
                raise TypeError(
                    f"{name} takes DaqReading, not {type(each).__name__}; nothing was "
                    "written. Values become one by DaqReading(device=…, values={…}), "
                    "a block goes to write(block)"
                )
    return readings


def check_block(taker: Any, operation: str, block: Any) -> None:
    """Refuse what is no block.

    Raises
    ------
    TypeError
        It is something else; nothing of it is written.
    """
    if not isinstance(block, DaqBlock):
        raise TypeError(
            f"{type(taker).__name__}.{operation} takes a DaqBlock, not "
            f"{type(block).__name__}; nothing was written. Readings go to "
            "write_many([…])"
        )


def check_sink(sink: Any, kind: Any, user: str) -> None:
    """Refuse what is no sink of a kind.

    Raises
    ------
    TypeError
        It is something else.
    """
    if isinstance(sink, type):
        name = sink.__name__
        raise TypeError(f"{user} takes a sink, not the class {name}: {name}(…)")
    if not isinstance(sink, kind):
        records, call = (
            ("blocks", "write(block)")
            if hasattr(kind, "write")
            else ("readings", "write_many(readings)")
        )
        raise TypeError(
            f"{user} takes a sink of {records}, which has {call}, not "
            f"{type(sink).__name__}"
        )
