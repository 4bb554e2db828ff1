"""One pass over a file, which brings a server up to it.

=============  ========================================================================
step           what comes to the server
=============  ========================================================================
heads          nothing: the newest numbers of all feeds are taken down, of one moment
parents        samples, people, runs, streams, resources of all that has changed, so
               that what refers to them can come; runs as if they were still going on
rows           events, image references, datums, page by page, up to the heads
finish         runs as they are, with their end, tags, notes, texts and columns, of all
               that has changed up to the heads and not since
=============  ========================================================================

A run's end is copied after all its documents, so that who sees it sees all. Each page
is one transaction with the position up to which it reaches: what is there is there
once, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.replica.cursor import FINISH, PARENTS, Cursor
from bluesky_beamtime.database.replica.endings import (
    end_runs,
    put_notes,
    put_texts,
    remove_runs,
    renew,
)
from bluesky_beamtime.database.replica.feed import ROW_FEEDS, Feed, Row, RowFeed
from bluesky_beamtime.database.replica.parents import (
    begin_runs,
    put_person,
    put_samples,
)
from bluesky_beamtime.database.replica.places import Places
from bluesky_beamtime.database.replica.sending import (
    RowSender,
    absent,
    absent_image,
    clean,
    replaced,
)

_PAGE = 200


class Copier:
    """Brings one server up to one file; for one thread and one connection.

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
        self,
        feed: Feed,
        source: str,
        places: Places,
        lend: Callable[..., Any],
        goes_on: Callable[[], bool],
    ) -> None:
        self._feed = feed
        self._places = places
        self._lend = lend
        self._goes_on = goes_on
        self._cursor = Cursor(feed, source, places, lend)
        self._sender = RowSender(source, feed.path)
        self.copied = 0

    @property
    def refused(self) -> int:
        """How many rows the server has refused."""
        return self._sender.refused

    def forget(self) -> None:
        """Ask the server anew how far it is."""
        self._cursor.forget()

    def behind(self) -> int:
        """Return how many rows and changes the server lacks, as far as known."""
        if not self._cursor.known:
            return -1
        heads = self._feed.heads()
        changes = self._feed.count("changes", self._cursor.at(FINISH), heads["changes"])
        return changes + sum(
            max(0, heads[feed.table] - self._cursor.at(feed.table))
            for feed in ROW_FEEDS
        )

    def run(self) -> bool:
        """Go once over the file; return False if it was told to stop on the way.

        Raises
        ------
        SQLAlchemyError
            The server is away; what was committed there is there.
        """
        if not self._cursor.known:
            self._cursor.load()
        self._cursor.check()
        heads = self._feed.heads()
        steps: list[Callable[[], bool]] = [self._parents]
        for feed in ROW_FEEDS:
            steps.append(lambda feed=feed: self._page(feed, heads[feed.table]))
        steps.append(lambda: self._finish(heads["changes"]))
        for step in steps:
            while step():
                if not self._goes_on():
                    return False
        return True

    def _page(self, feed: RowFeed, upto: int) -> bool:
        """Copy the next page of a table; return whether there may be another."""
        rows = self._feed.page(feed, self._cursor.at(feed.table), upto)
        if not rows:
            return False
        position: int = rows[-1]["_number"]
        anchor = clean(rows[-1][feed.key])
        table = schema.metadata.tables[feed.table]
        size = sum(len(v) for row in rows for v in row.values() if isinstance(v, str))
        with self._lend(size=size) as connection:
            if table is schema.image_refs:
                self._sender.put(connection, table, rows, absent_image)
            else:
                self._sender.put(connection, table, rows, absent(feed.key))
            self._cursor.move(connection, feed.table, position, anchor)
        self._cursor.moved(feed.table, position, anchor)
        self.copied += len(rows)
        return position < upto

    def _parents(self) -> bool:
        after = self._cursor.at(PARENTS)
        with self._feed.snapshot() as seen:
            changes = seen.changes(after, 2**63 - 1, _PAGE)
            if not changes:
                return False
            runs = seen.rows("runs", "uid", _keys(changes, "run"))
            known = [row["uid"] for row in runs]
            samples = {*map(int, _keys(changes, "sample"))}
            samples |= {r["sample_id"] for r in runs if r["sample_id"] is not None}
            sample_rows = seen.rows("samples", "id", sorted(samples))
            history = seen.rows("sample_history", "sample_id", sorted(samples))
            people = seen.rows("people", "id", _keys(changes, "person"))
            streams = seen.rows("streams", "run_uid", known)
            stream_resources = seen.rows("stream_resources", "run_uid", known)
            resources = seen.rows("resources", "run_uid", known)
        position = changes[-1][0]
        with self._lend(size=_size(runs, streams, stream_resources)) as connection:
            ids = put_samples(self._sender, connection, sample_rows, history)
            for person in people:
                put_person(connection, person)
            begin_runs(self._sender, connection, runs, ids)
            self._sender.put(connection, schema.streams, streams, absent("uid"))
            self._sender.put(
                connection,
                schema.stream_resources,
                [self._places.stream_resource(row) for row in stream_resources],
                replaced("uid", ["uri"]),
            )
            self._sender.put(
                connection,
                schema.resources,
                [self._places.resource(row) for row in resources],
                replaced("uid", ["root", "resource_path"]),
            )
            self._cursor.move(connection, PARENTS, position, None)
        self._cursor.moved(PARENTS, position, None)
        self.copied += len(changes)
        return len(changes) == _PAGE

    def _finish(self, upto: int) -> bool:
        with self._feed.snapshot() as seen:
            changes = seen.changes(self._cursor.at(FINISH), upto, _PAGE)
            if not changes:
                return False
            wanted = _keys(changes, "run")
            runs = seen.rows("runs", "uid", wanted)
            known = [row["uid"] for row in runs]
            ids = {row["id"]: row["uid"] for row in runs}
            tags = seen.rows("run_tags", "run_uid", known)
            roles = seen.rows("run_people", "run_uid", known)
            people = seen.rows("people", "id", {r["person_id"] for r in roles})
            accounts = seen.rows("frame_accounts", "run_uid", known)
            texts = seen.rows("run_texts", "run_id", list(ids))
            notes = seen.rows("notes", "id", _keys(changes, "note"))
            columns = seen.rows(
                "event_columns", "stream_uid", _keys(changes, "columns")
            )
            samples = seen.rows("samples", "id", {r["sample_id"] for r in runs})
        position = changes[-1][0]
        gone = sorted(set(wanted) - set(known))
        with self._lend(size=_size(runs, texts, columns)) as connection:
            remove_runs(self._sender, connection, gone)
            end_runs(
                self._sender,
                connection,
                runs,
                put_samples(self._sender, connection, samples, []),
            )
            renew(self._sender, connection, schema.run_tags, "run_uid", known, tags)
            here = {row["id"]: put_person(connection, row) for row in people}
            roles = [{**row, "person_id": here[row["person_id"]]} for row in roles]
            renew(self._sender, connection, schema.run_people, "run_uid", known, roles)
            renew(
                self._sender,
                connection,
                schema.frame_accounts,
                "run_uid",
                known,
                accounts,
            )
            put_texts(self._sender, connection, ids, texts)
            put_notes(self._sender, connection, _keys(changes, "note"), notes)
            renew(
                self._sender,
                connection,
                schema.event_columns,
                "stream_uid",
                _keys(changes, "columns"),
                columns,
            )
            self._cursor.move(connection, FINISH, position, None)
        self._cursor.moved(FINISH, position, None)
        return True


def _keys(changes: list[tuple[int, str, str]], kind: str) -> list[str]:
    return [key for _, found, key in changes if found == kind]


def _size(*groups: list[Row]) -> int:
    return sum(
        len(value)
        for rows in groups
        for row in rows
        for value in row.values()
        if isinstance(value, (str, bytes))
    )
