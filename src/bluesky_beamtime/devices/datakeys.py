"""What a descriptor says about frames that are streamed into a store."""

from __future__ import annotations

from event_model import DataKey

from bluesky_beamtime.storage import FrameSink

_AXES = {1: ("x",), 2: ("y", "x"), 3: ("y", "x", "channel")}


def frame_dims(key: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return names for a frame's axes, such as ``cam_y`` and ``cam_x``.

    The key stands before each, so that cameras of different sizes share a dataset. The
    third axis of a frame is colour.
    """
    if not shape:
        return ()
    axes = _AXES.get(len(shape)) or tuple(f"axis{n}" for n in range(len(shape)))
    return tuple(f"{key}_{axis}" for axis in axes)


def make_datakey(
    sink: FrameSink,
    source: str,
    collections_per_event: int,
    frame_axis: str,
    units: str | None = None,
    dims: tuple[str, ...] = (),
) -> DataKey:
    """Return the data key of a sink.

    Parameters
    ----------
    sink
        The sink.
    source
        Where the values come from.
    collections_per_event
        Rows of one event: above one they are the leading axis of the event's value;
        with one there is no such axis, so that ``N`` events read back as
        ``(N, *frame)``.
    frame_axis
        Name of that axis.
    units
        Units of the values.
    dims
        Names of a frame's axes.
    """
    shape: list[int | None] = list(sink.shape)
    names = list(dims)
    if collections_per_event > 1:
        shape.insert(0, collections_per_event)
        names.insert(0, frame_axis)
    scalar = "integer" if sink.dtype.kind in "iu" else "number"
    datakey = DataKey(
        source=source,
        dtype="array" if shape else scalar,
        dtype_numpy=sink.dtype.str,
        shape=shape,
        external="STREAM:",
    )
    if names:
        datakey["dims"] = names
    if units is not None:
        datakey["units"] = units
    return datakey
