"""How far a server is with a file, feed by feed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from bluesky_beamtime.database.replica import tables
from bluesky_beamtime.database.replica.feed import ROW_FEEDS, Feed
from bluesky_beamtime.database.replica.places import Places
from bluesky_beamtime.database.replica.sending import clean
from bluesky_beamtime.errors import ServerError

logger = logging.getLogger(__name__)

PARENTS, FINISH = "parents", "finish"
"""The two passes over the changes; the other feeds bear the names of tables."""


class Cursor:
    """Positions that a server keeps for one file; for one thread.

    Parameters
    ----------
    feed
        What is new in the file.
    source
        What the file is called at the far end.
    places
        Where its frames are for readers of the server.
    lend
        Lends a connection inside a transaction: a context manager.
    """

    def __init__(
        self, feed: Feed, source: str, places: Places, lend: Callable[..., Any]
    ) -> None:
        self._feed = feed
        self._source = source
        self._places = places
        self._lend = lend
        self._positions: dict[str, tuple[int, str | None]] | None = None

    @property
    def known(self) -> bool:
        """Whether the server was asked."""
        return self._positions is not None

    def forget(self) -> None:
        """Ask the server anew how far it is."""
        self._positions = None

    def at(self, feed: str) -> int:
        """Return up to which number the server has a feed, as far as known."""
        return (self._positions or {}).get(feed, (0, None))[0]

    def load(self) -> None:
        """Ask the server how far it is, and tell it who we are."""
        table = tables.positions
        query = select(table.c.feed, table.c.position, table.c.anchor).where(
            table.c.source == self._source
        )
        with self._lend() as connection:
            if self._register(connection):
                # The frames are somewhere else now: look at every run once more.
                connection.execute(
                    delete(table).where(
                        table.c.source == self._source,
                        table.c.feed.in_([PARENTS, FINISH]),
                    )
                )
            rows = connection.execute(query).all()
        self._positions = {row.feed: (row.position, row.anchor) for row in rows}

    def _register(self, connection: Connection) -> bool:
        """Say who we are; return whether the store was somewhere else before."""
        table = tables.sources
        before = connection.execute(
            select(table.c.store).where(table.c.source == self._source)
        ).scalar()
        values = self._places.describe() | {"time_seen": time.time()}
        statement = insert(table).values(source=self._source, journaled="[]", **values)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["source"], set_=values)
        )
        return before is not None and before != values["store"]

    def check(self) -> None:
        """Begin a feed again whose numbers do not mean the same rows any more.

        That is so for one of two copies of a file which both went on, and for a file
        that was put back from a backup. What is there is not copied twice.
        """
        for feed in ROW_FEEDS:
            position, anchor = (self._positions or {}).get(feed.table, (0, None))
            if position and clean(self._feed.key_at(feed, position)) != anchor:
                logger.warning(
                    "%s: rows of %s are not those that were copied; all are compared",
                    self._feed.path,
                    feed.table,
                )
                self._rewind(feed.table)
        if self.at(FINISH) > self._feed.heads()["changes"]:
            self._rewind(PARENTS)
            self._rewind(FINISH)

    def _rewind(self, feed: str) -> None:
        with self._lend() as connection:
            self.move(connection, feed, 0, None)
        self.moved(feed, 0, None)

    def move(
        self, connection: Connection, feed: str, position: int, anchor: str | None
    ) -> None:
        """Store a position, in the transaction of what it stands for.

        Raises
        ------
        ServerError
            Another process has moved it meanwhile.
        """
        table = tables.positions
        before = self.at(feed)
        statement = insert(table).values(
            source=self._source, feed=feed, position=position, anchor=anchor
        )
        moved = connection.execute(
            statement.on_conflict_do_update(
                index_elements=["source", "feed"],
                set_={"position": position, "anchor": anchor},
                where=table.c.position == before,
            ).returning(table.c.source)
        )
        if moved.first() is None:
            self.forget()
            raise ServerError(
                "another process copies the same file; this one looks again"
            )

    def moved(self, feed: str, position: int, anchor: str | None) -> None:
        """Take note of a position whose transaction is committed."""
        if self._positions is not None:
            self._positions[feed] = (position, anchor)
