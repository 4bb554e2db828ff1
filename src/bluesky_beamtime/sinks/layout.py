"""What the columns of a table are called: the same names in every table and file."""

from __future__ import annotations

from functools import lru_cache

from bluesky_beamtime.sinks.texts import as_utf8

HEAD = (
    "device",
    "task",
    "t_mono_ns",
    "t_utc",
    "t_midpoint_mono_ns",
    "requested_at",
    "received_at",
    "latency_s",
)
TAIL = ("error_type", "error_message")
ZERO = "\u2400"
"""Stands for a zero where none can be in a text."""
BLOCK_COLUMNS = (
    "device",
    "task",
    "channel",
    "block_index",
    "sample_index",
    "t_mono_ns",
    "t_utc",
    "value",
    "unit",
    "error_type",
    "error_message",
)
SUMMARY_COLUMNS = (
    "device",
    "task",
    "channels",
    "block_index",
    "first_sample_index",
    "samples_per_channel",
    "sample_rate_hz",
    "block_period_ns",
    "t_mono_ns",
    "t_utc",
    "read_started_at",
    "read_finished_at",
    "elapsed_s",
    "units",
    "error_type",
    "error_message",
)
TIMES = frozenset(
    ("t_utc", "requested_at", "received_at", "read_started_at", "read_finished_at")
)
"""Columns of times: text in ISO 8601, or the type that a database has for them."""
INTEGERS = frozenset(
    (
        "t_mono_ns",
        "t_midpoint_mono_ns",
        "block_index",
        "sample_index",
        "first_sample_index",
        "samples_per_channel",
        "block_period_ns",
    )
)
FLOATS = frozenset(("latency_s", "sample_rate_hz", "elapsed_s"))
TEXTS = frozenset(
    (
        "device",
        "task",
        "channel",
        "channels",
        "unit",
        "units",
        "error_type",
        "error_message",
        "sensor_status",
        "metadata",
    )
)
_FIXED = TIMES | INTEGERS | FLOATS | TEXTS


def is_text(column: str) -> bool:
    """Return whether a column holds text whatever the channels are."""
    return column in TEXTS or column.endswith("_unit")


def channel_column(channel: str) -> str:
    """Return the name of a channel's column.

    That is the channel's own name, unless it is that of a fixed column or begins like
    the names made here: then ``channel_`` stands before it. What looks like a unit's
    column then, or would with fewer underscores behind it, gets another one of them.
    """
    folded = channel.casefold()
    begins = not channel or folded in _FIXED or folded.startswith("channel_")
    if begins or folded.endswith("_unit"):
        channel = f"channel_{channel}"
        if channel.casefold().rstrip("_").endswith("_unit"):
            channel += "_"
    # Neither SQLite nor PostgreSQL takes a zero in a name, and nobody half a character.
    return as_utf8(channel).replace("\0", ZERO)


@lru_cache(maxsize=1024)
def reading_columns(
    channels: tuple[str, ...], units: tuple[str, ...], extras: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the names of the columns of readings.

    Parameters
    ----------
    channels
        Names of the channels that have values.
    units
        Names of those that have units.
    extras
        Columns that stand behind, for what few readings have.
    """
    return (
        *HEAD,
        *(channel_column(channel) for channel in channels),
        *(f"{channel_column(channel)}_unit" for channel in units),
        *TAIL,
        *extras,
    )
