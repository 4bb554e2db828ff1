"""What the descriptors of one stream say together, and what each says differently.

A stream is described anew when a device was configured within the run: the settings,
or the units of a field, are others from some event on.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.event_table import EventTable
from bluesky_beamtime.errors import DocumentError

if TYPE_CHECKING:
    from bluesky_beamtime.database.streams import Stream

UnitsOfRows = list[tuple[int, str | None]]
"""Units, each with the ``seq_num`` from which they hold; None for a row without."""

_TOLD = 3
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of a device, and the event from which it was so."""

    seq_num: int
    """First event that was taken with it."""
    value: Any
    """The setting."""
    units: str | None = None
    """Its units, None without."""


class Descriptions:
    """The descriptors of a stream as they are now.

    Parameters
    ----------
    stream
        The stream.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        rows = stream.descriptor_rows()
        self._uids = [uid for uid, _ in rows]
        self._descriptors: list[dict[str, Any]] = [decode(text) for _, text in rows]

    # ------------------------------------------------------------------------ fields

    def data_keys(self) -> dict[str, dict[str, Any]]:
        """Return what each field is, by the last descriptor that has it.

        A field whose units changed has no ``units``.
        """
        keys: dict[str, dict[str, Any]] = {}
        for described in self._data_keys:
            keys |= described
        for key, units in self._units.items():
            keys[key] = {k: v for k, v in keys[key].items() if k != "units"}
            if len(units) == 1 and units[0][1] is not None:
                keys[key]["units"] = units[0][1]
        return keys

    def units_of_rows(self) -> dict[str, UnitsOfRows]:
        """Return the units of each field that does not have the same in all rows."""
        return {key: units for key, units in self._units.items() if len(units) > 1}

    @cached_property
    def _data_keys(self) -> list[dict[str, dict[str, Any]]]:
        try:
            return [dict(descriptor["data_keys"]) for descriptor in self._descriptors]
        except (KeyError, TypeError, ValueError) as error:
            raise DocumentError(
                f"a stored descriptor of {self._stream.name!r} is damaged: no data keys"
            ) from error

    @cached_property
    def _units(self) -> dict[str, UnitsOfRows]:
        """The units of the fields of which not all descriptors say the same."""
        told: dict[str, dict[int, str | None]] = {}
        for number, described in enumerate(self._data_keys):
            for key, data_key in described.items():
                told.setdefault(key, {})[number] = _units_in(data_key)
        return self._held(told)

    # ---------------------------------------------------------------------- settings

    def configuration(self) -> dict[str, dict[str, Any]]:
        """Return the settings of each device, as they were last."""
        return {
            device: {name: value for name, (value, _) in settings.items()}
            for device, settings in self._last_settings().items()
        }

    def configuration_units(self) -> dict[str, dict[str, str]]:
        """Return the units of the settings, as they were last."""
        return {
            device: {name: u for name, (_, u) in settings.items() if u is not None}
            for device, settings in self._last_settings().items()
            if any(units is not None for _, units in settings.values())
        }

    def configuration_changes(self) -> dict[str, dict[str, list[Setting]]]:
        """Return each setting that did not stay the same, from event to event."""
        found: dict[str, dict[str, list[Setting]]] = {}
        for (device, name), held in self._changed.items():
            if len(held) > 1:
                found.setdefault(device, {})[name] = [
                    Setting(seq_num, value, units) for seq_num, (value, units) in held
                ]
        return found

    def _last_settings(self) -> dict[str, dict[str, tuple[Any, str | None]]]:
        settings: dict[str, dict[str, tuple[Any, str | None]]] = {}
        for described in self._settings:
            for (device, name), told in described.items():
                settings.setdefault(device, {})[name] = told
        for (device, name), held in self._changed.items():
            settings[device][name] = held[-1][1]
        return settings

    @cached_property
    def _settings(self) -> list[dict[tuple[str, str], tuple[Any, str | None]]]:
        """Value and units of each setting, for each descriptor."""
        found: list[dict[tuple[str, str], tuple[Any, str | None]]] = []
        for descriptor in self._descriptors:
            mine: dict[tuple[str, str], tuple[Any, str | None]] = {}
            for device, told in descriptor.get("configuration", {}).items():
                keys = told.get("data_keys", {})
                for name, value in told.get("data", {}).items():
                    mine[device, name] = value, _units_in(keys.get(name))
            found.append(mine)
        return found

    @cached_property
    def _changed(self) -> dict[tuple[str, str], list[tuple[int, Any]]]:
        told: dict[tuple[str, str], dict[int, Any]] = {}
        for number, described in enumerate(self._settings):
            for place, setting in described.items():
                told.setdefault(place, {})[number] = setting
        return self._held(told)

    # -------------------------------------------------------------------------- rows

    def _held(
        self, told: Mapping[_Key, Mapping[int, _Value]]
    ) -> dict[_Key, list[tuple[int, _Value]]]:
        """Return what descriptors say differently, and from which row on each.

        Parameters
        ----------
        told
            By number of the descriptor what it says of each thing.
        """
        found: dict[_Key, list[tuple[int, _Value]]] = {}
        if len(self._descriptors) < 2:
            return found
        for key, values in told.items():
            texts = {number: encode(value) for number, value in values.items()}
            if len(set(texts.values())) < 2:
                continue
            held: list[tuple[int, _Value]] = []
            before: str | None = None
            for seq_num, number in self._rows:
                if number in texts and texts[number] != before:
                    before = texts[number]
                    held.append((seq_num, values[number]))
            # Before the first event nothing has been measured otherwise.
            if held:
                found[key] = held
        return found

    @cached_property
    def _rows(self) -> Sequence[tuple[int, int]]:
        """From which ``seq_num`` on which descriptor holds."""
        database = self._stream.run.database
        numbers: list[NDArray[np.int64]] = []
        owners: list[NDArray[np.int64]] = []
        for owner, seq_nums in [
            *self._streamed_rows(),
            *(
                (owner, EventTable(database, [uid], []).seq_nums)
                for owner, uid in enumerate(self._uids)
            ),
        ]:
            numbers.append(seq_nums)
            owners.append(np.full(len(seq_nums), owner, np.int64))
        together, owner_of = np.concatenate(numbers), np.concatenate(owners)
        # Of an event that was repeated after a pause the last counts; unique() finds
        # the first.
        rows, last = np.unique(together[::-1], return_index=True)
        owner_of = owner_of[::-1][last]
        begins = np.flatnonzero(np.diff(owner_of, prepend=-1))
        return list(zip(rows[begins].tolist(), owner_of[begins].tolist(), strict=True))

    def _streamed_rows(self) -> list[tuple[int, NDArray[np.int64]]]:
        table = schema.stream_datums
        query = (
            select(table.c.stream_uid, table.c.seq_start, table.c.seq_stop)
            .where(table.c.stream_uid.in_(self._uids))
            .order_by(table.c.ordinal)
        )
        with self._stream.run.database.reading() as connection:
            rows = connection.execute(query).all()
        owners = {uid: owner for owner, uid in enumerate(self._uids)}
        return [(owners[uid], np.arange(first, end)) for uid, first, end in rows]


def told_units(units: Sequence[tuple[int, str | None]]) -> str:
    """Return units that changed as words, the first few of them."""
    words = [
        f"{'none' if unit is None else unit} from seq_num {seq_num}"
        for seq_num, unit in units
    ]
    more = [f"{len(words) - _TOLD} more"] if len(words) > _TOLD else []
    return ", ".join([*words[:_TOLD], *more])


def _units_in(data_key: Any) -> str | None:
    units = data_key.get("units") if isinstance(data_key, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return units if isinstance(units, str) else None
