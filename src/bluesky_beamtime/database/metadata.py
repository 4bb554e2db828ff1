"""Metadata of every run to come, kept in the file: a mapping for ``RunEngine(md)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from copy import deepcopy
from typing import Any, cast

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.dialects.sqlite import insert

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.kinds import is_integer
from bluesky_beamtime.database.scan_ids import (
    largest_scan_id,
    last_scan_id,
    raise_scan_id,
)
from bluesky_beamtime.database.schema import meta
from bluesky_beamtime.errors import DocumentError

_PREFIX = "md:"
_SCAN_ID = "scan_id"


class Metadata(MutableMapping[str, Any]):
    """What a RunEngine adds to every run, in the database of the beamtime.

    ::

        RE = RunEngine(beamtime.md)
        RE.md["operator"] = "Ada"

    Every assignment is committed when it returns and survives ``kill -9``; every look
    asks the file, so that several processes share it. The key ``scan_id`` is the last
    scan number of the beamtime: it can be raised, and never goes back, so that no
    number is used twice.

    Parameters
    ----------
    database
        Where it is kept.

    Notes
    -----
    Thread-safe. What is changed in a mapping that was taken out is kept as well; a list
    that was taken out is a copy, to be assigned anew. Tuples come back as lists.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getitem__(self, key: str) -> Any:
        value = self._read(key)
        if isinstance(value, dict):
            mapping = cast("dict[str, Any]", value)
            return _Kept(mapping, lambda: self.__setitem__(key, mapping))
        return value

    def _read(self, key: str) -> Any:
        if key == _SCAN_ID:
            number = last_scan_id(self._database)
            if number is None:
                raise KeyError(key)
            return number
        query = select(meta.c.value).where(meta.c.key == _stored(key))
        with self._database.reading() as connection:
            text = connection.execute(query).scalar()
        if text is None:
            raise KeyError(key)
        return decode(text)

    def __setitem__(self, key: str, value: Any) -> None:
        """Keep a value; it is committed when this returns.

        Raises
        ------
        DocumentError
            The value has no JSON form, or the scan number is none.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if key == _SCAN_ID:
            if not is_integer(value):
                raise DocumentError(f"a scan number is an integer, not {value!r:.80}")
            raise_scan_id(self._database, int(value))
            return
        lost: list[str] = []
        text = encode(value, lost)
        if lost:
            raise DocumentError(
                f"{key!r} holds what has no JSON form: {lost[0]}; nothing was changed. "
                "Give its name, or its numbers"
            )
        statement = insert(meta).values(key=_stored(key), value=text)
        with self._database.writing() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["key"], set_={"value": statement.excluded.value}
                )
            )

    def __delitem__(self, key: str) -> None:
        """Remove a value.

        Raises
        ------
        KeyError
            There is none.
        DocumentError
            It is the scan number, which must not be forgotten.
        """
        if key == _SCAN_ID:
            raise DocumentError(
                "the last scan number cannot be removed: numbers would be used twice"
            )
        with self._database.writing() as connection:
            query = delete(meta).where(meta.c.key == _stored(key))
            if connection.execute(query).rowcount == 0:
                raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        query = select(meta.c.key).where(_is_mine()).order_by(meta.c.key)
        with self._database.reading() as connection:
            keys = list(connection.execute(query).scalars())
            numbered = largest_scan_id(connection) > 0
        found = [key.removeprefix(_PREFIX) for key in keys]
        if numbered:
            found.append(_SCAN_ID)
        return iter(found)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Remove everything but the scan number."""
        with self._database.writing() as connection:
            connection.execute(delete(meta).where(_is_mine()))

    def copy(self) -> dict[str, Any]:
        """Return all of it as a plain dict, which is kept nowhere."""
        return {key: self._read(key) for key in self}

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        # A RunEngine copies what goes into a start document.
        return self.copy()

    def __repr__(self) -> str:
        return f"<Metadata {self.copy()!r}>"


class _Kept(dict[str, Any]):
    """A mapping within the metadata: what is changed in it is stored at once."""

    def __init__(self, content: dict[str, Any], keep: Callable[[], None]) -> None:
        super().__init__(content)
        self._content = content
        self._keep = keep

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return _Kept(cast("Any", value), self._keep) if type(value) is dict else value

    def __setitem__(self, key: str, value: Any) -> None:
        self._content[key] = value
        self._keep()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self._content[key]
        self._keep()

    update = MutableMapping.update  # pyright: ignore  # through __setitem__
    setdefault = MutableMapping.setdefault  # pyright: ignore
    pop = MutableMapping.pop  # pyright: ignore
    popitem = MutableMapping.popitem  # pyright: ignore
    clear = MutableMapping.clear  # pyright: ignore

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (self._content,)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return deepcopy(self._content, memo)


def _stored(key: object) -> str:
    if not isinstance(key, str):
        raise DocumentError(f"a key of the metadata is text, not {key!r:.80}")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(f"a key is no valid text: {key!r}") from error
    return _PREFIX + key


def _is_mine() -> ColumnElement[bool]:
    return meta.c.key.startswith(_PREFIX, autoescape=True)
