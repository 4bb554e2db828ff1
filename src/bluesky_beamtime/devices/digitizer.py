"""Digitizers for Bluesky plans: blocks of waveforms from several channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import getattr_static
from typing import Any, Protocol, runtime_checkable

from ophyd_async.core import SignalR, SignalRW, TriggerInfo, soft_signal_r_and_setter

from bluesky_beamtime.devices.camera import Camera, FrameSource
from bluesky_beamtime.devices.frame_form import FrameAxis
from bluesky_beamtime.storage import FrameStore


@runtime_checkable
class WaveformSource(FrameSource, Protocol):
    """What :class:`Digitizer` needs of a digitizer's own software.

    A :class:`~bluesky_beamtime.devices.FrameSource` whose frames are blocks of shape
    ``(channels, samples)``, and that tells in addition what stands along them. All is
    read after ``configure`` and holds until the digitizer is prepared again. Whether
    ``configure`` changes how long a block is, is up to the source.

    A stamp's ``time_ns`` is the time of the block's first sample.

    Attributes
    ----------
    channels : sequence of str
        Names of the channels, each once.
    sample_rate : float
        Samples per second of each channel.
    units : str or sequence of str
        Units of all channels, or of each.
    """

    @property
    def channels(self) -> Sequence[str]:
        """Names of the channels."""
        ...

    @property
    def sample_rate(self) -> float:
        """Samples per second of each channel."""
        ...

    @property
    def units(self) -> str | Sequence[str]:
        """Units of all channels, or of each."""
        ...


class Digitizer(Camera):
    """A detector that streams blocks of waveforms into a store it shares with others.

    Everything that holds for a :class:`Camera` holds for a digitizer: step and fly
    scans, triggers, several blocks per event, averages, accounting. A frame is a block
    of shape ``(channels, samples)``, and reads back with the dimensions ``time``,
    ``<name>_channel`` and ``<name>_sample``, whose coordinates are the channels' names
    and the seconds since the block's first sample; ``<name>_unit`` stands along the
    channels. Beside ``<name>_time`` the time of the first sample is streamed in
    nanoseconds since 1970, as ``<name>_t0``.

    Parameters
    ----------
    frames
        Store for the blocks.
    source
        Where they come from.
    exposure
        Length of a block in seconds, if ``source.configure`` sets it; as for a camera.
        None leaves it to the source.
    config_signals, hardware, fail_on_drop, default_trigger_info, name
        As for :class:`Camera`.

    Attributes
    ----------
    sample_rate : SignalR of float
        In Hz.
    samples : SignalR of int
        Samples of each channel in a block.
    channels, channel_units : SignalR of sequence of str
        Names and units of the channels. All four are in ``read_configuration``, and
        in the attributes of the array, under ``metadata``.
    """

    source: WaveformSource
    exact_times = True
    kind = "digitizer"

    def __init__(
        self,
        frames: FrameStore,
        *,
        source: WaveformSource,
        exposure: float | SignalRW[float] | None = None,
        config_signals: Sequence[SignalR[Any]] | Mapping[str, SignalR[Any]] = (),
        hardware: str | None = None,
        fail_on_drop: bool = False,
        default_trigger_info: TriggerInfo | None = None,
        name: str = "",
    ) -> None:
        _check_source(source)
        self.sample_rate, _ = soft_signal_r_and_setter(
            float, units="Hz", getter=lambda: float(source.sample_rate)
        )
        self.samples, _ = soft_signal_r_and_setter(
            int, getter=lambda: int(source.shape[-1])
        )
        self.channels, _ = soft_signal_r_and_setter(
            Sequence[str], getter=lambda: list(source.channels)
        )
        self.channel_units, _ = soft_signal_r_and_setter(
            Sequence[str], getter=lambda: list(channel_units(source))
        )
        super().__init__(
            frames,
            source=source,
            exposure=exposure,
            config_signals=config_signals,
            hardware=hardware,
            fail_on_drop=fail_on_drop,
            default_trigger_info=default_trigger_info,
            name=name,
        )
        own = (self.sample_rate, self.samples, self.channels, self.channel_units)
        self.add_config_signals(*own)  # pyright: ignore[reportUnknownMemberType]  # ophyd-async leaves the type open

    def frame_axes(self) -> Sequence[FrameAxis]:
        """Return the channels, and the seconds since a block's first sample."""
        source = self.source
        units = channel_units(source)
        return (
            FrameAxis(
                name="channel", labels=tuple(source.channels), also={"unit": units}
            ),
            FrameAxis(name="sample", step=1 / float(source.sample_rate), units="s"),
        )

    def frame_metadata(self) -> dict[str, Any]:
        """Return what a block needs to be understood by itself."""
        source = self.source
        return {
            "sample_rate": float(source.sample_rate),
            "samples": int(source.shape[-1]),
            "channels": list(source.channels),
            "channel_units": list(channel_units(source)),
        }

    def frame_units(self) -> str | None:
        """Return the units that all channels share, if they do."""
        units = set(channel_units(self.source))
        return units.pop() if len(units) == 1 else None


def channel_units(source: WaveformSource) -> tuple[str, ...]:
    """Return the units of each channel of a source."""
    units = source.units
    if isinstance(units, str):
        return (units,) * len(source.channels)
    return tuple(units)


def _check_source(source: Any) -> None:
    # Looked up without running properties: a source may need to be connected first.
    parts = ("channels", "sample_rate", "units")
    missing = [part for part in parts if getattr_static(source, part, None) is None]
    if missing:
        raise TypeError(
            f"{source!r} is no WaveformSource: it lacks {', '.join(missing)}"
        )
