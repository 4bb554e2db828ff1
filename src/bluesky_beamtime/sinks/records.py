"""What sinks take: readings, blocks and single samples, each a frozen value."""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

Scalar = bool | int | float | complex | str | datetime | None
TimeReference = Literal["start", "mid", "end"]
_SCALARS = (bool, int, float, complex, str, datetime, type(None))


def _now() -> datetime:
    return datetime.now(UTC)


def _frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(mapping))


class _Picklable:
    """Lets a frozen record with read-only mappings go to another process."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        fields: dict[str, Any] = {
            name: getattr(self, name) for name in cast("Any", self).__dataclass_fields__
        }
        return _rebuild, (
            type(self),
            {
                name: dict(cast("Mapping[str, Any]", value))
                if isinstance(value, MappingProxyType)
                else value
                for name, value in fields.items()
            },
        )


def _rebuild(kind: type[Any], fields: dict[str, Any]) -> Any:
    return kind(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaqReading(_Picklable):
    """One value per channel, taken together: a row of a table."""

    device: str
    """Name of the device."""
    task: str | None = None
    """What it was doing: the name of a task, or of a plan."""
    values: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    """Value by channel; scalars of NumPy and members of enums become plain ones."""
    units: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    """Unit by channel, None for none."""
    t_mono_ns: int | None = field(default_factory=time.monotonic_ns)
    """Monotonic clock, nanoseconds; None where nobody read one."""
    t_utc: datetime = field(default_factory=_now)
    """Time of the measurement, with its time zone; it is kept in UTC.

    Like every time here, one of another class, such as ``pandas.Timestamp``, becomes a
    plain one, in microseconds."""
    t_midpoint_mono_ns: int | None = None
    """Monotonic clock at the middle of the integration, nanoseconds."""
    requested_at: datetime | None = None
    """When the reading was asked for."""
    received_at: datetime | None = None
    """When it came."""
    latency_s: float | None = None
    """Seconds between the two."""
    error: BaseException | None = None
    """Why there are no values, or not all."""
    sensor_status: Mapping[str, str] = field(default_factory=dict[str, str])
    """Status of the channels that are not well, such as ``sensor_open``."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Anything else; JSON must be able to hold it."""

    def __post_init__(self) -> None:
        values = {
            channel: _scalar(channel, value) for channel, value in self.values.items()
        }
        object.__setattr__(self, "values", MappingProxyType(values))
        for name in ("units", "sensor_status", "metadata"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        _check_times(self, ("t_utc", "requested_at", "received_at"))
        _check_integers(self, ("t_mono_ns", "t_midpoint_mono_ns"))
        _check_float(self, "latency_s")

    def to_row(self) -> dict[str, Any]:
        """Return the row that every tabular sink writes; see ``reading_to_row``."""
        from bluesky_beamtime.sinks.rows import reading_to_row

        return reading_to_row(self)


def _scalar(channel: Any, given: Any) -> Scalar:
    value: Any = given
    if isinstance(given, (np.generic, np.ndarray)):
        array = cast("NDArray[Any]", given)
        value = cast("Any", array) if array.shape else array.item()
    if not isinstance(channel, str):
        raise TypeError(f"a channel is called by a text, not {channel!r}")
    if not isinstance(value, _SCALARS):
        raise TypeError(
            f"channel {channel!r} of a reading has one number, text, time or None, not "
            f"{type(cast('object', value)).__name__}; arrays of samples are a DaqBlock"
        )
    if isinstance(value, datetime):
        return _in_utc(f"channel {channel!r}", value)
    for plain in (str, int, float):
        if isinstance(value, plain) and type(value) is not bool:
            # Members of an enum are called otherwise than they are.
            return value if type(value) is plain else _as_plain(plain, value)
    return value


def _as_plain(kind: type[Any], value: Any) -> Any:
    if kind is str:
        return str.__str__(value)
    return int.__int__(value) if kind is int else float.__float__(value)


def _in_utc(name: str, value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise ValueError(
            f"{name}={value} has no time zone: nobody can tell when that was. Give it "
            "one, as datetime.now(UTC) does"
        )
    moment = value if value.tzinfo is UTC else value.astimezone(UTC)
    if type(moment) is datetime:
        return moment
    # Such as one of pandas, whose nanoseconds no column of times has a place for.
    return datetime(
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.microsecond,
        UTC,
    )


def _check_times(record: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(record, name)
        if value is None or (type(value) is datetime and value.tzinfo is UTC):
            continue
        object.__setattr__(record, name, _in_utc(name, value))


def _check_float(record: Any, name: str) -> None:
    value = getattr(record, name)
    if value is not None and type(value) is not float:
        object.__setattr__(record, name, float(value))


def _check_integers(record: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(record, name)
        if value is not None and type(value) is not int:
            object.__setattr__(record, name, operator.index(value))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DaqBlock(_Picklable):
    """Samples of several channels, taken by one clock.

    Arrays that could still be written to are copied, so that a driver may use its
    buffer again; what the block holds is read-only.
    """

    device: str
    """Name of the device."""
    task: str | None = None
    """What it was doing: the name of a task, or of a plan."""
    channels: tuple[str, ...]
    """Name of each channel."""
    data: NDArray[Any]
    """Samples, ``(channels, samples)``."""
    raw_codes: NDArray[Any] | None = None
    """The converter's own numbers, of the same shape."""
    block_index: int = 0
    """Number of this block, from 0."""
    first_sample_index: int = 0
    """Number of its first sample since the task began."""
    samples_per_channel: int = -1
    """Valid samples: fewer than ``data`` has columns if the buffer was cut short.

    By default all of them.
    """
    sample_rate_hz: float | None = None
    """Samples per second and channel."""
    block_period_ns: int | None = None
    """Nanoseconds from one sample to the next, where a clock gave it."""
    t_mono_ns: int | None = field(default_factory=time.monotonic_ns)
    """Monotonic clock of the moment that ``t_reference`` names, nanoseconds."""
    t_utc: datetime = field(default_factory=_now)
    """Time of the same moment, with its time zone."""
    t_reference: TimeReference = "start"
    """Which moment the two times are of: its first sample, its middle, its end."""
    read_started_at: datetime | None = None
    """When reading it from the device began."""
    read_finished_at: datetime | None = None
    """When it was there."""
    task_started_at: datetime | None = None
    """When the task began."""
    elapsed_s: float | None = None
    """Seconds that reading took."""
    units: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    """Unit by channel, None for none."""
    is_linearised: bool = False
    """Whether ``data`` is in units already, not in the converter's numbers."""
    error: BaseException | None = None
    """What went wrong while it was taken."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Anything else; JSON must be able to hold it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "data", _read_only(self.data))
        self._check_shape("data", self.data)
        if self.raw_codes is not None:
            object.__setattr__(self, "raw_codes", _read_only(self.raw_codes))
            if self.raw_codes.shape != self.data.shape:
                raise ValueError(
                    f"raw_codes of shape {self.raw_codes.shape} do not belong to data "
                    f"of shape {self.data.shape}"
                )
        width = self.data.shape[1]
        if self.samples_per_channel == -1:
            object.__setattr__(self, "samples_per_channel", width)
        if not 0 <= self.samples_per_channel <= width:
            raise ValueError(
                f"samples_per_channel={self.samples_per_channel} of {width} columns: "
                "a block has at most as many valid samples as its data has columns"
            )
        for name in ("units", "metadata"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        if self.t_reference not in ("start", "mid", "end"):
            raise ValueError(
                f"t_reference={self.t_reference!r}: 'start', 'mid' or 'end'"
            )
        times = ("t_utc", "read_started_at", "read_finished_at", "task_started_at")
        _check_times(self, times)
        _check_integers(
            self,
            (
                "block_index",
                "first_sample_index",
                "samples_per_channel",
                "block_period_ns",
                "t_mono_ns",
            ),
        )
        for name in ("sample_rate_hz", "elapsed_s"):
            _check_float(self, name)

    def _check_shape(self, name: str, array: NDArray[Any]) -> None:
        if array.ndim != 2 or array.shape[0] != len(self.channels):
            raise ValueError(
                f"{name} of shape {array.shape} for {len(self.channels)} channels: it "
                "must be (channels, samples)"
            )


def _read_only(given: Any) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(given)
    if array.flags.writeable or array.base is not None:
        array = array.copy()
        array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class DaqSample:
    """One sample of one channel of a block."""

    device: str
    """Name of the device."""
    task: str | None
    """What it was doing."""
    channel: str
    """Name of the channel."""
    block_index: int
    """Number of the block it came in."""
    sample_index: int
    """Number of the sample since the task began."""
    t_mono_ns: int | None
    """Monotonic clock, nanoseconds; None where nobody knows."""
    t_utc: datetime | None
    """Time of the sample; None where nobody knows."""
    value: Any
    """The value; integers are exact."""
    unit: str | None
    """Its unit."""
    error: BaseException | None = None
    """What went wrong while its block was taken."""
